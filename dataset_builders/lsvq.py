"""LSVQ: `labels_train_test.csv` and `labels_test_1080p.csv` of 38 and 37 columns, videos in `ia-batchN/` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from dataset_builders.label_files import (
    LabelError,
    column,
    find_label_file,
    names_and_ratings,
    read_table,
    without_video_suffix,
)
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating

VALIDATION_SHARE = 0.1
_IS_TEST = {"true": True, "1": True, "false": False, "0": False}


class Lsvq(RatedSetBuilder):
    """Splits: train, validation (10 % of the rows that are not test, drawn with the option `seed`), test, test_1080p.

    A few names end in `.mp4` themselves; their files end in `.mp4.mp4`.
    The label file is the truth: its `is_valid` leaves nothing out, since published results use those rows too.
    """

    TITLE = "LSVQ, a large-scale social video quality set"
    SOURCE = "Ying et al., Patch-VQ: 'Patching Up' the Video Quality Problem, CVPR 2021"
    HAS_FOLDS = False
    PUBLISHED_ROWS: ClassVar = {
        "train and validation": (28056, 28013),
        "test": (7186, 7220),
        "test_1080p": (3573, 3561),
    }

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        path = find_label_file(root, files, "labels_train_test.csv")
        table = read_table(path)
        marks = column(table, path, "is_test").str.strip().str.lower()
        unknown = set(marks) - set(_IS_TEST)
        if unknown:
            raise LabelError(f"{path}: {unknown.pop()!r} in column is_test is neither True nor False.")
        is_test = np.array([_IS_TEST[mark] for mark in marks], dtype=bool)
        train = np.flatnonzero(~is_test)
        splits = np.where(is_test, "test", "train").astype(object)
        drawn = np.random.RandomState(self.config.seed).permutation(len(train))[: round(VALIDATION_SHARE * len(train))]
        splits[train[drawn]] = "validation"
        rows = names_and_ratings(table, path, "name")
        ratings = [Rating(name, mos, split) for (name, mos), split in zip(rows, splits, strict=True)]

        path = find_label_file(root, files, "labels_test_1080p.csv")
        rows = names_and_ratings(read_table(path), path, "name")
        return ratings + [Rating(name, mos, "test_1080p") for name, mos in rows]

    def video_id(self, file: str) -> str | None:
        return "/".join(without_video_suffix(file).split("/")[-2:])

    def author_thresholds(self, scores: np.ndarray) -> tuple[float, float]:
        return 55.5, 65.0
