"""FineVD: a table of ratings for each dimension, and lists of the videos of each split."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dataset_builders.label_files import (
    LabelError,
    find_label_file,
    names_and_ratings,
    read_table,
    without_video_suffix,
)
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating
from processing.questions import MAX_SCORE

_OVERALL = ("finevd_metadata.csv", "finevd_mos_overall_metadata.csv")
# The tables spell some dimensions otherwise.
_TABLES = {
    "colour": "finevd_mos_color_metadata.csv",
    "noise": "finevd_mos_noise_metadata.csv",
    "artefact": "finevd_mos_artifact_metadata.csv",
    "blur": "finevd_mos_blur_metadata.csv",
    "temporal": "finevd_mos_temporal_metadata.csv",
}
_SPLITS = {"train": "abcd_train.jsonl", "test": "abcd_test.jsonl"}


class FineVd(RatedSetBuilder):
    """5,074 videos, rated overall and for colour, noise, artefact, blur and temporal quality.

    Columns of each table: `vid` and `mos`. Ratings are means of z-scores, put on 0 to 100; the few beyond the ends are
    taken as the ends. Videos without a list of splits beside the tables are all of the split train.
    """

    TITLE = "FineVD"
    SOURCE = "Duan et al., FineVQ: Fine-Grained User Generated Content Video Quality Assessment, CVPR 2025"
    HAS_FOLDS = False
    PUBLISHED_ROWS: ClassVar = {"train": (4058,), "test": (1016,)}

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        path = find_label_file(root, files, *_OVERALL)
        labels: dict[str, dict[str, float | str]] = {}
        for dimension, name in _TABLES.items():
            try:
                table = find_label_file(root, files, name)
            # Without its table, no video is asked about the dimension.
            except LabelError:
                continue
            for video, rating in names_and_ratings(read_table(table), table, "vid"):
                labels.setdefault(video, {})[dimension] = _on_scale(rating)
        splits = self._splits(root, files)
        return [
            Rating(video, _on_scale(mos), splits.get(video, "train"), labels=labels.get(video))
            for video, mos in names_and_ratings(read_table(path), path, "vid")
        ]

    def _splits(self, root: Path, files: list[str]) -> dict[str, str]:
        """The split of each video that the owners' lists of questions name."""
        found: dict[str, str] = {}
        for split, name in _SPLITS.items():
            try:
                path = find_label_file(root, files, name)
            except LabelError:
                continue
            table = read_table(path)
            if "video" not in table:
                raise LabelError(f'{path} names no videos: each line must have a "video". Download it again.')
            # A list that was saved by a spreadsheet has a byte order mark within its first name.
            found |= {without_video_suffix(str(video).lstrip("\ufeff")): split for video in table["video"]}
        return found


def _on_scale(rating: float) -> float:
    return rating if rating != rating else min(float(MAX_SCORE), max(0.0, rating))
