"""Files that one process at a time has open, told from those that killed processes left."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows: there, two runs at once are the user's to avoid
    fcntl = None


def open_locked(path: Path) -> tuple[int, bool]:
    """A descriptor for reading and appending that no other process has in this way, and whether the file is new.

    Who holds the lock may remove or replace the file, so a lock counts only if the file still has its name. It ends
    with the process, also with one that is killed.

    Raises:
        BlockingIOError: another process has it.
        OSError: it can't be opened.
    """
    # Windows would translate the ends of lines.
    flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
    while True:
        try:
            file, new = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                file, new = os.open(path, flags), False
            except FileNotFoundError:
                continue
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise
        except OSError:  # a file system without locks
            pass
        if is_open_as(file, path):
            return file, new
        os.close(file)


def is_open_as(file: int, path: Path) -> bool:
    """Whether a path still leads to the file of a descriptor."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def left_behind(paths: Iterable[Path]) -> list[Path]:
    """Those of the files of `open_locked` that belong to no living process; without locks, none."""
    left = []
    for path in paths:
        with suppress(OSError):
            if fcntl is not None and path.is_file():
                file, _ = open_locked(path)
                left.append(path)
                os.close(file)
    return left
