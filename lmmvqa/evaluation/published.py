"""Figures that others published, each with its source: `published.csv` and, for what people call things,
`published.yaml`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
FILE, WORDS = _HERE / "published.csv", _HERE / "published.yaml"


@dataclass(frozen=True)
class Figure:
    """One published figure: `figure` is srcc, plcc, level_accuracy_<level>, seconds_per_video or an aspect of
    VCGBench; `table` the paper's table that it stands in, or would stand in."""

    source: str
    table: str
    method: str
    trained_on: str
    tested_on: str
    figure: str
    value: float


@dataclass(frozen=True)
class Published:
    """All of it.

    Args:
        sources: what each source is, by its short name.
        sets: {"name": for people, "videos": counts that published figures are of}, by the key of the set.
        rated_sets: the rows of the paper's Table II.
        tables: {"title", "note"} of each table.
    """

    figures: tuple[Figure, ...]
    sources: Mapping[str, str]
    sets: Mapping[str, Mapping[str, Any]]
    rated_sets: tuple[Mapping[str, str], ...]
    tables: Mapping[str, Mapping[str, str]]

    def rows(self, table: str) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
        """The figures of a table, {(method, source): {set: {figure: value}}}, in the order of the file."""
        rows: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
        for item in self.figures:
            if item.table == table:
                sets = rows.setdefault((item.method, item.source), {})
                sets.setdefault(item.tested_on, {})[item.figure] = item.value
        return rows

    def name(self, key: str) -> str:
        """What people call a set."""
        return str(self.sets[key]["name"]) if key in self.sets else key


@cache
def read_published() -> Published:
    """The figures that ship with the package."""
    with FILE.open(encoding="utf-8", newline="") as file:
        figures = tuple(Figure(value=float(row.pop("value")), **row) for row in csv.DictReader(file))
    words = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    return Published(figures, words["sources"], words["sets"], tuple(words["rated_sets"]), words["tables"])
