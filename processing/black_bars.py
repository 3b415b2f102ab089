"""Black bars around the picture: they belong to the screen that a video was made for, and are not judged.

Bars are black in each of several frames, lie on both sides, are as wide on the one as on the other, and end at a
straight edge: along most of it the picture is brighter in at least one frame. Dark scenes, vignettes and titles on
black have no such edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# As bright as codecs and wrong ranges leave what is black, of 255; and the share of a line that may be brighter.
_BLACK, _STRAY = 24, 0.02
# Narrower bars are not worth a cut: in pixels, and of a side. Both bars are alike up to this.
_NARROWEST, _NARROWEST_SHARE = 4, 0.02
# The share of the edge along which the picture is brighter.
_EDGE = 0.5
# What codecs mix of picture and bar goes with the bar, in pixels.
_MARGIN = 2
# Frames by which bars are known.
NUM_FRAMES = 6

# Rows and columns that are kept.
Window = tuple[slice, slice]


def may_have_bars(frame: np.ndarray) -> bool:
    """Whether uint8 (3, height, width) ends in black lines on two opposite sides."""
    lines = (frame[:, 0], frame[:, -1]), (frame[:, :, 0], frame[:, :, -1])
    return any(all(_share_lit(line.max(axis=0)) <= _STRAY for line in pair) for pair in lines)


def picture_within(frames: Sequence[np.ndarray], smallest_side: int) -> Window | None:
    """Where the picture lies in frames of one video, uint8 (3, height, width); None where there are no bars.

    Args:
        smallest_side: in pixels, of a picture that is worth to be cut out.
    """
    if len({frame.shape for frame in frames}) > 1:
        return None
    lit = np.stack([frame.max(axis=0) > _BLACK for frame in frames])
    height, width = lit.shape[1:]
    # Beside a pillar lines are lit less far, and the other way round.
    rows = _between_bars(lit.mean(axis=2))
    columns = _between_bars(lit[:, rows].mean(axis=1))
    shares = lit[:, rows, columns]
    if not _has_edges(shares.mean(axis=2), rows, height):
        rows = slice(0, height)
    if not _has_edges(shares.mean(axis=1), columns, width):
        columns = slice(0, width)
    kept = (rows.stop - rows.start, columns.stop - columns.start)
    return (rows, columns) if kept != (height, width) and min(kept) >= smallest_side else None


def _share_lit(brightness: np.ndarray) -> float:
    return float((brightness > _BLACK).mean())


def _between_bars(shares: np.ndarray) -> slice:
    """Lines between two bars, from (frames, lines): how much of each line is lit."""
    count = shares.shape[1]
    lines = np.flatnonzero((shares > _STRAY).any(axis=0))
    if len(lines) == 0:
        return slice(0, count)
    before, after = int(lines[0]), count - 1 - int(lines[-1])
    narrowest = max(_NARROWEST, _NARROWEST_SHARE * count)
    if min(before, after) < narrowest or abs(before - after) > narrowest or before + after + 2 * _MARGIN >= count:
        return slice(0, count)
    return slice(before + _MARGIN, count - after - _MARGIN)


def _has_edges(shares: np.ndarray, kept: slice, count: int) -> bool:
    """Whether the picture is bright along both ends of the lines that are kept, from (frames, lines kept)."""
    return (kept.start, kept.stop) != (0, count) and bool(min(shares[:, 0].max(), shares[:, -1].max()) > _EDGE)
