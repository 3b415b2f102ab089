"""LIVE-YT-Gaming: `LIVEYTGaming.mat` with `video_list` and `MOS`, or a CSV file with `name` and `mos`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dataset_builders.label_files import find_label_file, names_and_ratings, read_table, without_video_suffix
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating


class LiveYtGaming(RatedSetBuilder):
    """600 videos of 59 games, rated 0 to 100. Videos may lie anywhere below the folder: the archive's layout varies."""

    TITLE = "LIVE-YT-Gaming"
    SOURCE = "Yu et al., Subjective and Objective Analysis of Streamed Gaming Videos, IEEE Transactions on Games 2023"
    PUBLISHED_ROWS: ClassVar = {"train": (600,)}

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        path = find_label_file(root, files, "LIVE*YT*Gaming*.mat", "LIVE*YT*Gaming*.csv", "*.mat", "*.csv")
        rows = names_and_ratings(read_table(path), path, ("video_list", "name"))
        return [Rating(without_video_suffix(name), mos) for name, mos in rows]
