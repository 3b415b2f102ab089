"""Which seconds of a video are read, and which frames of each: by counting, or by the clock where the rate varies."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from .decoding import Decoder
from .video_files import VideoError

# A frame-rate tag is believed when it explains the length of the video to 2 %: this forgives 29.97 tagged as
# 30 and a rounded average, and refuses 24 for 25, fields counted as frames, and clock rates such as 90000.
TAG_TOLERANCE = 0.02
# A rate is constant when no frame strays from the even grid by more than a tenth of a second (or one frame,
# at slow rates): then chunks cut by counting lie within a tenth of their length of those cut by the clock.
# Timestamps rounded by the container (33 and 34 ms in Matroska), pull-down and one dropped frame stay inside;
# a freeze does not.
DRIFT_TOLERANCE_S = 0.1


class PlannedChunk(NamedTuple):
    """A second that will be read: its number, its start in seconds, and the positions of its frames in the video."""

    index: int
    start_s: float
    positions: np.ndarray


@dataclass(frozen=True)
class ChunkPlan:
    """How a video is read: `rate` in frames per second, `num_chunks` of the whole video, and the chunks chosen."""

    rate: float
    variable_rate: bool
    duration_s: float
    num_chunks: int
    chunks: list[PlannedChunk]

    @property
    def needed(self) -> np.ndarray:
        """Positions of all frames that will be read, ascending."""
        return np.unique(np.concatenate([chunk.positions for chunk in self.chunks]))


def plan_chunks(
    decoder: Decoder, begin: int, fps: float | None, max_chunks: int | None, frames_per_chunk: int, min_tail: float
) -> ChunkPlan:
    """
    Args:
        begin: position of the frame with which the first chunk begins.
        fps: in place of the rate that the file states.
        min_tail: how much of a second the last chunk must have, in (0, 1].

    Raises:
        VideoError: the video has neither timestamps nor a rate.
    """
    rate, variable = (fps, False) if fps else _frame_rate(decoder)
    num_frames = decoder.num_frames - begin
    if variable:
        timestamps = decoder.timestamps[begin:]
        first, present = _cut_by_clock(timestamps, decoder.tick)
        full = present.copy()
        if len(present) > 1:
            full[-1] = max(present[-1], _round(present[:-1].mean()))
        starts = float((timestamps[0] - decoder.timestamps[0]) * decoder.tick) + np.arange(len(first), dtype=float)
    else:
        chunk_length = max(1, _round(rate))
        first = np.arange(0, num_frames, chunk_length)
        present = np.minimum(chunk_length, num_frames - first)
        full = np.full_like(first, chunk_length)
        starts = (begin + first) / rate
    if len(first) > 1 and present[-1] < min_tail * full[-1]:
        # A few frames would count as much as a second of the video, and show too little motion to judge.
        first, present, full, starts = (column[:-1] for column in (first, present, full, starts))
    chunks = [
        PlannedChunk(
            int(i),
            float(starts[i]),
            begin + first[i] + back_and_forth(_round(np.linspace(0, full[i] - 1, frames_per_chunk)), present[i] - 1),
        )
        for i in evenly_spaced(len(first), max_chunks)
    ]
    duration_s = _duration(decoder) if variable else decoder.num_frames / rate
    return ChunkPlan(float(rate), variable, duration_s, len(first), chunks)


def evenly_spaced(num_chunks: int, max_chunks: int | None) -> np.ndarray:
    """Numbers of the chunks that stand for a video of `num_chunks`: all, or `max_chunks` from the first to the last."""
    if max_chunks is None or num_chunks <= max_chunks:
        return np.arange(num_chunks)
    return _round(np.linspace(0, num_chunks - 1, max_chunks))


def back_and_forth(positions: np.ndarray, last: int) -> np.ndarray:
    """Positions from 0 on, turned back at `last`, and again at 0."""
    return last - np.abs(last - positions % (2 * last)) if last else np.zeros_like(positions)


def _round(x: Any) -> Any:
    """Round half up, to int: unlike round half to even, the same step for every chunk."""
    return np.floor(np.asarray(x) + 0.5).astype(int)[()]


def _frame_rate(decoder: Decoder) -> tuple[float, bool]:
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


def _duration(decoder: Decoder) -> float:
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
