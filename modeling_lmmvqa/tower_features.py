"""What the frozen towers see in a video."""

from typing import Any

import torch

# `spatial_features` (chunks, tokens, channels) and, from a model with a temporal tower, `temporal_features`.
Features = dict[str, torch.Tensor]


@torch.no_grad()
def tower_features(model: Any, video_inputs: dict[str, torch.Tensor]) -> Features:
    """Features of one video from the frozen towers, for a batch of one from the video processor."""
    device = model.vision_tower.device
    streams = model.encode_videos(**{name: tensor.to(device) for name, tensor in video_inputs.items()})
    names = ("spatial_features", "temporal_features")
    return {name: stream[0].cpu() for name, stream in zip(names, streams, strict=True) if stream is not None}
