"""The command `lmmvqa`: gathers the commands of the modules beside it."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import warnings
from typing import Annotated

import typer
from rich.logging import RichHandler

from lmmvqa.commands import (
    bulk,
    checkpoints,
    compare,
    data,
    default_making,
    evaluation,
    release,
    score,
    serving,
    training,
)
from lmmvqa.console import INTERRUPTED, messages

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
PANELS = {
    "Score and share": (score, compare, bulk, serving, release),
    "Compose and train": (checkpoints, training),
    "Evaluate": (evaluation, data),
    "Make the default checkpoint from nothing": (default_making,),
}
for panel, groups in PANELS.items():
    for group in groups:
        app.add_typer(group.app, rich_help_panel=panel)
        for command in (*group.app.registered_commands, *group.app.registered_groups):
            command.rich_help_panel = panel


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"lmmvqa {version('lmmvqa')}")
        raise typer.Exit


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Blind video quality assessment with large multimodal models."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=messages, show_path=False, show_time=False, level=logging.DEBUG)],
    )
    for chatty in ("httpx", "httpx2", "urllib3", "filelock", "fsspec", "matplotlib", "torch", "datasets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # peft asks transformers in a way that is about to go; nothing a user can act on.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")


def run() -> None:
    """The command line as a process: exits with the code of the command."""
    try:
        app()
    except SystemExit as end:
        # Several processes under a launcher: threads of gloo outlive their group, even a destroyed one, and the
        # interpreter's own end can abort on what they hold (pull request 179291 of PyTorch).
        distributed = sys.modules.get("torch.distributed")
        shared = distributed is not None and distributed.is_available() and distributed.is_initialized()
        # After an interrupt, threads may still be at work, which that end can abort on, too.
        if not shared and end.code != INTERRUPTED:
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)


if __name__ == "__main__":
    run()
