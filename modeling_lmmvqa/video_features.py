"""What the frozen towers see in a video: computed once, second by second, then read by the language model as often as
needed. Without torch, because the towers may be graphs."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

# Of one second, in the arrays of whatever computes them: `spatial_features` (1, tokens, channels) and, from a model
# with a temporal tower, `temporal_features`.
SecondFeatures = dict[str, Any]

# Longer side of a key frame that is kept, in pixels.
THUMBNAIL_SIZE = 360

# Called with what is counted ("seconds" that the towers see, then "moments" that are assessed), how many are done, and
# of how many.
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """For those who don't watch."""


@dataclass
class VideoFeatures:
    """The features of the seconds of one video.

    Args:
        path: how results call the video.
        seconds: the features of each.
        starts_s: where each starts, in seconds.
        info: what the reader knows of the video.
        key_frames: each second's key frame as a small JPEG, if they were kept.
    """

    path: str
    seconds: list[SecondFeatures]
    starts_s: list[float]
    info: Any
    key_frames: list[bytes]

    def part(self, seconds: Sequence[int]) -> list[SecondFeatures]:
        """The features of some of the seconds."""
        return [self.seconds[second] for second in seconds]


def extract_features(
    encode_each: Callable[[Iterator[dict[str, np.ndarray]]], Iterable[SecondFeatures]],
    path: str,
    chunks: Iterable[Any],
    *,
    max_chunks: int | None = None,
    keep_key_frames: bool = False,
    progress: Progress = no_progress,
) -> VideoFeatures:
    """Features of a video, second by second as `video_processor.stream` or a reading process gives it. Only features
    (and small JPEGs) are kept, so memory does not grow with what a frame takes.

    Args:
        encode_each: what the towers make of the arrays of each second.
        chunks: each a `PreparedChunk`.
        max_chunks: as the reader was told; for `progress` alone.

    Raises:
        VideoError: from `chunks`, where the video can't be read.
    """
    starts_s: list[float] = []
    key_frames: list[bytes] = []
    # For each second, which of those that the towers saw looks like it.
    seen_as: list[int] = []
    info = None

    def distinct() -> Iterator[dict[str, np.ndarray]]:
        nonlocal info
        before: dict[str, np.ndarray] = {}
        for chunk in chunks:
            inputs, info = chunk.as_batch(), chunk.info
            # A picture that stands still for an hour is seen once.
            frozen = before.keys() == inputs.keys() and all(np.array_equal(before[key], inputs[key]) for key in inputs)
            seen_as.append(seen_as[-1] + (not frozen) if seen_as else 0)
            if not frozen:
                yield inputs
            before = inputs
            starts_s.append(chunk.start_s)
            if keep_key_frames:
                key_frames.append(_small_jpeg(chunk.key_frame))
            progress("seconds", len(starts_s), min(info.num_chunks, max_chunks or info.num_chunks))

    seen = list(encode_each(distinct()))
    return VideoFeatures(path, [seen[index] for index in seen_as], starts_s, info, key_frames)


def _small_jpeg(frame: np.ndarray) -> bytes:
    """(3, height, width) uint8 as a JPEG of at most so many pixels."""
    picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()
