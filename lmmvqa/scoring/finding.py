"""Which videos are meant: files, folders, glob patterns and URLs as one list."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence

from lmmvqa.scoring.fetching import find_remote_videos, is_remote
from processing.video_names import is_picture, is_video


def find_videos(paths: Sequence[str]) -> list[str]:
    """Files, folders (all videos and pictures in them, at any depth), glob patterns and URLs of these as one list of
    files, in the order in which a person counts. A path that leads to nothing, or a folder that can't be listed, stays
    in the list, so that it gets its error. Links to folders are followed, each folder once."""
    found: list[str] = []
    for path in paths:
        if is_remote(path):
            found += sorted(find_remote_videos(path), key=_natural)
        elif os.path.isdir(path):
            found += sorted(_videos_in(path), key=_natural) or [path]
        elif os.path.lexists(path) or not glob.has_magic(path):
            found.append(path)
        else:
            found += sorted(filter(os.path.isfile, glob.iglob(path, recursive=True)), key=_natural) or [path]
    return list(dict.fromkeys(found))


def _videos_in(folder: str) -> Iterator[str]:
    seen = {_identity(folder)}
    closed: list[str] = []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=lambda error: closed.append(error.filename)):
        # A link may lead back to a folder above it.
        new: dict[tuple[int, int], str] = {}
        for name in folders:
            try:
                new[_identity(os.path.join(place, name))] = name
            except OSError:  # a folder that can be listed but not entered
                closed.append(os.path.join(place, name))
        folders[:] = [name for identity, name in new.items() if identity not in seen]
        seen.update(new)
        yield from (os.path.join(place, name) for name in files if is_video(name) or is_picture(name))
    yield from closed


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _natural(path: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path)]
