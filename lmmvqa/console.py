"""How commands speak to people: messages on standard error, errors without traces."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

# Results go to standard output; everything else goes here, so that a pipe gets results only.
messages = Console(stderr=True)


def show_error(error: object) -> None:
    """Print an error's message as it is: file names may hold what looks like markup."""
    messages.print("[bold red]Error:[/]", escape(str(error)), highlight=False, soft_wrap=True)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show an error that has a message for people as that message, and end with code 2; anything else is a fault of ours
    and keeps its trace."""
    # Progress bars of the libraries count things that mean nothing to a user. Two of them read this when they are imported.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        logging.getLogger(__name__).debug("Trace", exc_info=True)
        show_error(error)
        raise typer.Exit(2) from error
