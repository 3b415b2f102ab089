"""Blank and fading ends of a video: they show nothing that could be judged.

A frame is blank where its brightness varies by less than four grey levels: black, white or any one colour. The video
begins with its first frame that is not blank and ends with its last; a fade from or to such an end, of at most two
seconds, is left out up to where contrast has nine tenths of what it fades to. A video that is blank all through is read
as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .chunk_plan import back_and_forth
from .decoding import Decoder

BLANK = 4.0  # standard deviation of brightness, in grey levels of 255
LONGEST_FADE_S = 2.0
# A cut from black shows at least so much of the contrast at once; a fade begins with less.
_CUT = 0.5
_FADED_IN = 0.9
_THUMBNAIL = (36, 64)
# Where a file states no rate, or an absurd one.
_USUAL_RATE, _HIGHEST_RATE = 30.0, 120.0


def contrast(frames: np.ndarray) -> np.ndarray:
    """(frames, 3, height, width) uint8 -> (frames,): how much brightness varies in each, in grey levels."""
    return frames.mean(axis=1, dtype=np.float32).std(axis=(1, 2))


def first_picture(decoder: Decoder) -> int:
    """Position of the first frame behind a blank or fading beginning; 0 where there is none, and where all is blank."""
    if _contrast_of(decoder, decoder.first_frame()) >= BLANK:
        return 0
    longest_fade = LONGEST_FADE_S * min(decoder.rate or _USUAL_RATE, _HIGHEST_RATE)
    seen: list[tuple[int, float]] = []
    frames = decoder.frames(np.arange(decoder.num_frames))
    for position, frame in frames:
        value = _contrast_of(decoder, frame)
        if seen or value >= BLANK:
            seen.append((position, value))
        if seen and position - seen[0][0] >= longest_fade:
            break
    frames.close()
    if not seen:
        return 0
    full = max(value for _, value in seen)
    if seen[0][1] >= _CUT * full:
        return seen[0][0]
    return next(position for position, value in seen if value >= _FADED_IN * full)


def dims(frames: np.ndarray) -> bool:
    """Whether a chunk, its frames in the order of time, ends blank or with less contrast than it had before."""
    last = contrast(frames[-1:])[0]
    return bool(last < BLANK or last < _FADED_IN * contrast(frames[:: max(1, len(frames) // 4)]).max())


def shown_to_the_end(chunks: Sequence[np.ndarray]) -> list[int]:
    """How many frames of each of the last chunks of a video, in the order of time, come before it goes blank or fades
    out; all of them where it does neither, none of a chunk that is blank all through.

    Args:
        chunks: (frames, 3, height, width) uint8 each.
    """
    whole = [len(frames) for frames in chunks]
    values = np.concatenate([contrast(frames) for frames in chunks])
    shown = np.flatnonzero(values >= BLANK)
    if len(shown) == 0:
        return [0] * len(chunks)
    last = int(shown[-1])
    # A chunk lasts a second.
    full = values[max(0, last - int(LONGEST_FADE_S * whole[0])) : last + 1].max()
    goes_blank = last < len(values) - 1
    if values[last] < _CUT * full:
        last = int(np.flatnonzero(values[: last + 1] >= _FADED_IN * full)[-1])
    elif not goes_blank:
        return whole
    edges = np.cumsum([0, *whole])
    return [int(np.clip(last + 1 - start, 0, length)) for start, length in zip(edges[:-1], whole, strict=True)]


def up_to(frames: np.ndarray, shown: int) -> np.ndarray:
    """A chunk of which only the first frames are shown plays them back and forth."""
    return frames[back_and_forth(np.arange(len(frames)), shown - 1)]


def _contrast_of(decoder: Decoder, frame: object) -> float:
    return float(contrast(decoder.to_rgb(frame, _THUMBNAIL)[None])[0])
