"""What the commands of evaluation and training leave in folders, read for a report."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmmvqa.evaluation.protocols import METRICS, READ_OUT, read_run
from lmmvqa.evaluation.vcgbench import SCORES

logger = logging.getLogger(__name__)

ABLATIONS, TRAINING = "ablations.json", "trainer_state.json"


@dataclass
class Run:
    """The output of one `lmmvqa evaluate`."""

    folder: Path
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    read_out: dict[str, Any]

    @property
    def name(self) -> str:
        return self.settings["name"]

    @property
    def whole(self) -> list[dict[str, Any]]:
        """Figures of whole splits: of the folds, their mean."""
        return [row for row in self.metrics if row["part"] is None and not row["split"].startswith("fold ")]

    def scored(self, figures: dict[str, Any]) -> list[dict[str, Any]]:
        """The predictions that a row of figures is of."""
        by_split = self.settings["protocol"] in ("in-sample", "levels")
        return [
            row
            for row in self.rows
            if row["set"] == figures["set"]
            and row.get("predicted") is not None
            and (not by_split or row["split"] == figures["split"])
        ]


@dataclass
class Ablations:
    """The output of one `lmmvqa ablate`."""

    folder: Path
    rows: list[dict[str, Any]]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Training:
    """The output of one `lmmvqa train`."""

    folder: Path


@dataclass
class Benchmark:
    """The output of one `lmmvqa vcgbench`."""

    scores: dict[str, Any]


Output = Run | Ablations | Training | Benchmark


def read_folder(folder: Path) -> Output:
    """
    Raises:
        FileNotFoundError: the folder is the output of none of our commands.
    """
    if (folder / TRAINING).is_file():
        return Training(folder)
    if (folder / SCORES).is_file():
        return Benchmark(_read(folder / SCORES))
    if (folder / ABLATIONS).is_file():
        rows = _read(folder / ABLATIONS)
        return Ablations(folder, rows, {row["run"]: _read(folder / row["run"] / "run.json") for row in rows})
    settings, rows = read_run(folder)
    if not (folder / METRICS).is_file():
        raise FileNotFoundError(
            f"{folder / METRICS} does not exist: `lmmvqa evaluate` was stopped early, run it again."
        )
    read_out = folder / READ_OUT
    return Run(folder, settings, rows, _read(folder / METRICS), _read(read_out) if read_out.is_file() else {})


def read_finished(folders: Sequence[Path]) -> list[Output]:
    """Outputs that are finished: `runs/*` may hold runs that still go on, and features.

    Raises:
        FileNotFoundError: none is.
    """
    read, left_out = [], []
    for folder in folders:
        try:
            read.append(read_folder(folder))
        except FileNotFoundError as error:
            left_out.append(error)
    if not read:
        raise FileNotFoundError("\n".join(map(str, left_out)))
    for reason in left_out:
        logger.warning("Left out: %s", reason)
    return read


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
