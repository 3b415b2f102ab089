"""YouTube-UGC: sheet `MOS` of the xlsx file, videos of the H.264 release or the originals."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dataset_builders.label_files import find_label_file, names_and_ratings, read_table
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating


class YoutubeUgc(RatedSetBuilder):
    """Videos rated 1 to 5. The set grew over the years: the rows are those of the xlsx file at hand."""

    TITLE = "YouTube-UGC"
    SOURCE = "Wang et al., YouTube UGC Dataset for Video Compression Research, MMSP 2019"
    LICENCE = "cc-by-4.0"
    SCALE = (0.0, 5.0)
    PUBLISHED_ROWS: ClassVar = {"train": (1380, 1147, 1142, 1036)}

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        path = find_label_file(root, files, "*MOS_for_YouTube_UGC_dataset.xlsx", "labels.txt")
        if path.suffix == ".txt":
            return self.benchmark_ratings(root, files, {"labels.txt": "train"})
        return [Rating(*row) for row in names_and_ratings(read_table(path, sheet="MOS"), path, "vid", "MOS full")]

    def video_id(self, file: str) -> str | None:
        # "Animation_1080P-01b3_crf_10_ss_00_t_20.0.mp4" in the H.264 release.
        name = super().video_id(file)
        return name and name.partition("_crf_")[0]
