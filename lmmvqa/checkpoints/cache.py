"""The folder in which parts and the assembled checkpoint are kept, also where processes that fill it are killed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from lmmvqa.file_locks import left_behind, open_locked
from processing.errors import LmmVqaError

_SCRATCH, _LOCK = ".making-", ".lock"


class CacheError(LmmVqaError, OSError):
    """The cache can't be written. The message names the folder and the remedy."""


def cache_folder() -> Path:
    """Where parts and the assembled checkpoint are kept: `$LMMVQA_CACHE`, or `lmmvqa` in the user's cache folder."""
    if folder := os.environ.get("LMMVQA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lmmvqa"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder inside the cache, on the same disk, which is gone at the end; one of a process that was killed
    goes with the next one.

    Raises:
        CacheError: the cache can't be written, or its disk is full.
    """
    remove_leftovers()
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        folder, lock = _locked_name()
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(f"{folder}{_LOCK}").unlink(missing_ok=True)
            os.close(lock)
    except LmmVqaError:
        raise
    except (OSError, SafetensorError) as error:
        raise CacheError(
            f"{cache_folder()}, where checkpoints are kept, can't be written "
            f"({getattr(error, 'strerror', None) or error}): make room or "
            "make it writable, or name another folder in the environment variable LMMVQA_CACHE."
        ) from error


def _locked_name() -> tuple[Path, int]:
    """The name of a folder that is not there yet, so that no folder is ever without its lock; and the lock."""
    while True:
        folder = cache_folder() / f"{_SCRATCH}{os.getpid()}-{secrets.token_hex(4)}"
        # Another process may take it for a leftover before it is locked.
        with suppress(BlockingIOError):
            return folder, open_locked(Path(f"{folder}{_LOCK}"))[0]


def remove_leftovers() -> None:
    """Remove what killed processes have left: folders whose lock nobody holds."""
    with suppress(OSError):
        for lock in left_behind(cache_folder().glob(f"{_SCRATCH}*{_LOCK}")):
            shutil.rmtree(str(lock).removesuffix(_LOCK), ignore_errors=True)
            lock.unlink()
