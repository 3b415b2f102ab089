"""Anyone's own rated videos and photographs: a CSV, TSV, JSONL or Parquet file beside them, columns `video` and `mos`
or `score`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.label_files import (
    LabelError,
    column,
    composed,
    is_blank,
    place,
    ratings_of,
    read_table,
    without_video_suffix,
)
from dataset_builders.rated_set_builder import FOLDS, RatedSetBuilder, RatedSetConfig, Rating
from processing.questions import MAX_SCORE, SEPARATOR, AnswerError, Question
from processing.video_names import is_picture, is_video

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_GROUPS = ("content", "family", "kind")
_OPTIONAL_COLUMNS = ("split", "fold", "scale", *_GROUPS)
_SPLIT_NAMES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}


@dataclass
class RatedVideosConfig(RatedSetConfig):
    """
    Args:
        data_files: the label files; without it, `data_dir` holds one, or one whose name is `ratings`.
        scale: the ratings that become the scores 0 and 100, such as (1, 5); a column `scale` ("1-5") goes before it.
            Without either they are 0 and 100, and ratings that all lie near 0 are refused.
        scales: the same of further numbers, by the question's name; without an entry it is the scale of the ratings.
    """

    scale: tuple[float, float] | None = None
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class RatedVideos(RatedSetBuilder):
    """Columns: `video` (path relative to the label file, or absolute), `mos` or `score`, and, if there are such,
    `split` (train, validation or test...; else "train", or the key in `data_files`), `fold` (0 to 4), `scale`,
    `content` (what the video is a copy of), `family` and `kind` (of distortion), and one of the name of each further
    question, with its answers: words (of several right ones `noise; compression`), or a number on a scale of its own.
    Others are not read. The id is the path without its suffix. No folds are drawn: only the owner knows which of the
    videos show the same content.
    """

    BUILDER_CONFIG_CLASS = RatedVideosConfig
    BUILDER_CONFIGS: ClassVar = [RatedVideosConfig(name=name) for name in ("score", "level", "score_and_level")]

    TITLE = "Rated videos"
    SOURCE = ""
    LICENCE = "unknown"
    GROUPS = _GROUPS

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
        there = {composed(f"{root}/{file}"): f"{root}/{file}" for file in files}
        stated = {rating.id: str(rating.file) for rating in rated}
        named = {name: there.get(composed(file), file) for name, file in stated.items()}
        paths = {name: file for name, file in named.items() if os.path.isfile(file)}
        used = set(paths.values())
        # A folder of videos may hold plots, and one of photographs a clip that shows them.
        kinds = [kind for kind in (is_video, is_picture) if any(map(kind, stated.values()))]
        left = [file for file in files if f"{root}/{file}" not in used]
        return paths, [file for file in left if any(kind(file) for kind in kinds)]

    def folds(self, rated: list[Rating]) -> list[int | None]:
        return [rating.fold for rating in rated]

    def _read(self, path: Path, split: str) -> Iterator[Rating]:
        table = read_table(path)
        names = {str(name).strip().lower() for name in table.columns}
        further = {
            question: ratings_of(table, path, question.name)
            if question.kind == "number"
            else column(table, path, question.name).tolist()
            for question in self.config.further
            if question.name in names
        }
        columns = (
            column(table, path, "video"),
            ratings_of(table, path, "score" if "score" in names and "mos" not in names else "mos"),
            *(column(table, path, name) if name in names else [None] * len(table) for name in _OPTIONAL_COLUMNS),
        )
        for row, (number, video, mos, own_split, fold, scale, *groups) in enumerate(
            zip(table.index, *columns, strict=True)
        ):
            where = place(path, number)
            if is_blank(video):
                raise LabelError(f"{where} names no video.")
            video = str(video).strip().replace("\\", "/")
            stated = self.config.scale if is_blank(scale) else scale
            labels = {question: cells[row] for question, cells in further.items() if not is_blank(cells[row])}
            content, family, kind = (None if is_blank(cell) else str(cell).strip() for cell in groups)
            yield Rating(
                id=composed(without_video_suffix(os.path.normpath(video))),
                mos=mos,
                split=split if is_blank(own_split) else _split(str(own_split), where),
                fold=_fold(fold, where),
                scale=None if stated is None else _scale(stated, where),
                file=os.path.normpath(path.parent / video),
                place=where,
                labels={question.name: self._label(question, cell, stated, where) for question, cell in labels.items()},
                content=content,
                family=family,
                kind=kind,
            )

    def _label(self, question: Question, cell: Any, scale: Any, where: str) -> float | str:
        """What a cell answers: a number from 0 to 100, or words.

        Raises:
            LabelError: the cell is off its scale, or holds a word that is no answer.
        """
        if question.kind != "number":
            try:
                return SEPARATOR.join(question.words(str(cell)))
            except AnswerError as error:
                raise LabelError(f"{where}: {error}") from error
        low, high = _scale(self.config.scales.get(question.name, scale or self.SCALE), where)
        score = MAX_SCORE * (cell - low) / (high - low)
        if not 0 <= score <= MAX_SCORE:
            raise LabelError(
                f"{where}: {cell:g} in column {question.name} is off the scale {low:g} to {high:g}: state its own, "
                f"such as scales={{{question.name}: [1, 5]}}."
            )
        return score

    def _scale_remedy(self, rated: Sequence[Rating]) -> str:
        lowest, highest = min(rating.mos for rating in rated), max(rating.mos for rating in rated)
        ends = ((0, 1), (1, 5), (0, 5), (1, 10), (0, 10), (0, 100), (-1, 1), (0, 1000))
        low, high = next((pair for pair in ends if pair[0] <= lowest and highest <= pair[1]), (lowest, highest))
        return (
            f"state their scale. If it goes from {low:g} to {high:g}, add --scale {low:g} {high:g} to the command (to "
            f"`lmmvqa train` 'data_options={{scale: [{low:g}, {high:g}]}}', in a file of settings "
            f"`data_options: {{scale: [{low:g}, {high:g}]}}`, in Python scale=({low:g}, {high:g})), or a column scale "
            f"that holds {low:g}-{high:g}."
        )


def _split(cell: str, where: str) -> str:
    """The split that a cell means.

    Raises:
        LabelError: it is none that a data set may have, or one that no command would know what to do with.
    """
    name = cell.strip().lower()
    name = _SPLIT_NAMES.get(name, name)
    if name in ("train", "validation") or re.fullmatch(r"test(_\w+)?", name):
        return name
    raise LabelError(
        f"{where}: {cell.strip()!r} in column split is not one of train, validation and test (or test_ with a name)."
    )


def _fold(cell: Any, where: str) -> int | None:
    if is_blank(cell):
        return None
    try:
        fold = float(cell)
    except ValueError:
        fold = -1.0
    if fold not in range(FOLDS):
        raise LabelError(f"{where}: {cell!r} in column fold is not one of 0 to {FOLDS - 1}.")
    return int(fold)


def _scale(cell: Any, where: str) -> tuple[float, float]:
    if isinstance(cell, str):
        written = re.fullmatch(r"\s*(-?[\d.]+)\s*[-,:]\s*(-?[\d.]+)\s*", cell)
        cell = written.groups() if written else cell
    try:
        low, high = map(float, cell)
    except (TypeError, ValueError):
        low = high = 0.0
    if low >= high:
        raise LabelError(f"{where}: scale {cell!r} is not a lower and a higher rating, as 1-5 or (1, 5).")
    return low, high
