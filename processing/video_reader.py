"""Read a video second by second: one key frame and a few small frames for each.

A video is cut into non-overlapping chunks of one second. The decoder runs over the file once; frames that no chunk
needs are decoded and dropped, or jumped over where the container leads to a key frame behind them; the others are
scaled as they come, so that memory stays the same whatever the length of the video.

Colours: both decoders convert with swscale, by the matrix and the range that the file states (BT.601, limited range
where it states none, as FFmpeg does whatever the size). On 32 real clips the key frames of PyAV and decord differ by at
most 0.001 grey levels on average, and the small frames by 1.1 (1.4 in the worst chunk): decord scales RGB that swscale
has rounded down, PyAV scales the planes. decord would lose the first frames of an MPEG program stream, so that it gets
none; it gives up after a few frames of some VP9 files, can't decode AV1, and writes of its own on stderr about files
that it can't open.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, Union
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

# Processes that only read videos do without torch, which takes more memory than they do.
if TYPE_CHECKING:
    import torch

from .errors import LmmVqaError
from .video_names import name_of

logger = logging.getLogger(__name__)

# Of the rules by which frames are chosen. Another number where they change, so that no features of other frames are
# taken for those of a video.
CHUNKING_VERSION = 2

VideoSource = Union[str, os.PathLike, bytes, BinaryIO, Mapping[str, Any], np.ndarray, "torch.Tensor"]

# A frame-rate tag is believed when it explains the length of the video to 2 %: this forgives 29.97 tagged as
# 30 and a rounded average, and refuses 24 for 25, fields counted as frames, and clock rates such as 90000.
TAG_TOLERANCE = 0.02
# A rate is constant when no frame strays from the even grid by more than a tenth of a second (or one frame,
# at slow rates): then chunks cut by counting lie within a tenth of their length of those cut by the clock.
# Timestamps rounded by the container (33 and 34 ms in Matroska), pull-down and one dropped frame stay inside;
# a freeze does not.
DRIFT_TOLERANCE_S = 0.1
# A longer hole between two frames is a broken clock (a recording that was joined), not a freeze.
LONGEST_FREEZE_S = 60.0
# A jump to a key frame empties the decoder's pipeline, so fewer frames than this are decoded and dropped instead.
SHORTEST_JUMP = 32
# Containers that say where each key frame is; the others would be searched, and miss.
_INDEXED = {"mov", "mp4", "matroska", "webm"}
# How a file of the container begins of which decord loses frames.
_PROGRAM_STREAM = b"\0\0\1\xba"
# Threads of FFmpeg for one video; 0: one for each core. Whoever reads several videos at once sets less.
DECODING_THREADS = 0


class VideoError(LmmVqaError, ValueError):
    """A video cannot be read. The message names the file and a remedy."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are decoded.

    `width` and `height` are in pixels as displayed, after rotation. `fps` is the rate that the file states, or the
    measured one where that is missing or contradicts the timestamps. `num_chunks` counts the whole video, before
    `max_chunks`. `variable_rate` says that chunks are cut by timestamps and not by counting frames.
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


@dataclass
class Chunk:
    """One second of a video.

    `index` is the number of the second in the whole video and `start_s` its start in seconds. `key_frame` is its
    first frame, uint8 RGB of shape (3, height, width), at full size as displayed (where a video changes its size, each
    key frame has its own), a view of packed pixels. `frames`, uint8 RGB of shape
    (frames_per_chunk, 3, frame_height, frame_width), are evenly spaced in it; None if no frame size was asked for.
    """

    index: int
    start_s: float
    key_frame: np.ndarray
    frames: np.ndarray | None


class _Decoder(Protocol):
    """A video in one of the libraries: facts known in advance, then frames in the order of display."""

    name: str
    backend: str
    width: int
    height: int
    num_frames: int
    rate: float | None  # frames per second as tagged
    timestamps: np.ndarray | None  # int64 ticks, ascending, one for each frame; None without a usable clock
    tick: Fraction  # seconds

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        """Yield (position, frame), positions ascending. What cannot be decoded is skipped; so may be what lies between
        the positions that are needed (ascending, too), but never the last frame before one of them."""

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        """Convert a frame to uint8 RGB (3, height, width), as displayed, scaled to `size` if given."""


