"""Which file names are those of videos; apart from the reader, so that asking does not load a decoder or torch."""

from __future__ import annotations

_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
_SUFFIXES += (".ts", ".m2ts", ".mts", ".flv", ".wmv", ".3gp", ".ogv", ".vob")


def is_video(path: str) -> bool:
    """Whether a path has the suffix of a video, in upper or lower case."""
    return path.lower().endswith(_SUFFIXES)
