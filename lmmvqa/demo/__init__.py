"""The demo: a page in the browser, on this machine or as a Space."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from processing.errors import SetupError

APP = Path(__file__).with_name("app.py")


def examples() -> list[Path]:
    """Videos to try the page on: one whose quality falls and comes back, then the clips of the reference scores."""
    from lmmvqa.checkpoints.assembling import REFERENCE

    return [*sorted(APP.with_name("examples").glob("*.mp4")), *sorted(REFERENCE.glob("*.mp4"))]


def serve(model: str | None = None, device: str | None = None, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Show the page until the program is stopped.

    Args:
        model: folder or Hub id of a checkpoint; the default one without it.
        host: who may reach it: 127.0.0.1 is this machine, 0.0.0.0 every machine of the network.
        port: of the page; 0 for any that is free.

    Raises:
        ModelError: the checkpoint can't be loaded.
        RuntimeError: Gradio is missing.
        OSError: the port is taken.
    """
    # Read when Gradio is imported: the page must not ask the network for anything.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        from lmmvqa.demo import app
    except ImportError as error:
        raise SetupError('The demo needs Gradio. Install it: pip install "lmmvqa[demo]"') from error
    from transformers import pipeline

    from lmmvqa.checkpoints.loading import load_checkpoint
    from lmmvqa.scoring.pipeline import TASK

    network, processor = load_checkpoint(model, device)
    pipe = pipeline(TASK, model=network, processor=processor, device=network.device)
    if not port:
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
    app.build(pipe, examples()).launch(server_name=host, server_port=port, **app.LOOKS)
