"""DIVIDE-MaxWell: `train_labels.txt` and `val_labels.txt`, videos in `videos/`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dataset_builders.label_files import (
    LabelError,
    find_label_file,
    read_benchmark_rows,
    without_video_suffix,
)
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating
from processing.questions import MAX_SCORE

_DIMENSIONS = ("aesthetic", "technical")
# Its owners publish figures on their validation set: it is what others test on.
_LABEL_FILES = {"train": "train_labels.txt", "test": "val_labels.txt"}


class DivideMaxwell(RatedSetBuilder):
    """4,543 videos rated 1 to 5 by trained people: aesthetic, technical and overall quality, in this order."""

    TITLE = "DIVIDE-MaxWell"
    SOURCE = (
        "Wu et al., Exploring Video Quality Assessment on User Generated Contents from Aesthetic and Technical "
        "Perspectives, ICCV 2023"
    )
    SCALE = (1.0, 5.0)
    HAS_FOLDS = False
    PUBLISHED_ROWS: ClassVar = {"train": (3634,), "test": (909,)}

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        return [
            Rating(
                id=without_video_suffix(name),
                mos=overall,
                split=split,
                place=where,
                labels={
                    dimension: self._dimension(cell, dimension, where)
                    for dimension, cell in zip(_DIMENSIONS, cells, strict=True)
                },
            )
            for split, label_file in _LABEL_FILES.items()
            for path in [find_label_file(root, files, label_file)]
            for name, cells, overall, where in read_benchmark_rows(path)
        ]

    def _dimension(self, cell: str, dimension: str, where: str) -> float:
        low, high = self.SCALE
        try:
            score = MAX_SCORE * (float(cell) - low) / (high - low)
        except ValueError:
            score = -1.0
        if not 0 <= score <= MAX_SCORE:
            raise LabelError(f"{where}: {cell!r} is no {dimension} rating from {low:g} to {high:g}.")
        return score
