"""The service: videos over HTTP, rows as JSON."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceLimits:
    """What one service takes on.

    Args:
        upload_megabytes: of one file, sent or fetched.
        seconds: that a file may take to arrive, and then to be scored.
        requests: that are under way at once, those included that are still arriving.
        memory_megabytes: that reading one video may take.
    """

    upload_megabytes: int = 500
    seconds: float = 120.0
    requests: int = 32
    memory_megabytes: int = 2048


def serve(
    model: str | None = None,
    device: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: ServiceLimits = ServiceLimits(),
    workers: int | None = None,
    allow_urls: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Score what is sent, until the process is asked to end; what has begun is then finished first.

    Args:
        model: folder or Hub id of a checkpoint; the default one without it.
        host: who may reach it: 127.0.0.1 is this machine, 0.0.0.0 every machine of the network.
        port: of the service; 0 for any that is free.
        workers: videos that are read at once; by default as many as there are cores.
        allow_urls: clients may name a URL instead of sending a file.
        say: is told how far it is.

    Raises:
        ModelError: the checkpoint can't be loaded.
        ModuleNotFoundError: the extra `serve` is not installed.
        OSError: the port is taken.
    """
    # As the first process of a container, one without a handler would not hear of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    import uvicorn

    from lmmvqa.serving.app import build

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Clients that come while the model loads wait.
    with socket.create_server((host, port), family=family, backlog=128) as listening:
        say("Loading the model.")
        from lmmvqa.scoring.bulk import default_workers
        from lmmvqa.scoring.loading import load
        from lmmvqa.scoring.reading_workers import ReadingLimits
        from lmmvqa.serving.scoring_queue import ScoringQueue

        reading = ReadingLimits(limits.seconds, limits.memory_megabytes)
        with load(model, device=device) as scorer, ScoringQueue(scorer, workers or default_workers(), reading) as queue:
            here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
            address = f"http://{here}:{listening.getsockname()[1]}"
            say(f"Ready: POST videos to {address}/score. The description is at {address}/docs. Ctrl-C ends it.")
            logging.getLogger("python_multipart").setLevel(logging.WARNING)
            server = uvicorn.Server(uvicorn.Config(build(queue, limits, allow_urls), log_config=None, lifespan="off"))
            server.run(sockets=[listening])
