"""How commands speak to people: messages on standard error, errors without traces."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from modeling_lmmvqa.explaining import clock, flaw_in_words
from processing.errors import LmmVqaError

if TYPE_CHECKING:
    from lmmvqa.scoring.gates import Check
    from modeling_lmmvqa.video_score import VideoScore

# Results go to standard output; everything else goes here, so that a pipe gets results only.
messages = Console(stderr=True)
# The exit code of a command that Ctrl-C has stopped, as shells have it.
INTERRUPTED = 130
# That of one whose output nobody reads any more.
CUT_OFF = 141


def show_error(error: object) -> None:
    """Print an error's message as it is: file names may hold what looks like markup."""
    messages.print("[bold red]Error:[/]", escape(str(error)), highlight=False, soft_wrap=True)


def show_missed(checks: Iterable[Check]) -> None:
    """Say of each check that did not pass what it missed."""
    for check in checks:
        if not check.passed:
            messages.print(f"[bold red]Missed:[/] {escape(check.path)}: {escape(check.sentence)}.", soft_wrap=True)


@contextmanager
def warnings_stand_in_rows() -> Iterator[None]:
    """The log leaves out what each row says under `warnings`."""
    log = logging.getLogger("processing.decoding")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


@contextmanager
def pictures_are_expected() -> Iterator[None]:
    """The log leaves out that a file is a single picture: in a set of photographs, each is."""
    from processing.video_reader import SINGLE_PICTURE

    log = logging.getLogger("processing.decoding")

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith(SINGLE_PICTURE)

    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show what the user can mend as a message, and end with code 2: a `LmmVqaError`, or what the system refuses (a
    file that is missing, a disk that is full). Anything else is a fault of ours and keeps its trace; with `--verbose`
    these have theirs, too."""
    # Progress bars of the libraries count things that mean nothing to a user. They read this when they are imported,
    # which is not for here to do: it takes longer than some commands.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "transformers" in sys.modules:
        from transformers.utils import logging as library_logging

        library_logging.disable_progress_bar()
        library_logging.set_verbosity_error()
    try:
        with _interrupted_once():
            yield
    except KeyboardInterrupt:
        messages.print("Stopped.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Who reads has seen enough, such as `head`. Python would complain again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CUT_OFF) from None
    except (LmmVqaError, OSError) as error:
        logging.getLogger(__name__).debug("Trace", exc_info=True)
        show_error(error)
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        extra = _extra_with(error.name or "")
        if extra is None:
            raise
        show_error(f"This needs {error.name}, which is not installed: pip install 'lmmvqa[{extra}]'.")
        raise typer.Exit(2) from error


def _extra_with(module: str) -> str | None:
    """The extra of our package that brings a module, if one does."""
    package = module.partition(".")[0].replace("skimage", "scikit-image").replace("_", "-")
    # Extras name each other as parts of our own package.
    if package == "lmmvqa":
        return None
    for needed in requires("lmmvqa") or []:
        if found := re.match(rf"{re.escape(package)}\W.*extra == [\"'](?!dev)(\w+)", needed):
            return found[1]
    return None


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """The first Ctrl-C ends the work, and no other cuts short how it ends; the third gives up on that."""
    count = 0

    def interrupt(*_: object) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise KeyboardInterrupt
        if count > 2:
            os._exit(INTERRUPTED)
        messages.print("Stopping: what is done is being kept. Ctrl-C once more ends at once.")

    # Only the main thread may say what a signal does.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def print_timeline(result: VideoScore) -> None:
    """A video's quality over time as one line of bars, one a second, with the moments that matter."""
    seconds = result.timeline["seconds"]
    # A bar that is wider than the terminal would tell nothing; it then shows the lowest of several seconds.
    size = -(-len(seconds) // 60)
    lowest = [
        min(second["score"] for second in seconds[start : start + size]) for start in range(0, len(seconds), size)
    ]
    line = "".join("▁▂▃▄▅▆▇█"[min(7, int(score / 12.5))] for score in lowest)
    worst, best = result.timeline["worst"], result.timeline["best"]
    console = Console()
    console.print(escape(result.path), highlight=False, soft_wrap=True)
    console.print(f"  {line}  each bar: {size} s" + (", its lowest second" if size > 1 else ""), highlight=False)
    console.print(
        f"  worst second {clock(worst['start_s'])} ({worst['score']:.1f}), best {clock(best['start_s'])} "
        f"({best['score']:.1f})",
        highlight=False,
    )
    if flaws := result.timeline["worst_moment"].get("flaws"):
        moment = result.timeline["worst_moment"]
        console.print(
            f"  worst from {clock(moment['start_s'])} to {clock(moment['end_s'])}: {flaw_in_words(flaws)}",
            highlight=False,
        )
