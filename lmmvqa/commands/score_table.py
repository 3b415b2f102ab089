"""What people see of scores in a terminal: a table that fits 80 columns, and a last line that counts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmmvqa.console import print_timeline
from modeling_lmmvqa.explaining import clock, explain, main_flaw

if TYPE_CHECKING:
    from modeling_lmmvqa.video_score import VideoScore

# From the worst to the best.
_COLOURS = ("red", "yellow", "green")


class Tally:
    """Counts scores as they go by."""

    def __init__(self) -> None:
        self.seen = 0
        self.errors: list[str] = []
        self._levels: Counter[str] = Counter()
        self._order: list[str] = []

    @property
    def failed(self) -> int:
        return len(self.errors)

    def count(self, scores: Iterable[VideoScore]) -> Iterator[VideoScore]:
        for score in scores:
            self.seen += 1
            self._order = self._order or list(score.level_probabilities or ())
            if score.error is None:
                self._levels[score.level] += 1
            else:
                self.errors.append(score.error)
            yield score

    def sentence(self) -> str:
        """Such as "4 videos: 2 good, 1 fair, 0 poor, 1 error."."""
        counts = [f"{self._levels[level]} {level}" for level in reversed(self._order)]
        counts = counts or [f"{self.seen - self.failed} scored"]
        counts.append(f"{self.failed} error{'s' * (self.failed != 1)}")
        return f"{self.seen:,} video{'s' * (self.seen != 1)}: {', '.join(counts)}."


def in_order(scores: Iterable[VideoScore], sort: Literal["score", "path"] | None) -> list[VideoScore]:
    """By "score", worst first and errors at the end, by "path", or as they came."""
    if sort == "score":
        return sorted(scores, key=lambda score: (score.error is not None, score.score or 0.0))
    return sorted(scores, key=lambda score: score.path) if sort else list(scores)


def print_table(scores: list[VideoScore], levels: str = "", *, timeline: bool = False, explained: bool = False) -> None:
    """A row for each video, its name whole, and under it what people should know of single ones.

    Args:
        levels: which scores each level word means, as `describe_levels` says it.
        timeline: also the quality over time.
        explained: also a sentence on each video.
    """
    folder = _common_folder([score.path for score in scores])
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=folder and escape(f"in {folder}"), title_justify="left"
    )
    table.add_column("video", overflow="fold", ratio=1)
    # Only a checkpoint that was taught the question says what is wrong.
    has_flaws = any("flaw" in (score.answers or {}) for score in scores)
    for name in ("score", "90 % in", "level", *(["mostly"] if has_flaws else []), "length"):
        table.add_column(name, justify="left" if name in ("level", "mostly") else "right", no_wrap=True)
    for score in scores:
        name = escape(score.path.removeprefix(folder))
        if score.error is not None:
            table.add_row(name, "-", "-", "[red]error[/]", *(["-"] if has_flaws else []), "-")
            continue
        words = list(score.level_probabilities or ())
        place = (words.index(score.level) + 0.5) / len(words) if words else score.score / 100
        colour = _COLOURS[min(2, int(3 * place))]
        low, high = score.interval
        table.add_row(
            name,
            f"[{colour}]{score.score:.1f}[/]",
            f"{low:.0f}-{high:.0f}",
            f"[{colour}]{score.level}[/] {score.level_probabilities[score.level]:.0%}" if words else "-",
            *([_mostly(score.answers["flaw"]["probabilities"])] if has_flaws else []),
            _length(score.duration_s),
        )
    console = Console()
    console.print(table)
    for score in scores:
        if explained and score.error is None:
            console.print(
                escape(f"{score.path.removeprefix(folder)}: {explain(score.as_row())}"), highlight=False, soft_wrap=True
            )
        if timeline and score.timeline is not None:
            print_timeline(score)
        for warning in score.warnings:
            console.print(
                f"[yellow]Note:[/] {escape(f'{score.path.removeprefix(folder)}: {warning}')}",
                highlight=False,
                soft_wrap=True,
            )
    console.print(
        f"[dim]Scores go from 0 (worst) to 100 (best){f': {levels}' if levels else ''}. --json prints whole rows.[/]",
        highlight=False,
        soft_wrap=True,
    )


def _length(seconds: float) -> str:
    """A picture has none."""
    if not seconds:
        return "-"
    return clock(seconds) if seconds >= 60 else f"{seconds:.1f} s"


def _mostly(flaws: Mapping[str, float]) -> str:
    word = main_flaw(flaws)
    return f"{word} {flaws[word]:.0%}"


def _common_folder(paths: list[str]) -> str:
    """The folder that all paths begin with, with its separator; nothing for a single one, or for URLs."""
    folders = {os.path.dirname(path) for path in paths}
    if len(paths) < 2 or any("://" in path for path in paths) or len({os.path.isabs(path) for path in paths}) > 1:
        return ""
    common = os.path.commonpath(folders) if folders else ""
    return f"{common}{os.sep}" if common and common != os.sep else ""
