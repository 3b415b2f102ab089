"""Predictions of any method, from a file: matched with rated videos by their names, whether or not the videos are
there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dataset_builders.label_files import column, composed, is_blank, place, read_table, without_video_suffix
from lmmvqa.evaluation.rated_sets import RatedRow
from processing.errors import LmmVqaError
from processing.quality_prompts import LEVELS

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
# Ours, those of the results of `lmmvqa score`, and what others call them.
_NAMES, _PREDICTIONS = ("video", "path", "name", "file", "id"), ("prediction", "predicted", "score")


class PredictionsError(LmmVqaError, ValueError):
    """A file is no predictions file, or its names can't be told apart. The message says where and what is expected."""


class PredictionsFile:
    """A table with the columns `video` and `prediction`, perhaps `level`; a row without a prediction counts as failed.

    A name is the video's id in the set, its path, the end of its path, or its path in the set's release; each with or
    without the suffix.

    Raises:
        LabelError, PredictionsError: the file can't be read, or a prediction is no number.
    """

    timed = False

    def __init__(self, path: Path):
        self.path = path
        table = read_table(path)
        names, values = column(table, path, *_NAMES), column(table, path, *_PREDICTIONS)
        known = {str(name).strip().lower(): name for name in table.columns}
        levels = table[known["level"]] if "level" in known else [None] * len(table)
        self.rows = [
            (_plain(str(name)), _prediction(value, level, place(path, number)), place(path, number))
            for number, name, value, level in zip(table.index, names, values, levels, strict=True)
        ]

    def predict(self, rows: Sequence[RatedRow]) -> Iterator[dict[str, Any]]:
        """One prediction a row, in their order."""
        found = self.match(rows)
        for row in rows:
            yield found.get(row.key, {"error": f"{row.id}: no row in {self.path}."})

    def match(self, rows: Sequence[RatedRow]) -> dict[str, dict[str, Any]]:
        """The prediction of each row of one set that has one, by its key.

        Raises:
            PredictionsError: a name means several videos, or a video has several predictions.
        """
        names = _Names(rows)
        found: dict[str, tuple[dict[str, Any], str]] = {}
        for name, prediction, where in self.rows:
            meant = names.meant(name)
            if len(meant) > 1:
                raise PredictionsError(
                    f"{where}: {name!r} may be {' or '.join(sorted(meant)[:3])}: write more of the video's path."
                )
            for key in meant:
                if key in found:
                    raise PredictionsError(
                        f"{found[key][1]} and {where} are both of the video {key}: keep one of them."
                    )
                found[key] = prediction, where
        return {key: prediction for key, (prediction, _) in found.items()}

    def mismatch(self, rows: Sequence[RatedRow]) -> str | None:
        """What is wrong where no name means any video of the set.

        Raises:
            PredictionsError: as `match` does.
        """
        if self.match(rows):
            return None
        return (
            f"No row of {self.path} names a video of {rows[0].set_name}. It has "
            f"{_some([name for name, _, _ in self.rows])}; the videos are {_some([row.id for row in rows])}. "
            "Write ids, paths or file names of the set's videos."
        )


class _Names:
    """What the names in a file mean: keys of rated videos."""

    def __init__(self, rows: Sequence[RatedRow]):
        self.id_of = rows[0].id_of if rows else None
        # Every end of every id and path, so that a name may be as short as it likes while it means one video.
        self.ends: dict[str, set[str]] = {}
        self.ids = {composed(row.id): row.key for row in rows}
        for row in rows:
            path = _plain(row.video["path"] or "")
            for known in {composed(row.id), path, without_video_suffix(path)} - {""}:
                for end in _ends(known):
                    self.ends.setdefault(end, set()).add(row.key)

    def meant(self, name: str) -> set[str]:
        if self.id_of is not None and (official := self.ids.get(self.id_of(name) or "")):
            return {official}
        for form in (name, without_video_suffix(name)):
            if form in self.ends:
                return self.ends[form]
        # The path of another machine, which ends with the video's id.
        for end in _ends(without_video_suffix(name)):
            if end in self.ids:
                return {self.ids[end]}
        return set()


def _ends(path: str) -> Iterator[str]:
    """`a/b/c`, `b/c`, `c`."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _plain(name: str) -> str:
    return composed(os.path.normpath(name.strip().replace("\\", "/"))) if name.strip() else ""


def _prediction(value: Any, level: Any, where: str) -> dict[str, Any]:
    if is_blank(value):
        return {"error": f"{where} holds no prediction."}
    try:
        prediction: dict[str, Any] = {"predicted": float(value)}
    except ValueError:
        raise PredictionsError(f"{where}: the prediction {value!r} is not a number.") from None
    if not is_blank(level):
        prediction["predicted_level"] = str(level).strip().lower()
        if prediction["predicted_level"] not in LEVELS:
            raise PredictionsError(f"{where}: the level {level!r} is none of {', '.join(LEVELS)}.")
    return prediction


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
