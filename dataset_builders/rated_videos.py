"""Anyone's own rated videos: a CSV, TSV, JSONL or Parquet file beside them, columns `video` and `mos` or `score`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from dataset_builders.label_files import LabelError, column, ratings_of, read_table, without_video_suffix
from dataset_builders.rated_set_builder import FOLDS, RatedSetBuilder, RatedSetConfig, Rating
from processing.video_names import is_video

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_OPTIONAL_COLUMNS = ("split", "fold", "scale")


@dataclass
class RatedVideosConfig(RatedSetConfig):
    """
    Args:
        data_files: the label files; without it, `data_dir` holds one, or one whose name is `ratings`.
        scale: the ratings that become the scores 0 and 100, such as (1, 5); a column `scale` ("1-5") goes before it.
    """

    scale: tuple[float, float] = (0.0, 100.0)


class RatedVideos(RatedSetBuilder):
    """Columns: `video` (path relative to the label file, or absolute), `mos` or `score`, and, if there are such,
    `split` (else "train", or the key in `data_files`), `fold` (0 to 4) and `scale`; others are not read. The id is the
    path without its suffix. No folds are drawn: only the owner knows which of the videos show the same content.
    """

    BUILDER_CONFIG_CLASS = RatedVideosConfig
    BUILDER_CONFIGS: ClassVar = [RatedVideosConfig(name=name) for name in ("score", "level", "score_and_level")]

    TITLE = "Rated videos"
    SOURCE = ""
    LICENCE = "unknown"

    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        if self.config.data_files:
            return [
                rating
                for split, paths in self.config.data_files.items()
                for path in paths
                for rating in self._read(Path(path), str(split))
            ]
        found = [root / file for file in files if "/" not in file and Path(file).suffix.lower() in _SUFFIXES]
        named = [path for path in found if path.stem.lower() == "ratings"]
        if len(named or found) != 1:
            raise LabelError(
                f"{root} must hold one label file that ends in {', '.join(_SUFFIXES)}, or one of them named ratings; "
                f"it holds {', '.join(path.name for path in found) or 'none'}. Name the label file as data_files."
            )
        return list(self._read((named or found)[0], "train"))

    def match(self, root: Path, rated: list[Rating], files: list[str]) -> tuple[dict[str, str], list[str]]:
        paths = {rating.id: rating.file for rating in rated if os.path.isfile(rating.file)}
        used = set(paths.values())
        return paths, [file for file in files if is_video(file) and f"{root}/{file}" not in used]

    def folds(self, rated: list[Rating]) -> list[int | None]:
        return [rating.fold for rating in rated]

    def _read(self, path: Path, split: str) -> Iterator[Rating]:
        table = read_table(path)
        names = {str(name).strip().lower() for name in table.columns}
        columns = (
            column(table, path, "video"),
            ratings_of(table, path, "score" if "score" in names and "mos" not in names else "mos"),
            *(column(table, path, name) if name in names else [None] * len(table) for name in _OPTIONAL_COLUMNS),
        )
        for row, (video, mos, own_split, fold, scale) in enumerate(zip(*columns, strict=True), start=1):
            if pd.isna(video) or not str(video).strip():
                raise LabelError(f"{path}: row {row} names no video.")
            video = str(video).strip().replace("\\", "/")
            yield Rating(
                id=without_video_suffix(os.path.normpath(video)),
                mos=mos,
                split=split if _is_blank(own_split) else str(own_split).strip(),
                fold=_fold(fold, path, row),
                scale=_scale(self.config.scale if _is_blank(scale) else scale, path, row),
                file=os.path.normpath(path.parent / video),
            )


def _is_blank(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and cell != cell)


def _fold(cell: Any, path: Path, row: int) -> int | None:
    if _is_blank(cell):
        return None
    try:
        fold = float(cell)
    except ValueError:
        fold = -1.0
    if fold not in range(FOLDS):
        raise LabelError(f"{path}: {cell!r} in row {row} of column fold is not one of 0 to {FOLDS - 1}.")
    return int(fold)


def _scale(cell: Any, path: Path, row: int) -> tuple[float, float]:
    if isinstance(cell, str):
        written = re.fullmatch(r"\s*(-?[\d.]+)\s*[-,:]\s*(-?[\d.]+)\s*", cell)
        cell = written.groups() if written else cell
    try:
        low, high = map(float, cell)
    except (TypeError, ValueError):
        low = high = 0.0
    if low >= high:
        raise LabelError(f"{path}: scale {cell!r} (row {row}) is not a lower and a higher rating, as 1-5 or (1, 5).")
    return low, high
