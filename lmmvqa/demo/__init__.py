"""The demo: a page in the browser, on this machine or as a Space; and scores of a folder as a page."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from processing.errors import SetupError

APP = Path(__file__).with_name("app.py")
# What the app needs beside it in a Space.
DRAWING = Path(__file__).with_name("drawing.py")


def examples() -> list[Path]:
    """Videos to try the page on: one whose quality falls and comes back, then the clips of the reference scores."""
    from lmmvqa.checkpoints.default_files import REFERENCE

    return [*sorted(APP.with_name("examples").glob("*.mp4")), *sorted(REFERENCE.glob("*.mp4"))]


def serve(
    model: str | None = None,
    device: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    say: Callable[[str], None] = print,
) -> None:
    """Show the page until the program is stopped.

    Args:
        model: folder or Hub id of a checkpoint; the default one without it.
        host: who may reach it: 127.0.0.1 is this machine, 0.0.0.0 every machine of the network.
        port: of the page; 0 for any that is free.
        say: is told how far it is.

    Raises:
        ModelError: the checkpoint can't be loaded.
        SetupError: Gradio is missing.
        OSError: the port is taken.
    """
    if not port:
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
    say("Loading the model. The page is up in about a minute.")
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
    page = app.build(pipe, examples())
    settings = {"max_file_size": app.LARGEST_UPLOAD, "quiet": True, "prevent_thread_lock": True, **app.LOOKS}
    page.launch(server_name=host, server_port=port, **settings)
    here = "127.0.0.1" if host == "0.0.0.0" else host
    say(f"The page is at http://{here}:{port}. Ctrl-C ends it.")
    page.block_thread()
