"""Read a video second by second: one key frame and a few small frames for each.

A video is cut into non-overlapping chunks of one second. The decoder runs over the file once; frames that no chunk
needs are decoded and dropped, or jumped over where the container leads to a key frame behind them; the others are
scaled as they come, so that memory stays the same whatever the length of the video.

What is read is what a viewer sees: the stream that a player shows, upright, with square pixels, in the colours of
BT.709, without blank ends and black bars (see `pyav_decoder`, `colours`, `picture_ends`, `black_bars`). A picture, or a
video of one frame, says nothing of motion: its small frames are those of a slow, even pan over it, which no one takes
for a freeze.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .array_decoder import ArrayDecoder
from .black_bars import NUM_FRAMES, Window, may_have_bars, picture_within
from .chunk_plan import PlannedChunk, evenly_spaced, plan_chunks
from .decoding import Decoder, no_frame, warn
from .decord_decoder import DecordDecoder
from .picture_ends import BLANK, contrast, dims, first_picture, shown_to_the_end, up_to
from .pictures import PictureDecoder
from .pyav_decoder import PyAVDecoder
from .video_files import TimeLimit, VideoError, VideoSource, as_file, first_bytes, holds_picture

logger = logging.getLogger(__name__)

# Of the rules by which frames are chosen and cut. Another number where they change, so that no features of other frames
# are taken for those of a video.
CHUNKING_VERSION = 4
# Seconds that one video may take to be read where nobody says otherwise, not counting what is done between its chunks.
TIME_LIMIT_S = 300.0
# Of a longer video as many chunks are read, evenly spaced, where nobody asks for fewer.
MOST_CHUNKS = 600
# A smaller frame, enlarged for a tower, has no detail that could be good or bad: it passes for a clean one.
SMALLEST_SIDE = 32
# Motion can hardly be judged in less.
_SHORT_S = 0.5
SINGLE_PICTURE = "It is a single picture: nothing is known of motion."
# The pan over a still: it goes over so much of the width in a second.
_PAN = 0.01


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video.

    `width` and `height` are in pixels as displayed, after rotation and with square pixels, black bars included. `fps`
    is the rate that the file states, or the measured one where that is missing or contradicts the timestamps.
    `duration_s` is that of the whole video, 0 of a picture; `num_chunks` counts it without a blank beginning, before
    `max_chunks`. `variable_rate` says that chunks are cut by timestamps and not by counting frames. `warnings` are
    sentences for the person who reads the score; some come up only while the video is decoded.
    """

    name: str
    width: int
    height: int
    fps: float
    num_frames: int
    duration_s: float
    num_chunks: int
    variable_rate: bool
    backend: str
    warnings: tuple[str, ...] = ()


@dataclass
class Chunk:
    """One second of a video.

    `index` is the number of the second in the whole video and `start_s` its start in seconds. `key_frame` is its
    first frame, uint8 RGB of shape (3, height, width), at full size as displayed, without black bars (where a video
    changes its size, each key frame has its own), a view of packed pixels. `frames`, uint8 RGB of shape
    (frames_per_chunk, 3, frame_height, frame_width), are evenly spaced in it; None if no frame size was asked for.
    """

    index: int
    start_s: float
    key_frame: np.ndarray
    frames: np.ndarray | None


