"""BIQ2021: photographs in `Images/`, and a label file for each of the official splits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dataset_builders.label_files import find_label_file, names_and_ratings, read_table, without_video_suffix
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating
from processing.video_names import is_picture

_LABEL_FILES = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


class Biq2021(RatedSetBuilder):
    """12,000 photographs rated by 30 people in a laboratory; ratings are scaled to 0 to 1."""

    TITLE = "BIQ2021, a blind image quality assessment database"
    SOURCE = (
        "Ahmed and Asif, BIQ2021: a large-scale blind image quality assessment database, Journal of Electronic Imaging "
        "2022"
    )
    SCALE = (0.0, 1.0)
    HAS_FOLDS = False
    PUBLISHED_ROWS: ClassVar = {"train": (10000,), "test": (2000,)}
    is_rated = staticmethod(is_picture)

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        return [
            Rating(without_video_suffix(name), mos, split)
            for split, label_file in _LABEL_FILES.items()
            for path in [find_label_file(root, files, label_file)]
            for name, mos in names_and_ratings(read_table(path), path, "Image Name")
        ]
