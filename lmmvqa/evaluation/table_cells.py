"""How a figure stands in a table, in the terminal and in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hub_cards.results import FEW_VIDEOS

SAYS_NOTHING = "says nothing"


def three_decimals(value: float | None) -> str:
    """A metric that is not defined is None."""
    return "-" if value is None else f"{value:.3f}"


def between(bounds: Sequence[float] | None) -> str:
    """The two ends of an interval."""
    return "-" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def interval_or_deviation(row: Mapping[str, Any], metric: str) -> str:
    """The interval of a row's metric; of a mean of folds, which has none, the standard deviation over them."""
    if bounds := (row.get("intervals") or {}).get(metric):
        return between(bounds)
    deviation = (row.get("deviations") or {}).get(metric)
    return "-" if deviation is None else f"deviation {deviation:.3f}"


def spread(row: Mapping[str, Any], metric: str) -> str:
    """How sure a row's metric is: its interval or deviation, unless it is of too few videos to say anything."""
    return interval_or_deviation(row, metric) if row["n"] >= FEW_VIDEOS else SAYS_NOTHING


def spread_of_words(row: Mapping[str, Any]) -> str:
    """The same of the balanced accuracy of words."""
    return between(row["interval"]) if row["n"] >= FEW_VIDEOS else SAYS_NOTHING
