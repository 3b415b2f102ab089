"""What videos and photographs are called; apart from the reader, so that asking does not load a decoder or torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
_SUFFIXES += (".ts", ".m2ts", ".mts", ".flv", ".wmv", ".asf", ".3gp", ".ogv", ".ogg", ".vob")
_SUFFIXES += (
    ".y4m",
    ".mxf",
    ".gif",
    ".ivf",
    ".dv",
    ".m2v",
    ".nut",
    ".rm",
    ".rmvb",
    ".wtv",
    ".mpe",
    ".3g2",
    ".f4v",
    ".qt",
)
_SUFFIXES += (".h264", ".264", ".hevc", ".h265", ".265", ".obu", ".mjpeg", ".mjpg", ".apng")
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2")
_PICTURE_SUFFIXES += (".ppm", ".qoi")


def is_video(path: str) -> bool:
    """Whether a path has the suffix of a video, in upper or lower case."""
    return path.lower().endswith(_SUFFIXES)


def is_picture(path: str) -> bool:
    """Whether a path has the suffix of a photograph, in upper or lower case."""
    return path.lower().endswith(_PICTURE_SUFFIXES)


def name_of(video: Any) -> str:
    """How results and messages call a video: its path, or what it is given as."""
    if isinstance(video, str | os.PathLike):
        return os.fspath(video)
    if isinstance(video, Mapping):
        return str(video.get("path") or ("<mapping>" if video.get("bytes") is None else "<bytes>"))
    if isinstance(video, bytes | bytearray | memoryview):
        return "<bytes>"
    if hasattr(video, "ndim"):
        return "<array>"
    kind = "file object" if hasattr(video, "read") else type(video).__name__
    return str(getattr(video, "name", f"<{kind}>"))
