"""What means of a tower's channels hardly tell: how bright a key frame is, and how much detail it has."""

from itertools import pairwise

import torch
from torch import nn

# BT.601, as the codecs of most rated videos have it.
LUMA = (0.299, 0.587, 0.114)
BRIGHTNESS_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_DETAIL_QUANTILES = (0.5, 0.9, 0.99, 0.999)
_SCALES = 4
# Below a fortieth of a grey level there is nothing to see, and a logarithm needs a floor.
_FLOOR = 1e-4
NUM_FRAME_STATISTICS = len(BRIGHTNESS_QUANTILES) + (_SCALES - 1) * (2 + len(_DETAIL_QUANTILES))


def frame_statistics(key_frames: torch.Tensor) -> torch.Tensor:
    """Quantiles of brightness, and how much more detail each of four scales has than the next coarser one, half its
    size.

    Detail is by how much a pixel differs from the mean of the three by three around it; its mean, deviation and
    quantiles over the frame are compared as logarithms. Clipped and flattened brightness shows in the outer quantiles;
    a blur takes the finest detail away by orders of magnitude, which means of a tower's channels, linear in it, hardly
    show. Only the ratio between scales tells it from fog, night and other frames with little detail at any scale.

    Args:
        key_frames: (frames, 3, height, width), RGB from 0 to 1; at least 8 pixels a side.

    Returns:
        (frames, NUM_FRAME_STATISTICS) float32
    """
    frames = key_frames.float()
    luma = torch.einsum("c,nchw->nhw", frames.new_tensor(LUMA), frames)[:, None]
    brightness = _quantiles(luma, BRIGHTNESS_QUANTILES)
    scales = []
    for _ in range(_SCALES):
        detail = (luma - nn.functional.avg_pool2d(luma, 3, stride=1, padding=1, count_include_pad=False)).abs()
        deviation, mean = torch.std_mean(detail, dim=(1, 2, 3), correction=0)
        levels = torch.cat([mean[:, None], deviation[:, None], _quantiles(detail, _DETAIL_QUANTILES)], dim=1)
        scales.append((levels + _FLOOR).log())
        luma = nn.functional.avg_pool2d(luma, 2)
    return torch.cat([brightness, *(fine - coarse for fine, coarse in pairwise(scales))], dim=1)


def _quantiles(values: torch.Tensor, shares: tuple[float, ...]) -> torch.Tensor:
    """(frames, ...) -> (frames, shares); frame by frame, because `torch.quantile` refuses more than 16 million
    values."""
    ranks = values.new_tensor(shares)
    return torch.stack([torch.quantile(frame, ranks, interpolation="nearest") for frame in values.flatten(1)])
