"""A video by any way in (path, bytes, file object, mapping): checked before a decoder sees it, known by its content.

A file is never trusted: one whose content makes a decoder open other files, or ask the network for them, is refused
here by what it holds, whatever it is called.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Union
from urllib.parse import unquote, urlsplit

from .errors import LmmVqaError
from .video_names import name_of

# Processes that only read videos do without torch, which takes more memory than they do.
if TYPE_CHECKING:
    import numpy as np
    import torch

VideoSource = Union[str, os.PathLike, bytes, BinaryIO, Mapping[str, Any], "np.ndarray", "torch.Tensor"]

# As many bytes tell what a file is.
_HEAD = 4096
_TEXT_MARK = b"\xef\xbb\xbf"
# Text that names other files or addresses: what it begins with, in lower case, and what it is called.
_REFERENCES = (
    (b"#extm3u", "a playlist (HLS)"),
    (b"ffconcat version", "a list of files (ffconcat)"),
    (b"v=0", "the description of a stream (SDP)"),
    (b"<smoothstreamingmedia", "a manifest (Smooth Streaming)"),
    (b"[playlist]", "a playlist (PLS)"),
    (b"[reference]", "a playlist (ASX)"),
    (b"<asx", "a playlist (ASX)"),
    (b"#!avs", "a script (AviSynth)"),
)
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"P5\n", b"P6\n", b"qoif")
_JPEG2000 = b"\0\0\0\x0cjP  "
# Pictures that nothing here reads.
_OTHER_PICTURES = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"8BPS", "Photoshop"),
    (b"#?RADIANCE", "Radiance"),
)
# Brands of pictures in the container of MP4.
_PICTURE_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}
_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"uuid"}


class VideoError(LmmVqaError, ValueError):
    """A video cannot be read. The message names the file and a remedy."""


class TimeLimit:
    """The seconds that reading one video may take. They count only between `start` and `stop`.

    Args:
        name: of the video, for the message.
        seconds: None for no limit.
    """

    def __init__(self, name: str, seconds: float | None):
        self._name, self._seconds = name, seconds
        self._used, self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.monotonic()

    def stop(self) -> None:
        self._used += time.monotonic() - self._began

    def check(self) -> None:
        """Raises:
        VideoError: the time is up.
        """
        if self._seconds is not None and self._used + time.monotonic() - self._began > self._seconds:
            raise VideoError(
                f"{self._name} could not be read within {self._seconds:g} s. It may be broken: leave it out, or raise "
                "the time limit."
            )


def as_file(video: VideoSource) -> tuple[str | BinaryIO, str]:
    """A path or seekable file object, and the name of the video for messages.

    Raises:
        VideoError: it is no file that can be read, or one that refers to others.
    """
    file, name = _as_file(video)
    refuse_references(file, name)
    head = first_bytes(file)
    if kind := next((kind for start, kind in _OTHER_PICTURES if head.startswith(start)), None):
        raise VideoError(f"{name} is a picture of a kind that is not read here ({kind}). Convert it to PNG.")
    return file, name


def rewound(file: str | BinaryIO) -> str | BinaryIO:
    if not isinstance(file, str):
        file.seek(0)
    return file


def first_bytes(file: str | BinaryIO, count: int = _HEAD) -> bytes:
    if not isinstance(file, str):
        return rewound(file).read(count)
    with open(file, "rb") as opened:
        return opened.read(count)


def last_bytes(file: str | BinaryIO, count: int) -> tuple[bytes, int]:
    """The end of a file, and its size."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return last_bytes(opened, count)
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - count))
    return file.read(count), size


def refuse_references(file: str | BinaryIO, name: str) -> None:
    """Raises:
    VideoError: the file is text that makes decoders open others.
    """
    head = first_bytes(file).removeprefix(_TEXT_MARK).lstrip().lower()
    kind = next((kind for start, kind in _REFERENCES if head.startswith(start)), None)
    if kind is None and head.startswith(b"<") and b"<mpd" in head:
        kind = "a manifest (DASH)"
    if kind is not None:
        raise VideoError(
            f"{name} is {kind}: it holds no picture and names other files, which are never opened for it. Give the "
            "video files themselves."
        )


def is_program_stream(head: bytes) -> bool:
    return head.startswith(b"\0\0\1\xba")


def holds_picture(head: bytes) -> bool:
    """Whether a file that begins so is a picture that Pillow reads; GIF is left to FFmpeg."""
    if head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    if head.startswith(_JPEG2000):
        return head[20:24] != b"mjp2"
    return head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS


def is_container(head: bytes) -> bool:
    """Whether a file that begins so is of a container that holds its frames itself: MP4, Matroska, AVI, FLV, Ogg, ASF
    or MPEG-TS."""
    if head[4:8] in _BOXES or head.startswith(
        (b"\x1a\x45\xdf\xa3", b"FLV", b"OggS", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")
    ):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return True
    return any(len(head) > at + length and head[at] == head[at + length] == 0x47 for at, length in ((0, 188), (4, 192)))


def _as_file(video: VideoSource, name: str | None = None) -> tuple[str | BinaryIO, str]:
    """Return a path or seekable file object, and the name of the video for messages: its own, unless one is given."""
    name = name or name_of(video)
    if isinstance(video, Mapping):
        path, data = video.get("path"), video.get("bytes")
        if data is not None:
            return _as_file(data, name)
        if path is None:
            raise VideoError(f"{name} has neither 'path' nor 'bytes'. Give the path or the bytes of a video file.")
        return _as_file(path)
    if isinstance(video, bytes | bytearray | memoryview):
        if len(video) == 0:
            raise VideoError(f"{name} is empty. Read the file again.")
        return io.BytesIO(video), name
    if isinstance(video, str | os.PathLike):
        return _checked_path(name), name
    if hasattr(video, "read"):
        if not (hasattr(video, "seekable") and video.seekable()):
            raise VideoError(f"{name} cannot seek, and a video file is read from several places. Give its bytes.")
        if isinstance(video, io.TextIOBase):
            raise VideoError(f"{name} was opened as text. Open it with mode 'rb'.")
        if video.seek(0, io.SEEK_END) == 0:
            raise VideoError(f"{name} is empty. Write or download it again.")
        return video, name
    raise VideoError(
        f"{name} is not a video. Give a path, bytes, a binary file object, a mapping with 'path' or "
        "'bytes', or an array of frames."
    )


def _checked_path(path: str) -> str:
    """Return the absolute path of a file that can be read."""
    local = path
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        url = urlsplit(path)
        if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
            raise VideoError(f"{path} is not on this machine. Download it first and give the path.")
        local = unquote(url.path)
    try:
        if os.path.isdir(local):
            if not os.access(local, os.R_OK | os.X_OK):
                raise VideoError(f"{path} is a folder that cannot be listed. Check its permissions.")
            raise VideoError(f"{path} is a folder. Give the video files in it.")
        if os.path.exists(local) and not os.path.isfile(local):
            # Reading a pipe or a device may wait for ever.
            raise VideoError(f"{path} is a pipe or a device. Save the video to a file first.")
        with open(local, "rb") as file:
            if not file.read(1):
                raise VideoError(f"{path} is empty. Download or export it again.")
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist. Check the path (now in {os.getcwd()}).") from error
    except OSError as error:
        raise VideoError(f"{path} cannot be opened: {error.strerror}. Check its permissions.") from error
    return os.path.abspath(local)
