"""What the frozen towers see in a video: computed once, second by second, then read by the language model as often as
needed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchvision.io import encode_jpeg

# `spatial_features` (chunks, tokens, channels) and, from a model with a temporal tower, `temporal_features`.
Features = dict[str, torch.Tensor]

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
        features: of all chunks, as `tower_features` gives them.
        starts_s: where each chunk starts, in seconds.
        info: what the reader knows of the video.
        key_frames: each chunk's key frame as a small JPEG, if they were kept.
    """

    path: str
    features: Features
    starts_s: list[float]
    info: Any
    key_frames: list[bytes]

    def part(self, chunks: Sequence[int]) -> Features:
        """The features of some of the chunks."""
        return {name: stream[list(chunks)] for name, stream in self.features.items()}


def extract_features(
    model: Any,
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
        model: the network with its towers, without the language-modelling head.
        chunks: each a `PreparedChunk`.
        max_chunks: as the reader was told; for `progress` alone.

    Raises:
        VideoError: from `chunks`, where the video can't be read.
    """
    features: list[Features] = []
    starts_s: list[float] = []
    key_frames: list[bytes] = []
    before: dict[str, torch.Tensor] = {}
    for chunk in chunks:
        inputs = chunk.as_batch()
        # A picture that stands still for an hour is seen once.
        frozen = before.keys() == inputs.keys() and all(torch.equal(before[name], inputs[name]) for name in inputs)
        features.append(features[-1] if frozen else tower_features(model, inputs))
        before = inputs
        starts_s.append(chunk.start_s)
        if keep_key_frames:
            key_frames.append(_small_jpeg(chunk.key_frame))
        progress("seconds", len(starts_s), min(chunk.info.num_chunks, max_chunks or chunk.info.num_chunks))
    joined = {name: torch.cat([second[name] for second in features]) for name in features[0]}
    return VideoFeatures(path, joined, starts_s, chunk.info, key_frames)


@torch.no_grad()
def tower_features(model: Any, video_inputs: dict[str, torch.Tensor]) -> Features:
    """Features of one video from the frozen towers, for a batch of one from the video processor."""
    device = model.vision_tower.device
    streams = model.encode_videos(**{name: tensor.to(device) for name, tensor in video_inputs.items()})
    names = ("spatial_features", "temporal_features")
    return {name: stream[0].cpu() for name, stream in zip(names, streams, strict=True) if stream is not None}


def _small_jpeg(frame: torch.Tensor) -> bytes:
    """(3, height, width) uint8 as a JPEG of at most so many pixels."""
    scale = min(1.0, THUMBNAIL_SIZE / max(frame.shape[1:]))
    size = [max(1, round(side * scale)) for side in frame.shape[1:]]
    small = torch.nn.functional.interpolate(frame[None], size=size, mode="bilinear", antialias=True)[0]
    return encode_jpeg(small.contiguous(), quality=85).numpy().tobytes()
