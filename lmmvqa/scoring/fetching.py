"""Videos that lie elsewhere: any URL that fsspec knows, fetched for as long as they are read; and what strangers send
or name."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lmmvqa.scoring.public_urls import open_public
from processing.video_names import is_picture, is_video
from processing.video_reader import VideoError

# A temporary file takes no more; with as many readers as cores, this bounds the space that a run takes.
LARGEST_FETCH = 8 * 2**30
BLOCK = 2**20


@dataclass(frozen=True)
class NamedFile:
    """A file that results and messages call by a name, and never by its path."""

    name: str
    path: str


@dataclass(frozen=True)
class PublicUrl:
    """A URL that a stranger names: fetched by http or https only, from public addresses only, wherever it redirects to.

    Args:
        name: the URL.
        largest: bytes that are fetched.
    """

    name: str
    largest: int


def is_remote(video: Any) -> bool:
    """Whether a video is a URL that is not on this machine."""
    return isinstance(video, str) and re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://", video) is not None


@contextmanager
def at_hand(video: Any) -> Iterator[Any]:
    """A video as the video processor reads it. A URL is fetched into a temporary file without a name, which is gone
    when the context or the program ends, however it ends.

    Raises:
        VideoError: it can't be fetched, or is too large.
    """
    if isinstance(video, NamedFile):
        # By its descriptor: decoders put into their messages what a file object is called.
        with open(os.open(video.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb") as local:
            yield {"path": video.name, "bytes": local}
    elif isinstance(video, PublicUrl) or is_remote(video):
        with tempfile.TemporaryFile(prefix="lmmvqa-") as local:
            yield {"path": _fetch(video, local), "bytes": local}
    else:
        yield video


def _fetch(video: str | PublicUrl, local: Any) -> str:
    """Copy a video into a file, and return its URL."""
    public = isinstance(video, PublicUrl)
    url, largest = (video.name, video.largest) if public else (video, LARGEST_FETCH)
    try:
        with open_public(url) if public else _open(url) as remote:
            shutil.copyfileobj(_Bounded(remote, url, largest), local, BLOCK)
    except VideoError:
        raise
    # Every store has errors of its own.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VideoError(
            f"{url} can't be fetched ({reason}): check the address, the connection and your credentials."
        ) from error
    if local.tell() == 0:
        raise VideoError(f"{url} is empty. Upload it again.")
    local.seek(0)
    return url


def find_remote_videos(url: str) -> list[str]:
    """All videos and pictures under a URL of a folder or in a glob pattern; the URL itself where it is a file, or where
    nothing is found.

    Raises:
        VideoError: the place can't be listed.
    """
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
        found = files.glob(path) if any(sign in path for sign in "*?[") else files.find(path)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VideoError(
            f"{url} can't be listed ({reason}): check the address, the connection and your credentials."
        ) from error
    if found == [path]:
        return [url]
    return [files.unstrip_protocol(file) for file in found if is_video(file) or is_picture(file)] or [url]


class _Bounded:
    """A remote file that refuses to be read beyond so many bytes."""

    def __init__(self, remote: Any, name: str, largest: int):
        self._remote, self._name, self._largest, self._left = remote, name, largest, largest

    def read(self, size: int) -> bytes:
        block = self._remote.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise VideoError(
                f"{self._name} is larger than {self._largest / 2**20:,.0f} MB, which is the limit. Download it and "
                "give the file."
            )
        return block


def _open(url: str) -> Any:
    import fsspec

    try:
        return fsspec.open(url, "rb").open()
    except ImportError as error:
        raise VideoError(f"{url} can't be fetched: {error}. For S3: pip install 'lmmvqa[bulk]'.") from error
