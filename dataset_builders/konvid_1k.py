"""KoNViD-1k: `KoNViD_1k_mos.csv` or `KoNViD_1k_attributes.csv`, videos named by their Flickr id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from dataset_builders.label_files import find_label_file, names_and_ratings, read_table
from dataset_builders.rated_set_builder import RatedSetBuilder, Rating


class Konvid1k(RatedSetBuilder):
    """1,200 videos rated 1 to 5. Older releases name them `<id>_original_centercrop_960x540_8s.mp4`."""

    TITLE = "KoNViD-1k, the Konstanz natural video database"
    SOURCE = "Hosu et al., The Konstanz natural video database (KoNViD-1k), QoMEX 2017"
    SCALE = (0.0, 5.0)
    PUBLISHED_ROWS: ClassVar = {"train": (1200,)}

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        # Never *_subjective.csv: it holds the addresses of the people who rated.
        path = find_label_file(root, files, "KoNViD_1k_mos.csv", "KoNViD_1k_attributes.csv", "labels.txt")
        if path.suffix == ".txt":
            return self.benchmark_ratings(root, files, {"labels.txt": "train"})
        return [Rating(*row) for row in names_and_ratings(read_table(path), path, "flickr_id")]

    def video_id(self, file: str) -> str | None:
        leading = re.match(r"(?:.*/)?(\d+)[._]", file)
        return leading.group(1) if leading else None
