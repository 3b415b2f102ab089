"""High dynamic range and wide colours to BT.709, as an SDR screen shows them.

PQ (SMPTE ST 2084) and HLG (ARIB STD-B67, on a screen of 1000 nits) become light; 203 nits, the reference white of
BT.2408, become the white of BT.709. The primaries are those of BT.709 from then on. Light up to 95 % of white stays as
it is; what is brighter is bent smoothly so that 1000 nits become white. Each of the three colours is bent by itself, so
that a picture within the range of BT.709 stays as it is, also beside a colour that is brighter than white. The signal
of BT.709 is made for a screen of gamma 2.4 (BT.1886).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

# As FFmpeg numbers them (ITU-T H.273).
UNSPECIFIED = 2
PQ, HLG = 16, 18
_BT2020, _P3_DCI, _P3_DISPLAY = 9, 11, 12
# Transfers that an SDR screen shows as they are, and those that nobody has stated.
_SDR_TRANSFERS = frozenset({0, 1, UNSPECIFIED, 4, 5, 6, 7, 11, 12, 13, 14, 15})
# Of streams that may have no picture but for screens of Dolby Vision.
_DOLBY_VISION = frozenset({"dvh1", "dvhe", "dva1", "dvav", "dav1"})
REFERENCE_WHITE, PEAK = 203.0, 1000.0  # nits
_KNEE = 0.95  # of reference white
_GAMMA = 2.4
_LEVELS = 4096
# Rows that are converted at once: memory stays small whatever the size of the frame.
_ROWS = 64
# Light of other primaries to that of BT.709 (ITU-R BT.2087, SMPTE EG 432-1).
_TO_BT709 = {
    _BT2020: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    _P3_DCI: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
    _P3_DISPLAY: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
# Of the blur by which a palette's dots become the colours that they stand for, in pixels.
DITHER_RADIUS = 2.0
# Luminance of BT.2020, by which HLG is brightened for its screen.
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
_HLG_SCREEN_GAMMA = 1.2


def needs_mapping(transfer: int, primaries: int) -> bool:
    """Whether frames of this transfer and these primaries are not what a BT.709 screen shows."""
    return transfer in (PQ, HLG) or primaries in _TO_BT709


def likely_primaries(transfer: int, primaries: int) -> int:
    """HDR that does not state its primaries has those of BT.2020."""
    return _BT2020 if transfer in (PQ, HLG) and primaries == UNSPECIFIED else primaries


def doubt_about(transfer: int, primaries: int, codec_tag: str = "") -> str | None:
    """What a person should know where the tags don't say how a video looks."""
    if codec_tag in _DOLBY_VISION and transfer == UNSPECIFIED:
        return "It is Dolby Vision without a picture for other screens: its colours are not known here."
    if transfer not in _SDR_TRANSFERS and transfer not in (PQ, HLG):
        return f"Its transfer characteristic ({transfer} of ITU-T H.273) is not known here: it is read as BT.709."
    if transfer == UNSPECIFIED and primaries == _BT2020:
        return "It has the colours of BT.2020 and does not say whether it is HDR: it is read as standard dynamic range."
    return None


def to_bt709(signal: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """(height, width, 3) uint16 RGB signal to uint8 RGB of BT.709."""
    light_of = _light(transfer)
    matrix = np.array(_TO_BT709.get(primaries, np.eye(3)), np.float32)
    pixels = np.empty(signal.shape, np.uint8)
    for top in range(0, len(signal), _ROWS):
        light = light_of[signal[top : top + _ROWS] >> 4]
        if transfer == HLG:
            luminance = np.maximum(light @ _LUMINANCE, 1e-6)[..., None]
            light *= luminance ** np.float32(_HLG_SCREEN_GAMMA - 1) * np.float32(PEAK / REFERENCE_WHITE)
        light = np.maximum(light @ matrix.T, 0)
        if transfer in (PQ, HLG):
            light *= _bent(light)
        # By the root, near which the signal is even: the dark would get too few levels otherwise.
        levels = np.sqrt(np.minimum(light, 1)) * np.float32(_LEVELS - 1) + np.float32(0.5)
        pixels[top : top + _ROWS] = _codes()[levels.astype(np.uint16)]
    return pixels


def from_limited_range(pixels: np.ndarray) -> np.ndarray:
    """uint8 of which 16 is black and 235 is white, to 0 and 255."""
    stretched = np.rint((np.arange(256) - 16) * (255 / 219)).clip(0, 255).astype(np.uint8)
    return stretched[pixels]


def on_white(pixels: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3), white where it is transparent: what hides there is not shown."""
    if opacity.min() == 255:
        return pixels
    share = opacity[..., None].astype(np.uint16)
    return ((pixels * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def without_dither(pixels: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) of a palette's colours as the eye mixes them: dithering is no detail."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(DITHER_RADIUS)))


@lru_cache(maxsize=4)
def _light(transfer: int) -> np.ndarray:
    """(4096,) float32: the light of each level of the signal, 1 at reference white; scene light from 0 to 1 of HLG."""
    # The middle of each step; swscale writes white as 255 of 256.
    signal = np.minimum((np.arange(_LEVELS) + 0.5) * 16 / 65280, 1)
    signal[0] = 0
    if transfer == PQ:
        root = signal ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light = nits / REFERENCE_WHITE
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = signal**_GAMMA
    return light.astype(np.float32)


@lru_cache(maxsize=1)
def _codes() -> np.ndarray:
    """(4096,) uint8: the signal of BT.709 for each root of light."""
    return np.rint(255 * np.linspace(0, 1, _LEVELS) ** (2 / _GAMMA)).astype(np.uint8)


def _bent(light: np.ndarray) -> np.ndarray:
    """By how much light of this brightness is dimmed."""
    above = np.maximum(light - np.float32(_KNEE), 0) / np.float32(1 - _KNEE)
    most = (PEAK / REFERENCE_WHITE - _KNEE) / (1 - _KNEE)
    bent = above * (1 + above / np.float32(most**2)) / (1 + above)
    return np.where(above > 0, (_KNEE + (1 - _KNEE) * bent) / np.maximum(light, 1e-6), 1).astype(np.float32)
