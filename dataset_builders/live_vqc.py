"""LIVE-VQC: `data.mat` with `video_list` and `mos`, videos in `Video/`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dataset_builders.label_files import find_label_file, names_and_ratings, read_table, without_video_suffix
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating


class LiveVqc(RatedSetBuilder):
    """585 videos rated 0 to 100."""

    TITLE = "LIVE-VQC, the LIVE video quality challenge database"
    SOURCE = "Sinno and Bovik, Large-Scale Study of Perceptual Video Quality, IEEE TIP 2019"
    PUBLISHED_ROWS: ClassVar = {"train": (585,)}

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        path = find_label_file(root, files, "data.mat", "labels.txt")
        if path.suffix == ".txt":
            return self.benchmark_ratings(root, files, {"labels.txt": "train"})
        rows = names_and_ratings(read_table(path), path, "video_list")
        return [Rating(without_video_suffix(name), mos) for name, mos in rows]
