"""How a figure stands in a table, in the terminal and in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
