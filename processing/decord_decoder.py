"""decord, for what PyAV cannot open.

On 32 real clips the key frames of PyAV and decord differ by at most 0.001 grey levels on average, and the small frames
by 1.1 (1.4 in the worst chunk): decord scales RGB that swscale has rounded down, PyAV scales the planes. decord would
lose the first frames of an MPEG program stream, so that it gets none; it gives up after a few frames of some VP9 files,
can't decode AV1, and writes of its own on stderr about files that it can't open. It knows nothing of streams, HDR and
the shape of pixels.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from .decoding import resized, without_holes
from .video_files import TimeLimit, VideoError, first_bytes, is_container, is_program_stream, rewound

logger = logging.getLogger(__name__)


class DecordDecoder:
    """decord. It applies the rotation itself, and hands out RGB at full size."""

    backend = "decord"
    is_picture = False

    def __init__(self, file: str | BinaryIO, name: str, limit: TimeLimit):
        try:
            import decord
        except (ImportError, OSError) as error:
            raise ImportError("decord is not installed, or cannot be loaded. Install it: pip install decord") from error
        decord.logging.set_level(decord.logging.QUIET)
        self._decord = decord
        self._limit = limit
        self.warnings: list[str] = []
        self.name = name
        head = first_bytes(file)
        if is_program_stream(head):
            raise VideoError(
                f"{name} is an MPEG program stream, of which decord loses the first frames. Use PyAV, or convert it "
                "to H.264."
            )
        # decord has no list of formats that it may take: by its content alone it opens what a playlist names.
        if not is_container(head):
            raise VideoError(f"{name} is no video in a container that decord may open. Convert it to MP4, or use PyAV.")
        self._path, self._copy = _as_path(file)
        try:
            reader = self._open()
            self.num_frames = len(reader)
            seconds = reader.get_frame_timestamp(np.arange(self.num_frames))[:, 0]
            self._first = _numpy(reader.next())
            self.height, self.width = self._first.shape[:2]
        # Its own messages may hold bytes that are no text.
        except (
            decord.DECORDError,
            RuntimeError,
            AssertionError,
            IndexError,
            StopIteration,
            UnicodeError,
        ) as error:
            reason = " ".join(str(error).split())[-100:] or type(error).__name__
            raise VideoError(
                f"{name} is not a video that decord can open ({reason}). Convert it to H.264, or use PyAV."
            ) from error
        self.rate = float(reader.get_avg_fps()) or None
        self.tick = Fraction(1, 1_000_000)
        self.timestamps = None
        # A frame without a time has an absurd one here.
        if (np.abs(seconds) < 1e9).all():
            microseconds = np.rint(seconds.astype(float) * 1e6).astype(np.int64)
            self.timestamps = without_holes(np.sort(microseconds), self.tick)

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        reader = self._open()
        for position in range(self.num_frames):
            self._limit.check()
            try:
                frame = reader.next()
            except (self._decord.DECORDError, StopIteration):  # after an error decord cannot go on
                logger.warning(
                    "%s: decord gives %d of %d frames. The file is damaged, or of a kind that decord gives up on: PyAV "
                    "may read more.",
                    self.name,
                    position,
                    self.num_frames,
                )
                return
            yield position, frame

    def first_frame(self) -> Any:
        return self._first

    def _open(self) -> Any:
        return self._decord.VideoReader(self._path)

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        return resized(_numpy(frame), size)


def _as_path(file: str | BinaryIO) -> tuple[str, BinaryIO | None]:
    """A path for decord, and the file without a name that it leads to, where what is given has no path. Of what is in
    memory decord makes a crash, where it can't open it."""
    if isinstance(file, str):
        return file, None
    copy = tempfile.TemporaryFile(prefix="lmmvqa-")  # noqa: SIM115 - it lasts as long as the decoder
    shutil.copyfileobj(rewound(file), copy)
    copy.flush()
    return f"/dev/fd/{copy.fileno()}", copy


def _numpy(frame: Any) -> np.ndarray:
    """The pixels of a decord frame, whatever array library the program has told decord to return."""
    return frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame)