def open_video(
    video: VideoSource,
    *,
    backend: str = "auto",
    fps: float | None = None,
    max_chunks: int | None = None,
    frames_per_chunk: int = 32,
    frame_size: tuple[int, int] | None = None,
) -> VideoReader:
    """Open a video for reading in chunks of one second.

    Args:
        video: A path or `file://` URL, the bytes of a file, a seekable binary file object, a mapping with "path" and
            "bytes" (an undecoded `datasets` video; bytes win), or frames as a uint8 RGB array or tensor
            (frames, height, width, 3).
        backend: "pyav", "decord", or "auto": PyAV, and decord for what PyAV cannot open. Frames given as an array
            need neither.
        fps: Frames per second. Required for an array; for a file it replaces the rate that the file states.
        max_chunks: If the video has more chunks, read this many, evenly spaced over the whole of it.
        frames_per_chunk: Number of evenly spaced frames in each chunk. A short last chunk is spaced as a full one
            and plays back and forth: its last frame, repeated, would look like a freeze. One of less than half a
            second is left out, unless there is no other.
        frame_size: (height, width) in pixels of these frames, resized without crop, bilinear and antialiased;
            None to read key frames only.

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
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps is {fps}; use a positive number of frames per second.")

    if hasattr(video, "ndim"):
        decoder: _Decoder = _ArrayDecoder(video, fps)
    else:
        decoder = _open_file(*_as_file(video), backend)
    return VideoReader(decoder, fps, max_chunks, frames_per_chunk, frame_size)


class VideoReader:
    """A video as `info` and an iterable of [`Chunk`], in the order of time. Made by [`open_video`].

    Every iteration decodes the video anew. Leaving the context, or `close()`, frees the decoder.
    """

    info: VideoInfo

    def __init__(
        self,
        decoder: _Decoder,
        fps: float | None,
        max_chunks: int | None,
        frames_per_chunk: int,
        frame_size: tuple[int, int] | None,
    ):
        self._decoder = decoder
        self._frame_size = frame_size
        self._passes: list[Iterator[tuple[int, Any]]] = []

        rate, variable = (fps, False) if fps else _frame_rate(decoder)
        if variable:
            first, present = _cut_by_clock(decoder.timestamps, decoder.tick)
            full = present.copy()
            if len(present) > 1:
                full[-1] = max(present[-1], _round(present[:-1].mean()))
            starts = np.arange(len(first), dtype=float)
        else:
            chunk_length = max(1, _round(rate))
            first = np.arange(0, decoder.num_frames, chunk_length)
            present = np.minimum(chunk_length, decoder.num_frames - first)
            full = np.full_like(first, chunk_length)
            starts = first / rate
        if len(first) > 1 and 2 * present[-1] < full[-1]:
            # A few frames would count as much as a second of the video, and show too little motion to judge.
            first, present, full, starts = (column[:-1] for column in (first, present, full, starts))
        chosen = evenly_spaced(len(first), max_chunks)
        # For each chunk that will be read: its number, its start, and the positions of its frames in the video.
        self._plan = [
            (
                int(i),
                float(starts[i]),
                first[i] + _back_and_forth(_round(np.linspace(0, full[i] - 1, frames_per_chunk)), present[i] - 1),
            )
            for i in chosen
        ]
        self.info = VideoInfo(
            name=decoder.name,
            width=decoder.width,
            height=decoder.height,
            fps=float(rate),
            num_frames=decoder.num_frames,
            duration_s=_duration(decoder) if variable else decoder.num_frames / rate,
            num_chunks=len(first),
            variable_rate=variable,
            backend=decoder.backend,
        )

    def __iter__(self) -> Iterator[Chunk]:
        frames = self._decoder.frames(np.unique(np.concatenate([positions for _, _, positions in self._plan])))
        self._passes.append(frames)
        try:
            screen = _Screen(frames)
            for index, start_s, positions in self._plan:
                frame = screen.at(positions[0])
                if frame is None:
                    raise _no_frame(self.info.name)
                if screen.ended_before(positions[0]):
                    break
                yield Chunk(index, start_s, self._decoder.to_rgb(frame), self._small_frames(screen, positions))
        finally:
            frames.close()
            self._passes.remove(frames)

    def _small_frames(self, screen: _Screen, positions: np.ndarray) -> np.ndarray | None:
        if self._frame_size is None:
            return None
        small = np.empty((len(positions), 3, *self._frame_size), dtype=np.uint8)
        for position in np.unique(positions):
            # In this thread, while the frame is in the cache: FFmpeg's threads decode meanwhile.
            small[positions == position] = self._decoder.to_rgb(screen.at(position), self._frame_size)
        return small

    def close(self) -> None:
        """Free the decoder. Iterations that have begun end."""
        for frames in self._passes:
            frames.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def evenly_spaced(num_chunks: int, max_chunks: int | None) -> np.ndarray:
    """Numbers of the chunks that stand for a video of `num_chunks`: all, or `max_chunks` from the first to the last."""
    if max_chunks is None or num_chunks <= max_chunks:
        return np.arange(num_chunks)
    return _round(np.linspace(0, num_chunks - 1, max_chunks))


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


def _back_and_forth(positions: np.ndarray, last: int) -> np.ndarray:
    """Positions from 0 on, turned back at `last`, and again at 0."""
    return last - np.abs(last - positions % (2 * last)) if last else np.zeros_like(positions)


def _round(x: Any) -> Any:
    """Round half up, to int: unlike round half to even, the same step for every chunk."""
    return np.floor(np.asarray(x) + 0.5).astype(int)[()]


def _frame_rate(decoder: _Decoder) -> tuple[float, bool]:
    """Return the frame rate and whether it is variable."""
    tag = decoder.rate
    if decoder.timestamps is None or decoder.timestamps[-1] == decoder.timestamps[0]:
        if tag is None and decoder.num_frames > 1:
            raise VideoError(f"{decoder.name} has neither timestamps nor a frame rate. Give its rate with `fps`.")
        return tag or 1.0, False
    times = (decoder.timestamps - decoder.timestamps[0]) * float(decoder.tick)
    steps = len(times) - 1
    measured = steps / times[-1]
    rounding = 2 * float(decoder.tick)
    believed = tag is not None and abs(steps / tag - times[-1]) <= TAG_TOLERANCE * times[-1] + rounding
    drift = np.abs(times - np.arange(len(times)) / measured).max()
    steady = drift <= max(DRIFT_TOLERANCE_S, 1 / measured)
    return (tag if believed else measured), not (steady and (believed or tag is None))


def _duration(decoder: _Decoder) -> float:
    """Length in seconds by the clock; the last frame is taken to last as long as the average one."""
    span = float((decoder.timestamps[-1] - decoder.timestamps[0]) * decoder.tick)
    return span * decoder.num_frames / (decoder.num_frames - 1)


def _cut_by_clock(timestamps: np.ndarray, tick: Fraction) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each second, the position of its first frame and the number of its frames.

    A second without a frame shows the last one before it.
    """
    seconds = (timestamps - timestamps[0]) * tick.numerator // tick.denominator
    edges = np.searchsorted(seconds, np.arange(seconds[-1] + 2))
    present = np.diff(edges)
    return np.where(present == 0, edges[:-1] - 1, edges[:-1]), np.maximum(present, 1)


