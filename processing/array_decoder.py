"""Frames that are decoded already, as an array or a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from .decoding import resized
from .video_files import VideoError

if TYPE_CHECKING:
    import torch


class ArrayDecoder:
    """Frames that are decoded already."""

    name = "<array>"
    backend = "array"
    timestamps = None
    tick = Fraction(1)
    is_picture = False

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
        self.warnings: list[str] = []

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        yield from enumerate(self._video)

    def first_frame(self) -> np.ndarray:
        return self._video[0]

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        # A copy: the chunk must not change when the caller changes the array.
        return resized(frame, size).copy()
