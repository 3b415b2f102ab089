"""One scale for photographs that people rated and for distorted copies that no one rated: what people would say.

The opinion of a copy is the opinion of its source, as a regression on rated pictures sees it, times what the faults
leave of it. VMAF says what is left. Where it misjudges (noise, banding, brightness, flicker), it is averaged with
PSNR-HVS, put on the scale of VMAF by the copies of which both are known. Within a content the order of the copies is
that of this fidelity.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from sklearn.isotonic import IsotonicRegression

from dataset_builders import register
from lmmvqa.checkpoints.assembling import compose_default
from lmmvqa.default_making.tower_training import copy_rows
from lmmvqa.default_making.views import split_of
from lmmvqa.training.feature_cache import FeatureCache
from processing.errors import InputError

# What is left of the opinion of a source at a VMAF of 0: people rate the worst copy above nothing.
_LEFT_AT_WORST = 0.15
_RIDGE, _LIMIT = 3000.0, 2.0
# Opinions of sources, of 1: beyond them the regression only extrapolates.
_LOWEST, _HIGHEST = 0.05, 0.97
# A fault that leaves more than this share is not what a viewer would name, nor would he call the copy faultless.
_UNNAMED = 0.95
_MISJUDGED = ("noise", "banding", "exposure", "flicker")
_COLUMNS = ("video", "mos", "split", "content", "family", "flaw")


@dataclass(frozen=True)
class Rated:
    """Something with a rating and the mean of its spatial features (channels,).

    Args:
        opinion: of people, 0 to 100; of a copy its VMAF.
        flaw: the label of a copy; of a picture nobody knows it.
    """

    video: str
    opinion: float
    split: str
    content: str
    family: str
    features: np.ndarray
    distortion: str = ""
    flaw: str = ""
    psnr_hvs: float | None = None


def fidelity(copies: Sequence[Rated]) -> np.ndarray:
    """(copies,) from 0 to 1: what the faults of each copy leave.

    Raises:
        ValueError: copies of a family that VMAF misjudges have a PSNR-HVS, and no copy of a codec has one.
    """
    vmaf = np.array([copy.opinion for copy in copies])
    judged = [(copy.psnr_hvs, copy.opinion) for copy in copies if copy.family == "codec" and copy.psnr_hvs is not None]
    blind = [index for index, copy in enumerate(copies) if copy.family in _MISJUDGED and copy.psnr_hvs is not None]
    if blind:
        if not judged:
            raise InputError("No copy of a codec has a PSNR-HVS, so it can't be put on the scale of VMAF: make one.")
        scale = IsotonicRegression(out_of_bounds="clip").fit(*map(np.array, zip(*judged, strict=True)))
        vmaf[blind] = (vmaf[blind] + scale.predict([copies[index].psnr_hvs for index in blind])) / 2
    return np.clip(vmaf, 0, 100) / 100


def opinions(pictures: Sequence[Rated], copies: Sequence[Rated]) -> dict[str, float]:
    """The opinion, 0 to 100, of each copy, by its path; those of a content without a near-lossless copy are left out.

    Args:
        pictures: rated by people. Those of the split "train" are learned from; one that is the source of a content (by
            its name) tells its opinion itself.
    """
    train = [picture for picture in pictures if picture.split == "train"]
    predict = _ridge(
        np.stack([picture.features for picture in train]), np.array([picture.opinion for picture in train]) / 100
    )
    known = {picture.content: picture.opinion / 100 for picture in train}
    sources = {
        copy.content: known.get(copy.content, float(np.clip(predict(copy.features), _LOWEST, _HIGHEST)))
        for copy in copies
        if copy.distortion == "near_lossless"
    }
    return {
        copy.video: 100 * sources[copy.content] * (_LEFT_AT_WORST + (1 - _LEFT_AT_WORST) * left)
        for copy, left in zip(copies, fidelity(copies), strict=True)
        if copy.content in sources
    }


def write_ratings(path: Path, pictures: Sequence[Rated], copies: Sequence[Rated]) -> None:
    """A label file of `rated_videos` with both, on one scale."""
    of_copies = opinions(pictures, copies)
    flaws = {
        copy.video: copy.flaw
        for copy, left in zip(copies, fidelity(copies), strict=True)
        if copy.distortion == "near_lossless" or left <= _UNNAMED
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for each in [*pictures, *(copy for copy in copies if copy.video in of_copies)]:
            opinion = of_copies.get(each.video, each.opinion)
            groups = (each.split, each.content, each.family)
            # A label file's own paths count from its folder, ours from where the command runs.
            writer.writerow([os.path.abspath(each.video), f"{opinion:.3f}", *groups, flaws.get(each.video, "")])


def rate_together(
    copies: Path, rated: Path, views: Path, output: Path, feature_cache: Path, *, workers: int = 1
) -> Path:
    """The label file, in `output`, that the default checkpoint learns from: the train part of BIQ2021, views of some of
    it, and graded copies.

    Args:
        copies: ratings.csv of the copies.
        views: ratings.csv of the views.
        rated: folder of BIQ2021. A tenth of its train part gets the split "validation"; the test part is left out.
        feature_cache: as `lmmvqa train` takes it; what is encoded here is not encoded there.
        workers: pictures and copies read at once.
    """
    model, processor = compose_default()
    cache = FeatureCache(feature_cache, model, processor)
    register()
    pictures = [
        {
            "video": row["video"]["path"],
            "mos": row["score"],
            "split": split_of(row["id"]),
            "content": row["id"],
            "family": "photograph",
        }
        for row in datasets.load_dataset("biq2021", "score", data_dir=str(rated), split="train")
    ]
    pictures += copy_rows(views)
    rows = [*pictures, *copy_rows(copies)]
    keys = cache.keys([row["video"] for row in rows], workers)
    for _, error in cache.fill(zip(keys, [row["video"] for row in rows], strict=True), workers):
        if error is not None:
            raise InputError(error)
    everything = [
        Rated(
            video=str(row["video"]),
            opinion=float(row["mos"]),
            split=row["split"],
            content=row["content"],
            family=row["family"],
            features=cache.load(key)["spatial_features"].mean((0, 1)).numpy(),
            distortion=row.get("distortion", ""),
            flaw=row.get("flaw", ""),
            psnr_hvs=float(row["second_rating"]) if row.get("second_rating_kind") == "psnr_hvs" else None,
        )
        for key, row in zip(keys, rows, strict=True)
    ]
    output.mkdir(parents=True, exist_ok=True)
    ratings = output / "ratings.csv"
    write_ratings(ratings, everything[: len(pictures)], everything[len(pictures) :])
    return ratings


def _ridge(features: np.ndarray, opinions: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, deviation = features.mean(0), features.std(0) + 1e-6

    def standardized(rows: np.ndarray) -> np.ndarray:
        return np.clip((rows - mean) / deviation, -_LIMIT, _LIMIT)

    rows, middle = standardized(features), opinions.mean()
    # Of the two systems of the same solution, the smaller.
    if rows.shape[0] > rows.shape[1]:
        weights = np.linalg.solve(rows.T @ rows + _RIDGE * np.eye(rows.shape[1]), rows.T @ (opinions - middle))
    else:
        weights = rows.T @ np.linalg.solve(rows @ rows.T + _RIDGE * np.eye(rows.shape[0]), opinions - middle)
    return lambda picture: standardized(picture) @ weights + middle
