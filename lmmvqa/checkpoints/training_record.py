"""What a checkpoint learned from: a file beside its weights, which evaluation reads so that no figure of seen videos is
called unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from modeling_lmmvqa.saved_folders import TRAINING_RECORD
from processing.errors import LmmVqaError


class RecordError(LmmVqaError, ValueError):
    """A file that should be a training record is none. The message names it and the remedy."""


@dataclass(frozen=True)
class SeenVideos:
    """Videos of one split that a checkpoint has seen.

    Args:
        dataset: the name of the set, such as "konvid_1k".
        split: "train", or "validation" for those that chose the best checkpoint.
        videos: SHA-256 of each video's bytes; empty where they are not known.
    """

    dataset: str
    split: str
    videos: frozenset[str]


@dataclass(frozen=True)
class TrainingRecord:
    """All that a checkpoint, and what it started from, has seen; oldest first.

    The file holds {"learned_from": [{"set", "split", "videos": [SHA-256, ...]}, ...]}: no names of files, because they
    may say what only their owner should know.
    """

    parts: tuple[SeenVideos, ...] = ()

    @property
    def videos(self) -> frozenset[str]:
        """SHA-256 of every video that was seen."""
        return frozenset().union(*(part.videos for part in self.parts))

    @property
    def sets(self) -> dict[str, int]:
        """How many videos of each set were seen, by the set's name."""
        names = dict.fromkeys(part.dataset for part in self.parts)
        seen = {name: [part.videos for part in self.parts if part.dataset == name] for name in names}
        return {name: len(frozenset().union(*videos)) for name, videos in seen.items()}

    def followed_by(self, later: TrainingRecord) -> TrainingRecord:
        """This record and that of a training that started from its checkpoint."""
        return TrainingRecord(tuple(dict.fromkeys((*self.parts, *later.parts))))

    def write(self, folder: Path) -> None:
        """Put the record beside the weights."""
        rows = [{"set": part.dataset, "split": part.split, "videos": sorted(part.videos)} for part in self.parts]
        (folder / TRAINING_RECORD).write_text(json.dumps({"learned_from": rows}, indent=1) + "\n", encoding="utf-8")


def read_record(checkpoint: str) -> TrainingRecord | None:
    """The record of a folder or a Hub id; None where it has none: then nobody knows what it has seen.

    Raises:
        RecordError: the file is no training record.
    """
    file = cached_file(
        checkpoint,
        TRAINING_RECORD,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if file is None:
        return None
    try:
        rows = json.loads(Path(file).read_text(encoding="utf-8"))["learned_from"]
        return TrainingRecord(
            tuple(SeenVideos(str(row["set"]), str(row["split"]), frozenset(map(str, row["videos"]))) for row in rows)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file} is no training record ({error}): fetch the checkpoint again.") from error


def video_digests(videos: Iterable[Any], workers: int = 1) -> list[str]:
    """SHA-256 of what each video holds; "unreadable/PATH" for a file that can't be read.

    Args:
        videos: paths, or mappings with "path" and "bytes" as rows of a data set have them.
        workers: files hashed at once, each once.
    """
    digests: list[str | Future[str]] = []
    with ThreadPoolExecutor(workers) as pool:
        files: dict[str, Future[str]] = {}
        for video in videos:
            path, content = (video.get("path"), video.get("bytes")) if isinstance(video, Mapping) else (video, None)
            if content is not None:
                digests.append(hashlib.sha256(content).hexdigest())
            else:
                path = str(path or "")
                if path not in files:
                    files[path] = pool.submit(_file_sha256, path)
                digests.append(files[path])
    return [digest if isinstance(digest, str) else digest.result() for digest in digests]


def _file_sha256(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return f"unreadable/{path}"
