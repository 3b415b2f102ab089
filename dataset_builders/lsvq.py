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
    place,
    read_table,
    without_video_suffix,
)
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating

VALIDATION_SHARE = 0.1
_BENCHMARK_FILES = {
    "train_labels.txt": "train",
    "test_labels.txt": "test",
    "test_1080p_labels.txt": "test_1080p",
}
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
        path = find_label_file(root, files, "labels_train_test.csv", *_BENCHMARK_FILES)
        if path.suffix == ".txt":
            return self._with_validation(self.benchmark_ratings(root, files, _BENCHMARK_FILES))
        table = read_table(path)
        marks = column(table, path, "is_test").str.strip().str.lower()
        if (unknown := ~marks.isin(list(_IS_TEST))).any():
            number = unknown.idxmax()
            raise LabelError(f"{place(path, number)}: {marks[number]!r} in column is_test is neither True nor False.")
        rows = zip(names_and_ratings(table, path, "name"), marks, strict=True)
        ratings = [Rating(name, mos, "test" if _IS_TEST[mark] else "train") for (name, mos), mark in rows]

        path = find_label_file(root, files, "labels_test_1080p.csv")
        large = names_and_ratings(read_table(path), path, "name")
        return self._with_validation(ratings) + [Rating(name, mos, "test_1080p") for name, mos in large]

    def _with_validation(self, ratings: list[Rating]) -> list[Rating]:
        train = [number for number, rating in enumerate(ratings) if rating.split == "train"]
        order = np.random.RandomState(self.config.seed).permutation(len(train))
        drawn = {train[number] for number in order[: round(VALIDATION_SHARE * len(train))]}
        return [
            rating._replace(split="validation") if number in drawn else rating for number, rating in enumerate(ratings)
        ]

    def video_id(self, file: str) -> str | None:
        return "/".join(without_video_suffix(file).split("/")[-2:])

    def author_thresholds(self, scores: np.ndarray) -> tuple[float, float]:
        return 55.5, 65.0
