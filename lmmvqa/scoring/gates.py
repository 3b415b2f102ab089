"""Thresholds for programs that check encodes: what passed, what didn't, and a summary that their pages show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from processing.errors import LmmVqaError

if TYPE_CHECKING:
    from modeling_lmmvqa.comparing import Comparison
    from modeling_lmmvqa.video_score import VideoScore

# The code with which a command ends whose threshold is missed; 1 is for videos with errors, 2 for the command itself.
MISSED = 3
SUMMARY_SUFFIXES = (".md", ".xml")


@dataclass(frozen=True)
class Check:
    """What a threshold says of one video: whether it passed, and a sentence with the numbers behind it, or why there
    are none."""

    path: str
    passed: bool
    sentence: str
    is_error: bool = False


class SummaryError(LmmVqaError, ValueError):
    """A summary can't be written. The message names the file and the remedy."""


def check_score(score: VideoScore, least: float, confidence: float) -> Check:
    """Whether a video reaches a score.

    Args:
        least: in points, 0 to 100.
        confidence: how probable it must be that the video is below `least` for it to fail, 0 to 1. With 0.5 the score
            alone decides.
    """
    if score.error is not None:
        return Check(score.path, False, score.error, is_error=True)
    below = NormalDist(score.score, max(score.score_std or 0.0, 1e-6)).cdf(least)
    sentence = (
        f"{score.score:.1f} points, and at least {least:g} were asked; below that with a probability of {below:.0%}"
    )
    return Check(score.path, below < confidence or score.score >= least, sentence)


def watch(scores: Iterable[VideoScore], least: float, confidence: float, checks: list[Check]) -> Iterator[VideoScore]:
    """The same scores; the check of each goes into `checks` as it passes by."""
    for score in scores:
        checks.append(check_score(score, least, confidence))
        yield score


def check_comparison(comparison: Comparison, tolerance: float, confidence: float) -> Check:
    """Whether the second video is at most `tolerance` points below the first; arguments as in `check_score`."""
    worse = comparison.is_worse_by(tolerance)
    sentence = (
        f"{-comparison.difference:+.1f} points against {comparison.first.path}; "
        f"more than {tolerance:g} below it with a probability of {worse:.0%}"
    )
    return Check(comparison.second.path, worse < confidence or comparison.difference <= tolerance, sentence)


def write_summary(checks: Sequence[Check], path: Path) -> None:
    """Write checks as a Markdown table (.md) or as JUnit's XML (.xml).

    Raises:
        SummaryError: another suffix.
    """
    check_summary_suffix(path)
    if path.suffix == ".md":
        path.write_text(_markdown(checks), encoding="utf-8")
        return
    failed = sum(not check.passed for check in checks)
    suite = ElementTree.Element("testsuite", name="lmmvqa", tests=str(len(checks)), failures=str(failed))
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="lmmvqa", name=_printable(check.path))
        if check.passed:
            ElementTree.SubElement(case, "system-out").text = _printable(check.sentence)
        else:
            ElementTree.SubElement(case, "failure", message=_printable(check.sentence))
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def check_summary_suffix(path: Path) -> None:
    """
    Raises:
        SummaryError: a summary can't be written to a file of this name.
    """
    if path.suffix not in SUMMARY_SUFFIXES:
        raise SummaryError(f"{path} is neither Markdown nor XML: let the summary's name end with .md or .xml.")


def _markdown(checks: Sequence[Check]) -> str:
    failed = sum(not check.passed for check in checks)
    head = f"**{len(checks) - failed} of {len(checks)} passed.**\n\n| video | result | why |\n| --- | --- | --- |\n"
    rows = (
        f"| {_cell(check.path)} | {'passed' if check.passed else '**failed**'} | {_cell(check.sentence)} |"
        for check in checks
    )
    return head + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return _printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _printable(text: str) -> str:
    """File names may hold control characters and bytes that are no text; neither Markdown nor XML can."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