def _as_file(video: VideoSource) -> tuple[str | BinaryIO, str]:
    """Return a path or seekable file object, and the name of the video for messages."""
    name = name_of(video)
    if isinstance(video, Mapping):
        path, data = video.get("path"), video.get("bytes")
        if data is not None:
            return _as_file(data)[0], name
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


def _open_file(file: str | BinaryIO, name: str, backend: str) -> _Decoder:
    if backend != "auto":
        return _FILE_DECODERS[backend](file, name)
    errors: list[Exception] = []
    for backend, decoder in _FILE_DECODERS.items():
        try:
            return decoder(file, name)
        except (VideoError, ImportError) as error:
            logger.debug("With %s: %s", backend, error)
            errors.append(error)
    # PyAV's reason is the clearer one, and all that a person needs.
    raise next((error for error in errors if isinstance(error, VideoError)), errors[0])


def _rewound(file: str | BinaryIO) -> str | BinaryIO:
    if not isinstance(file, str):
        file.seek(0)
    return file


def _first_bytes(file: str | BinaryIO, count: int) -> bytes:
    if not isinstance(file, str):
        return _rewound(file).read(count)
    with open(file, "rb") as opened:
        return opened.read(count)


class _Key(NamedTuple):
    """A key frame: its position in the video, and the time (in ticks) that leads its container to it."""

    position: int
    time: int