def open_video(
    video: VideoSource,
    *,
    backend: str = "auto",
    fps: float | None = None,
    max_chunks: int | None = None,
    frames_per_chunk: int = 32,
    frame_size: tuple[int, int] | None = None,
    min_tail: float = 0.5,
    time_limit_s: float | None = TIME_LIMIT_S,
) -> VideoReader:
    """Open a video for reading in chunks of one second.

    Args:
        video: A path or `file://` URL, the bytes of a file, a seekable binary file object, a mapping with "path" and
            "bytes" (an undecoded `datasets` video; bytes win), or frames as a uint8 RGB array or tensor
            (frames, height, width, 3).
        backend: "pyav", "decord", or "auto": PyAV, and decord for what PyAV cannot open. Frames given as an array
            and pictures need neither.
        fps: Frames per second. Required for an array; for a file it replaces the rate that the file states.
        max_chunks: If the video has more chunks, read this many, evenly spaced over the whole of it; `MOST_CHUNKS`
            where it is None.
        frames_per_chunk: Number of evenly spaced frames in each chunk. A short last chunk is spaced as a full one
            and plays back and forth: its last frame, repeated, would look like a freeze.
        min_tail: How much of a second the last chunk must have, in (0, 1]; a shorter one is left out, unless there is
            no other. 1 is the paper's eq. 2, which counts whole seconds.
        frame_size: (height, width) in pixels of these frames, resized without crop, bilinear and antialiased;
            None to read key frames only.
        time_limit_s: Seconds that opening and decoding may take, not counting what is done between chunks; None for no
            limit.

    Raises:
        VideoError: The video cannot be read; the message names it and a remedy.
        ImportError: The backend that was named is not installed.
    """
    if backend not in ("auto", *_FILE_DECODERS):
        raise ValueError(f"backend is {backend!r}; use one of 'auto', {', '.join(map(repr, _FILE_DECODERS))}.")
    if max_chunks is not None and max_chunks < 1:
        raise ValueError(f"max_chunks is {max_chunks}; use a positive number, or None to read all chunks.")
    if frames_per_chunk < 1:
        raise ValueError(f"frames_per_chunk is {frames_per_chunk}; use a positive number.")
    if frame_size is not None and (len(frame_size) != 2 or min(frame_size) < 1):
        raise ValueError(f"frame_size is {frame_size}; use a (height, width) of positive numbers, or None.")
    if not 0 < min_tail <= 1:
        raise ValueError(f"min_tail is {min_tail}; use a share of a second above 0 and up to 1.")
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps is {fps}; use a positive number of frames per second.")

    if hasattr(video, "ndim"):
        limit = TimeLimit("<array>", time_limit_s)
        return VideoReader(ArrayDecoder(video, fps), limit, fps, max_chunks, frames_per_chunk, frame_size, min_tail)
    file, name = as_file(video)
    limit = TimeLimit(name, time_limit_s)
    limit.start()
    try:
        decoder = _open_file(file, name, backend, limit)
        return VideoReader(decoder, limit, fps, max_chunks, frames_per_chunk, frame_size, min_tail)
    finally:
        limit.stop()


