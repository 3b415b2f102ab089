"""What every decoder of this reader offers, and what they share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .video_files import VideoError

logger = logging.getLogger(__name__)

# A longer hole between two frames is a broken clock (a recording that was joined), not a freeze.
LONGEST_FREEZE_S = 60.0


class Decoder(Protocol):
    """A video in one of the libraries: facts known in advance, then frames in the order of display."""

    name: str
    backend: str
    width: int  # as displayed: after rotation, with square pixels
    height: int
    num_frames: int
    rate: float | None  # frames per second as tagged
    timestamps: np.ndarray | None  # int64 ticks, ascending, one for each frame; None without a usable clock
    tick: Fraction  # seconds
    is_picture: bool  # a photograph: it has no length
    warnings: list[str]  # what a person should know of how this file is read; may grow while it is decoded

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        """Yield (position, frame), positions ascending. What cannot be decoded is skipped; so may be what lies between
        the positions that are needed (ascending, too), but never the last frame before one of them."""

    def first_frame(self) -> Any:
        """The first frame of all, decoded already."""

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        """Convert a frame to uint8 BT.709 RGB (3, height, width), as displayed, scaled to `size` if given."""


def warn(decoder: Any, warning: str) -> None:
    """Keep a sentence for the row of the video, and tell whoever watches the log."""
    if warning not in decoder.warnings:
        decoder.warnings.append(warning)
        logger.warning("%s: %s", decoder.name, warning)


def resized(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Turn uint8 (height, width, 3) into (3, height, width); resize without crop, bilinear and antialiased."""
    pixels = np.ascontiguousarray(pixels)
    if size is not None and size != pixels.shape[:2]:
        height, width = size
        pixels = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return pixels.transpose(2, 0, 1)


def without_holes(timestamps: np.ndarray, tick: Fraction) -> np.ndarray | None:
    longest = np.diff(timestamps).max(initial=0) * float(tick)
    return timestamps if longest <= LONGEST_FREEZE_S else None


def no_frame(name: str) -> VideoError:
    return VideoError(f"{name} holds no frame that can be decoded. Download or export it again.")


def too_large(name: str) -> VideoError:
    return VideoError(
        f"{name} needs more memory than this program may take: it is damaged, or too large. Download it again, scale "
        "it down, or raise the memory limit (--memory-limit)."
    )