class _PyAVDecoder:
    """FFmpeg by PyAV.

    Opening reads all packets without decoding them: this gives the exact number of frames and their times, also
    where the container does not list them. Only the first frame is decoded, for size and rotation.
    """

    backend = "pyav"

    def __init__(self, file: str | BinaryIO, name: str):
        try:
            import av
            from av.video.reformatter import VideoReformatter
        except ImportError as error:
            raise ImportError("PyAV is needed to read videos. Install it: pip install av") from error
        self._av = av
        self._file = file
        self.name = name
        # A reformatter keeps its tables from frame to frame; a frame's own would compute them anew.
        self._full, self._small = VideoReformatter(), VideoReformatter()

        first_frame, pts, dts, keys, num_packets = None, [], [], [], 0
        with self._open() as container:
            stream = self._video_stream(container)
            self.tick = stream.time_base
            self.rate = float(stream.average_rate or stream.guessed_rate or 0) or None
            for packet in self._packets(container, stream):
                num_packets += 1
                if first_frame is None:
                    first_frame = next(iter(self._decode(stream, packet)), None)
                if not packet.is_discard:  # decoded for the sake of others, but cut away by the edit list
                    pts.append(packet.pts)
                    dts.append(packet.dts)
                    if packet.is_keyframe and None not in (packet.pts, packet.dts):
                        keys.append((packet.pts, min(packet.pts, packet.dts)))
            if first_frame is None:
                first_frame = next(iter(self._decode(stream, None)), None)
            reorders = stream.codec_context.has_b_frames
            indexed = bool(_INDEXED & set(container.format.name.split(",")))
            # The index of a file that was cut short lists packets that are gone.
            num_cut_off = max(0, len(stream.index_entries) - num_packets)
        if first_frame is None or not pts:
            raise _no_frame(name)
        self.num_frames = len(pts)
        self._num_listed = len(pts) + num_cut_off
        if num_cut_off:
            self._warn_of_damage(self.num_frames)
        self.timestamps = _clock(pts, dts, self.tick)
        # Some files with B-frames carry the times of decoding only: right as a set, wrong for single frames.
        self._frames_are_timed = self.timestamps is not None and not (reorders and pts == dts)
        self._keys: list[_Key] = []
        if indexed and self._frames_are_timed and not num_cut_off:
            self._keys = sorted(_Key(int(np.searchsorted(self.timestamps, shown)), decoded) for shown, decoded in keys)
        self.height, self.width = first_frame.height, first_frame.width
        if _quarter_turns(first_frame) % 2:
            self.height, self.width = self.width, self.height

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        shown = -1
        with self._open() as container:
            stream = self._video_stream(container)
            stream.thread_type = "AUTO"
            stream.thread_count = DECODING_THREADS
            for key, last in self._runs(needed):
                if key is not None:
                    container.seek(key.time, stream=stream)
                landed = None
                for position, frame in self._decoded(container, stream, from_start=key is None):
                    landed = position if landed is None else landed
                    if key is not None and landed > key.position:
                        break
                    if key is None or position > shown:
                        shown = position
                        yield position, frame
                    if position >= last:
                        break
                if key is not None and (landed is None or landed > key.position):
                    # The index promised a key frame that is none: read on as if there were no index.
                    self._keys = []
                    yield from (later for later in self.frames(needed) if later[0] > shown)
                    return

    def _runs(self, needed: np.ndarray) -> list[tuple[_Key | None, int]]:
        """Stretches to decode: the key frame to jump to (None for the beginning), and the last position that is
        needed."""
        runs: list[tuple[_Key | None, int]] = [(None, -1)]
        starts = [key.position for key in self._keys]
        for position in needed.tolist():
            before = bisect_right(starts, position) - 1
            if before >= 0 and starts[before] - runs[-1][1] > SHORTEST_JUMP:
                runs.append((self._keys[before], position))
            else:
                runs[-1] = (runs[-1][0], position)
        return [run for run in runs if run[1] >= 0]

    def _decoded(self, container: Any, stream: Any, from_start: bool) -> Iterator[tuple[int, Any]]:
        """Every frame from where the container stands, with its position."""
        num_decoded, position = 0, -1
        for packet in chain(self._packets(container, stream), [None]):
            for frame in self._decode(stream, packet):
                num_decoded += 1
                position += 1
                if self._frames_are_timed and frame.pts is not None:
                    # Not shifted by frames that are lost, and right where two fields, or a frame that is
                    # not shown, come in packets of their own.
                    position = int(np.searchsorted(self.timestamps, frame.pts, side="right")) - 1
                yield position, frame
        if from_start and num_decoded < self.num_frames:
            self._warn_of_damage(num_decoded)

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        turns = _quarter_turns(frame)
        if size is not None and turns % 2:
            size = size[::-1]
        # swscale scales the fields of an interlaced frame apart; what is shown is the whole frame.
        if size is None or frame.interlaced_frame:
            rgb = self._full.reformat(frame, format="rgb24", interpolation="BILINEAR", threads=1)
            packed = _plane(rgb.planes[0], samples=3)
            pixels = _resized(packed.reshape(frame.height, frame.width, 3), size)
        else:
            # On downscaling, swscale widens the bilinear filter, as antialiasing does. Into planes it works with
            # vector instructions and at the full resolution of colour; into packed RGB it does neither.
            height, width = size
            gbr = self._small.reformat(frame, width, height, "gbrp", interpolation="BILINEAR", threads=1)
            pixels = np.stack([_plane(gbr.planes[i]) for i in (2, 0, 1)])
        return np.rot90(pixels, turns, axes=(1, 2)).copy() if turns else pixels

    def _too_large(self) -> VideoError:
        return VideoError(
            f"{self.name} needs more memory than this program may take: it is damaged, or too large. Download it "
            "again, or scale it down."
        )

    def _warn_of_damage(self, num_readable: int) -> None:
        logger.warning("%s is damaged: %d of %d frames can be read.", self.name, num_readable, self._num_listed)

    def _open(self) -> Any:
        try:
            return self._av.open(_rewound(self._file), metadata_errors="replace")
        except MemoryError as error:
            raise self._too_large() from error
        except self._av.FFmpegError as error:
            raise VideoError(
                f"{self.name} is not a video that FFmpeg can open ({error.strerror}): another kind of file, or cut "
                "short. Download or export it again."
            ) from error

    def _video_stream(self, container: Any) -> Any:
        for stream in container.streams.video:
            if stream.codec_context is None:
                raise VideoError(
                    f"{self.name} holds a video in a codec that FFmpeg does not know. Download or convert it again."
                )
            if not stream.disposition & self._av.stream.Disposition.attached_pic:
                return stream
        raise VideoError(f"{self.name} has no video, only {_listed(container)}. Give a file with a video stream.")

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        try:
            for packet in container.demux(stream):
                if packet.size:  # an empty packet would end decoding
                    yield packet
        except MemoryError as error:
            raise self._too_large() from error
        except self._av.FFmpegError as error:
            logger.debug("%s cannot be read further: %s", self.name, error)

    def _decode(self, stream: Any, packet: Any) -> list[Any]:
        try:
            return stream.codec_context.decode(packet)
        except MemoryError as error:
            raise self._too_large() from error
        except self._av.FFmpegError as error:
            logger.debug("A packet of %s cannot be decoded: %s", self.name, error)
            return []


