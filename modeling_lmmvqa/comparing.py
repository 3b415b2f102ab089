"""Which of several videos people would prefer, from the score of each and what is known of its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

from .explaining import clock
from .video_score import VideoScore

# Probability that lies outside the interval of a difference, half of it on each side.
_TAIL = 0.10
# Below a twentieth of a point two scores are equal for all purposes, and a deviation of 0 would divide by zero.
_SMALLEST_DEVIATION = 0.05
# From here on one of the two is called better; below, the verdict is that it can't be told.
SURE = 0.75
# Timelines are compared window by window; below this many points they are said to go side by side.
_NOTABLE = 3.0


@dataclass(frozen=True)
class Comparison:
    """Two videos beside each other.

    The model: what people would say of a video lies around its score as a normal distribution with the deviation that
    the read-out states and the calibration has widened to what ratings showed; the errors of two videos are
    independent. Errors of two encodes of one content go together, so for those it is less sure than it could be.

    Args:
        first, second: neither of them with an error.
        moment: the second in which their timelines differ most: start_s, end_s and difference; None where there are no
            timelines.
    """

    first: VideoScore
    second: VideoScore
    moment: dict[str, float] | None

    @property
    def difference(self) -> float:
        """Score of the first minus score of the second, in points."""
        assert self.first.score is not None and self.second.score is not None
        return self.first.score - self.second.score

    @property
    def probability(self) -> float:
        """That people would prefer the first, 0 to 1."""
        return self.is_worse_by(0)

    @property
    def interval(self) -> tuple[float, float]:
        """The central 90 % of the difference."""
        return self._distribution.inv_cdf(_TAIL / 2), self._distribution.inv_cdf(1 - _TAIL / 2)

    def is_worse_by(self, points: float) -> float:
        """The probability that the second is more than so many points below the first, 0 to 1."""
        return 1 - self._distribution.cdf(points)

    @property
    def _distribution(self) -> NormalDist:
        deviation = math.hypot(self.first.score_std or 0.0, self.second.score_std or 0.0)
        return NormalDist(self.difference, max(_SMALLEST_DEVIATION, deviation))

    def verdict(self) -> str:
        """One sentence that says which one looks better, how sure that is, and where they differ most."""
        better, other = self.first, self.second
        probability, difference = self.probability, self.difference
        if probability < 0.5:
            better, other, probability, difference = other, better, 1 - probability, -difference
        low, high = sorted(math.copysign(1, self.difference or 1) * bound for bound in self.interval)
        points = f"{better.score:.1f} against {other.score:.1f}, {abs(difference):.1f} points ({low:.1f} to {high:.1f})"
        if probability < SURE:
            text = f"It can't be told which of {better.path} and {other.path} looks better: {points}."
        else:
            text = f"{better.path} looks better than {other.path} ({probability:.0%} sure): {points}."
        if self.moment is not None and abs(self.moment["difference"]) >= _NOTABLE:
            start, end = clock(self.moment["start_s"]), clock(self.moment["end_s"])
            text += f" They differ most from {start} to {end}, by {abs(self.moment['difference']):.1f} points."
        return text

    def as_row(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "first": self.first.path,
            "second": self.second.path,
            "probability_first_better": round(self.probability, 4),
            "difference": round(self.difference, 4),
            "difference_low": round(self.interval[0], 4),
            "difference_high": round(self.interval[1], 4),
            "moment": self.moment,
            "verdict": self.verdict(),
        }


def compare(first: VideoScore, second: VideoScore) -> Comparison:
    """Compare two scores.

    Raises:
        ValueError: one of them is an error.
    """
    _require_scores((first, second))
    return Comparison(first, second, _moment(first, second))


def rank(scores: Sequence[VideoScore]) -> list[Comparison]:
    """Videos from the best to the worst: each compared with the next one.

    Raises:
        ValueError: one of them is an error.
    """
    _require_scores(scores)
    ordered = sorted(scores, key=lambda score: -(score.score or 0.0))
    return [compare(better, worse) for better, worse in pairwise(ordered)]


def _require_scores(scores: Sequence[VideoScore]) -> None:
    for score in scores:
        if score.error is not None:
            raise ValueError(f"{score.path} has no score to compare: {score.error}")


def _moment(first: VideoScore, second: VideoScore) -> dict[str, float] | None:
    """Where two timelines differ most; the longer one is compared as far as the other goes."""
    if first.timeline is None or second.timeline is None:
        return None
    pairs = list(zip(first.timeline["seconds"], second.timeline["seconds"], strict=False))
    here, there = max(pairs, key=lambda pair: abs(pair[0]["score"] - pair[1]["score"]))
    return {
        "start_s": here["start_s"],
        "end_s": min(here["end_s"], there["end_s"]),
        "difference": round(here["score"] - there["score"], 4),
    }
