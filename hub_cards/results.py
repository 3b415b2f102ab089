"""Results that a card may state: those in the files that `lmmvqa evaluate` wrote, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processing.errors import LmmVqaError

# A figure: a number with two decimals or more. Versions (1.2.3), and what stands in code and addresses, are none.
_FIGURE = re.compile(r"(?<![\w.])-?\d{0,3}\.\d{2,}(?!\w)(?!\.\d)")
_NO_PROSE = re.compile(r"```.*?```|`[^`\n]*`|https?://[^\s)]+", re.DOTALL)


# Of fewer videos, a correlation is chance to a large part: among 30 without any relation, one in twenty has an SRCC
# beyond .36.
FEW_VIDEOS = 30

# Of a results file, and what they are called for people.
METRICS = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_fitted": "PLCC after a four-parameter logistic fit",
    "rmse": "RMSE",
    "rmse_fitted": "RMSE after that fit",
    "level_accuracy": "share of right levels",
    "interval_holds": "share of ratings inside the stated 90 % interval",
    "balanced_accuracy": "share of right words, each word weighing the same",
}
# Of a question beside score and level, what a card states.
_OF_QUESTIONS = ("srcc", "plcc_fitted", "balanced_accuracy")


class CardError(LmmVqaError, ValueError):
    """A card that would say what is not so. The message names the figure or the file, and the remedy."""


@dataclass(frozen=True)
class Result:
    """One metric on one split of one data set.

    Args:
        dataset: its name, such as konvid_1k.
        split: such as test, or "fold 0".
        part: of the split, such as a family of distortions; None for the whole of it.
        metric: such as srcc.
        value: what was measured.
        n: over how many videos.
        interval: 95 % interval of the value, if it was measured.
        seen: how many of the videos the checkpoint learned from, None where nobody knows.
        scale: the ratings that are the scores 0 and 100; an RMSE is in their units, or else in points of 100.
        question: what was asked, where that is neither score nor level, such as sharpness or flaw.
    """

    dataset: str
    split: str
    part: str | None
    metric: str
    value: float
    n: int
    interval: tuple[float, float] | None = None
    seen: int | None = None
    scale: tuple[float, float] | None = None
    question: str | None = None

    @property
    def reservation(self) -> str | None:
        """Why the value says nothing about videos in general; None where it does."""
        if self.n < FEW_VIDEOS:
            return f"n = {self.n}: says nothing"
        return f"learned from {self.seen} of these videos" if self.seen else None

    @property
    def metric_name(self) -> str:
        """The metric for people, an error with its unit."""
        if self.question is not None:
            return f"{METRICS[self.metric]}: {self.question}"
        if not self.metric.startswith("rmse"):
            return METRICS[self.metric]
        low, high = self.scale or (0.0, 100.0)
        return f"{METRICS[self.metric]} (of {low:g} to {high:g})"


def read_results(files: Iterable[Path]) -> list[Result]:
    """The results in files `metrics.json` of `lmmvqa evaluate`: a list of rows, one for each set, split and part.

    Raises:
        CardError: a file is not of that form.
    """
    results: list[Result] = []
    for file in files:
        try:
            for row in json.loads(file.read_text(encoding="utf-8")):
                place = (row["set"], row["split"], row["part"])
                total = (row.get("level_accuracy") or {}).get("total")
                values: dict[str, Any] = {name: row.get(name) for name in METRICS} | {"level_accuracy": total}
                for name, value in values.items():
                    if value is not None:
                        ends = _pair(row["intervals"].get(name)), row.get("seen"), _pair(row.get("scale"))
                        results.append(Result(*place, name, float(value), int(row["n"]), *ends))
                for question, of in (row.get("questions") or {}).items():
                    for name in _OF_QUESTIONS:
                        if (value := of.get(name)) is not None:
                            bounds = of["interval"] if name == "balanced_accuracy" else of["intervals"].get(name)
                            ends = _pair(bounds), row.get("seen"), None
                            results.append(Result(*place, name, float(value), int(of["n"]), *ends, question))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CardError(
                f"{file} is not a results file ({type(error).__name__}: {error}): name the metrics.json of a run of "
                "`lmmvqa evaluate`."
            ) from error
    return results


def _pair(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return (float(ends[0]), float(ends[1])) if ends else None


def check_figures(text: str, results: Sequence[Result]) -> None:
    """Refuse a text with a figure that no result holds, rounded as it is in the text.

    Raises:
        CardError: names every such figure.
    """
    known = [value for result in results for value in (result.value, *(result.interval or ()))]
    unknown = []
    for figure in _FIGURE.findall(_NO_PROSE.sub("", text)):
        decimals = len(figure.rpartition(".")[2])
        if not any(abs(abs(value) - abs(float(figure))) <= 0.5000001 * 10**-decimals for value in known):
            unknown.append(figure)
    if unknown:
        raise CardError(
            f"The card states {', '.join(dict.fromkeys(unknown))}, which no results file holds: evaluate with `lmmvqa "
            "evaluate` and name its file, or take the figure out."
        )