def _clock(pts: list[int | None], dts: list[int | None], tick: Fraction) -> np.ndarray | None:
    """Return the times of frames in the order of display, or None where they are missing or make no sense."""
    if None in pts:
        return None
    decoding = np.array([t for t in dts if t is not None], dtype=np.int64)
    if np.any(np.diff(decoding) < 0):  # the clock was set back: sorted times would mix the parts
        return None
    return _without_holes(np.sort(np.array(pts, dtype=np.int64)), tick)


def _without_holes(timestamps: np.ndarray, tick: Fraction) -> np.ndarray | None:
    longest = np.diff(timestamps).max(initial=0) * float(tick)
    return timestamps if longest <= LONGEST_FREEZE_S else None


def _no_frame(name: str) -> VideoError:
    return VideoError(f"{name} holds no frame that can be decoded. Download or export it again.")


def _listed(container: Any) -> str:
    """Name what a file holds: "audio", "pictures", "nothing"."""
    kinds = dict.fromkeys("a cover picture" if s.type == "video" else s.type for s in container.streams)
    return ", ".join(kinds) or "nothing"


def _plane(plane: Any, samples: int = 1) -> np.ndarray:
    """View a plane with so many bytes for a pixel as (height, width * samples), without the padding of its lines."""
    lines = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width * samples]