class VideoReader:
    """A video as `info` and an iterable of [`Chunk`], in the order of time. Made by [`open_video`].

    Every iteration decodes the video anew. Leaving the context, or `close()`, frees the decoder.
    """

    def __init__(
        self,
        decoder: Decoder,
        limit: TimeLimit,
        fps: float | None,
        max_chunks: int | None,
        frames_per_chunk: int,
        frame_size: tuple[int, int] | None,
        min_tail: float,
    ):
        if min(decoder.height, decoder.width) < SMALLEST_SIDE:
            raise VideoError(
                f"{decoder.name} has {decoder.width} x {decoder.height} pixels, too few to be judged. Give a video of "
                f"at least {SMALLEST_SIDE} pixels on its shorter side."
            )
        self._decoder, self._limit = decoder, limit
        self._frame_size = frame_size
        self._passes: list[Iterator[tuple[int, Any]]] = []
        # Where the picture lies in key frames of a shape that have bars, once it is known.
        self._windows: dict[tuple[int, ...], Window] = {}
        self._knows_bars = False
        begin = first_picture(decoder)
        plan = plan_chunks(decoder, begin, fps, max_chunks or MOST_CHUNKS, frames_per_chunk, min_tail)
        self._plan = plan
        self._info = VideoInfo(
            name=decoder.name,
            width=decoder.width,
            height=decoder.height,
            fps=plan.rate,
            num_frames=decoder.num_frames,
            duration_s=0.0 if decoder.is_picture else plan.duration_s,
            num_chunks=plan.num_chunks,
            variable_rate=plan.variable_rate,
            backend=decoder.backend,
        )
        if begin:
            warn(decoder, f"Its first {plan.chunks[0].start_s:.1f} s are blank or fade in: they are left out.")
        if max_chunks is None and plan.num_chunks > MOST_CHUNKS:
            warn(decoder, f"It is longer than {MOST_CHUNKS} s: as many seconds, evenly spaced, are read.")
        if decoder.num_frames == 1:
            warn(decoder, SINGLE_PICTURE)
        elif plan.duration_s < _SHORT_S:
            warn(decoder, f"It is only {plan.duration_s:.2f} s long: motion can hardly be judged.")

    @property
    def info(self) -> VideoInfo:
        return replace(self._info, warnings=tuple(self._decoder.warnings))

    def __iter__(self) -> Iterator[Chunk]:
        frames = self._decoder.frames(self._plan.needed)
        self._passes.append(frames)
        self._limit.start()
        try:
            for chunk in _one_behind(self._without_blank_end(self._chunks(_Screen(frames)))):
                self._limit.stop()
                yield chunk
                self._limit.start()
                self._limit.check()
        finally:
            frames.close()
            self._passes.remove(frames)

    def _chunks(self, screen: _Screen) -> Iterator[tuple[PlannedChunk, Chunk]]:
        for planned in self._plan.chunks:
            frame = screen.at(planned.positions[0])
            if frame is None:
                raise no_frame(self._decoder.name)
            if screen.ended_before(planned.positions[0]):
                break
            key_frame = self._decoder.to_rgb(frame)
            self._look_for_bars(key_frame)
            frames = self._small_frames(screen, planned, key_frame)
            yield planned, Chunk(planned.index, planned.start_s, self._without_bars(key_frame), frames)

    def _look_for_bars(self, key_frame: np.ndarray) -> None:
        """By the first key frame, and by others where that one may have bars."""
        if self._knows_bars:
            return
        self._knows_bars = True
        if not may_have_bars(key_frame):
            return
        chunks = self._plan.chunks
        positions = np.array([chunks[i].positions[0] for i in evenly_spaced(len(chunks), NUM_FRAMES)])
        others = self._decoder.frames(positions)
        screen = _Screen(others)
        frames = [self._decoder.to_rgb(screen.at(position)) for position in positions]
        others.close()
        window = picture_within(frames, SMALLEST_SIDE)
        if window is not None:
            self._windows[key_frame.shape] = window
            warn(self._decoder, "It has black bars around its picture: they are left out.")

    def _without_blank_end(self, chunks: Iterator[tuple[PlannedChunk, Chunk]]) -> Iterator[Chunk]:
        """Chunks that go dark are held back until the video shows whether it ends there."""
        held: list[tuple[np.ndarray, Callable[[], Chunk]]] = []
        none_yet = True
        for planned, chunk in chunks:
            seen = _in_order(planned, chunk)
            if dims(seen):
                held.append((seen, _kept(chunk)))
                continue
            none_yet = False
            yield from (keep() for _, keep in held)
            held.clear()
            yield chunk
        if not held:
            return
        shown = shown_to_the_end([seen for seen, _ in held])
        if none_yet and not any(shown):
            yield from (keep() for _, keep in held)
            return
        if any(count < len(seen) for (seen, _), count in zip(held, shown, strict=True)):
            warn(self._decoder, "Its end is blank or fades out: it is left out.")
        for (seen, keep), count in zip(held, shown, strict=True):
            chunk = keep()
            if count < len(seen):
                # As at any end, less than half a second is left out, unless there is no other.
                if count == 0 or (2 * count < len(seen) and not none_yet):
                    continue
                if chunk.frames is not None:
                    chunk.frames = up_to(chunk.frames, count)
            none_yet = False
            yield chunk

    def _without_bars(self, key_frame: np.ndarray) -> np.ndarray:
        window = self._windows.get(key_frame.shape)
        return key_frame if window is None else key_frame[:, *window]

    def _small_frames(self, screen: _Screen, planned: PlannedChunk, key_frame: np.ndarray) -> np.ndarray | None:
        if self._frame_size is None:
            return None
        if self._decoder.num_frames == 1:
            return _pan(self._without_bars(key_frame), len(planned.positions), self._frame_size)
        small = np.empty((len(planned.positions), 3, *self._frame_size), dtype=np.uint8)
        for position in np.unique(planned.positions):
            # In this thread, while the frame is in the cache: FFmpeg's threads decode meanwhile.
            small[planned.positions == position] = self._small(screen.at(position), key_frame.shape)
        return small

    def _small(self, frame: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A frame of `frame_size`, of a chunk whose key frame has this shape."""
        window = self._windows.get(shape)
        if window is None:
            return self._decoder.to_rgb(frame, self._frame_size)
        # The picture is cut out at twice the size that is wanted of it: to convert whole frames would take long.
        scales = [
            min(1.0, 2 * small / (lines.stop - lines.start))
            for small, lines in zip(self._frame_size, window, strict=True)
        ]
        size = tuple(max(1, round(side * scale)) for side, scale in zip(shape[1:], scales, strict=True))
        pixels = self._decoder.to_rgb(frame, size)
        (top, bottom), (left, right) = (
            (lines.start * new / side, lines.stop * new / side)
            for lines, new, side in zip(window, size, shape[1:], strict=True)
        )
        return _cut_out(pixels, (left, top, right, bottom), self._frame_size)

    def close(self) -> None:
        """Free the decoder. Iterations that have begun end."""
        for frames in self._passes:
            frames.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _one_behind(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks, each when the next one is there: with the last one everything is known of the whole video."""
    waiting: list[Chunk] = []
    for chunk in chunks:
        yield from waiting
        waiting = [chunk]
    yield from waiting


def _in_order(planned: PlannedChunk, chunk: Chunk) -> np.ndarray:
    """(frames, 3, height, width): the frames of a chunk by which its end is known, each once, in the order of time."""
    if chunk.frames is None:
        step = max(1, min(chunk.key_frame.shape[1:]) // 64)
        return chunk.key_frame[None, :, ::step, ::step]
    return chunk.frames[: int(planned.positions.argmax()) + 1]


def _kept(chunk: Chunk) -> Callable[[], Chunk]:
    """A chunk that waits; a blank key frame, of which there may be many, in little memory."""
    key_frame = chunk.key_frame
    step = max(1, min(key_frame.shape[1:]) // 64)
    if contrast(key_frame[None, :, ::step, ::step])[0] >= BLANK:
        return lambda: chunk
    packed = key_frame.transpose(1, 2, 0)
    shape, content = packed.shape, zlib.compress(np.ascontiguousarray(packed).tobytes(), 1)
    chunk.key_frame = key_frame[:, :0, :0]

    def unpacked() -> Chunk:
        chunk.key_frame = np.frombuffer(zlib.decompress(content), np.uint8).reshape(shape).copy().transpose(2, 0, 1)
        return chunk

    return unpacked


def _pan(key_frame: np.ndarray, num_frames: int, size: tuple[int, int]) -> np.ndarray:
    """(num_frames, 3, height, width) uint8: a window goes over a still, slowly and evenly, from left to right."""
    _, height, width = key_frame.shape
    margin = width * _PAN
    steps = np.linspace(0, margin, num_frames)
    return np.stack([_cut_out(key_frame, (step, 0, width - margin + step, height), size) for step in steps])


def _cut_out(pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """What lies between left, top, right and bottom in uint8 (3, height, width), resized."""
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR, box)).transpose(2, 0, 1)


class _Screen:
    """What a viewer sees: a frame stays until the next one comes, also where frames in between are lost."""

    def __init__(self, frames: Iterator[tuple[int, Any]]):
        self._frames = frames
        self._shown: tuple[int, Any] = (-1, None)
        self._next: tuple[int, Any] | None = None

    def at(self, position: int) -> Any:
        """Return the frame on screen at a position (before the first frame: the first). Positions never decrease."""
        while self._shown[0] < position:
            coming = self._next or next(self._frames, None)
            if coming is None:
                break
            if coming[0] > position and self._shown[1] is not None:
                self._next = coming
                break
            self._shown, self._next = coming, None
        return self._shown[1]

    def ended_before(self, position: int) -> bool:
        """Whether the video ended before a position that was asked for."""
        return self._shown[0] < position and self._next is None


def _open_file(file: str | BinaryIO, name: str, backend: str, limit: TimeLimit) -> Decoder:
    # What a camera sends as one JPEG after the other is known by its name alone.
    if holds_picture(first_bytes(file)) and not name.lower().endswith((".mjpeg", ".mjpg")):
        return PictureDecoder(file, name, limit)
    if backend != "auto":
        return _FILE_DECODERS[backend](file, name, limit)
    errors: list[Exception] = []
    for library, decoder in _FILE_DECODERS.items():
        limit.check()
        try:
            return decoder(file, name, limit)
        except (VideoError, ImportError) as error:
            logger.debug("With %s: %s", library, error)
            errors.append(error)
    # PyAV's reason is the clearer one, and all that a person needs.
    raise next((error for error in errors if isinstance(error, VideoError)), errors[0])


_FILE_DECODERS = {"pyav": PyAVDecoder, "decord": DecordDecoder}