def _quarter_turns(frame: Any) -> int:
    """Number of quarter turns counter-clockwise from the stored picture to the displayed one."""
    return round(frame.rotation / 90) % 4


class _DecordDecoder:
    """decord. It applies the rotation itself, and hands out RGB at full size."""

    backend = "decord"

    def __init__(self, file: str | BinaryIO, name: str):
        try:
            import decord
        except (ImportError, OSError) as error:
            raise ImportError("decord is not installed, or cannot be loaded. Install it: pip install decord") from error
        decord.logging.set_level(decord.logging.QUIET)
        self._decord = decord
        self._file = file
        self.name = name
        if _first_bytes(file, len(_PROGRAM_STREAM)) == _PROGRAM_STREAM:
            raise VideoError(
                f"{name} is an MPEG program stream, of which decord loses the first frames. Use PyAV, or convert it "
                "to H.264."
            )
        try:
            reader = self._open()
            self.num_frames = len(reader)
            seconds = reader.get_frame_timestamp(np.arange(self.num_frames))[:, 0]
            self.height, self.width = _numpy(reader.next()).shape[:2]
        except (decord.DECORDError, RuntimeError, AssertionError, IndexError, StopIteration) as error:
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
            self.timestamps = _without_holes(np.sort(microseconds), self.tick)

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        reader = self._open()
        for position in range(self.num_frames):
            try:
                frame = reader.next()
            except (self._decord.DECORDError, StopIteration):  # after an error decord cannot go on
                logger.warning(
                    "%s: decord gives %d of %d frames. The file is damaged, or of a kind that decord gives up on: "
                    "PyAV may read more.",
                    self.name,
                    position,
                    self.num_frames,
                )
                return
            yield position, frame

    def _open(self) -> Any:
        return self._decord.VideoReader(_rewound(self._file))

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        return _resized(_numpy(frame), size)


def _numpy(frame: Any) -> np.ndarray:
    """The pixels of a decord frame, whatever array library the program has told decord to return."""
    return frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame)


class _ArrayDecoder:
    """Frames that are decoded already."""

    name = "<array>"
    backend = "array"
    timestamps = None
    tick = Fraction(1)

    def __init__(self, video: np.ndarray | torch.Tensor, fps: float | None):
        if video.ndim != 4 or video.shape[3] != 3 or str(video.dtype) not in ("uint8", "torch.uint8"):
            raise VideoError(
                f"<array> has shape {tuple(video.shape)} and type {video.dtype}. Give RGB frames as uint8, 0 to 255, "
                "of shape (frames, height, width, 3)."
            )
        if 0 in video.shape:
            raise VideoError(f"<array> has shape {tuple(video.shape)}, so no pixels. Give at least one frame.")
        if fps is None:
            raise VideoError("<array> has no frame rate. Give its frames per second with `fps`.")
        self._video = np.asarray(video.cpu() if hasattr(video, "cpu") else video)
        self.num_frames, self.height, self.width, _ = video.shape
        self.rate = fps

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        yield from enumerate(self._video)

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        # A copy: the chunk must not change when the caller changes the array.
        return _resized(frame, size).copy()


def _resized(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Turn uint8 (height, width, 3) into (3, height, width); resize without crop, bilinear and antialiased."""
    pixels = np.ascontiguousarray(pixels)
    if size is not None:
        height, width = size
        pixels = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return pixels.transpose(2, 0, 1)


_FILE_DECODERS = {"pyav": _PyAVDecoder, "decord": _DecordDecoder}
