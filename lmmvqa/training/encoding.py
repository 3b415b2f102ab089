"""Rows of videos to rows of features: every video through the frozen towers once, by all processes together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from rich.progress import track

from lmmvqa.checkpoints.training_record import video_digests
from lmmvqa.console import messages, pictures_are_expected
from lmmvqa.training.collators import AnswerCollator
from lmmvqa.training.feature_cache import PROBED, FeatureCache
from lmmvqa.training.training_data import TrainingData
from modeling_lmmvqa.feature_batches import stack_features
from modeling_lmmvqa.tower_features import tower_features
from processing.errors import InputError

logger = logging.getLogger(__name__)

# Videos on which the standardisers are measured at most.
_MEASURED = 2000
# Deviations beyond which a feature is cut.
_LIMIT = 2.0


def add_digests(data: TrainingData, workers: int) -> TrainingData:
    """The rows with a column `sha256` of their videos: by it features are found, and by it a checkpoint remembers what
    it learned from. The work is shared out among the processes."""

    def with_digests(rows: Dataset) -> Dataset:
        indices = list(range(len(rows)))
        digests = _shared(indices, lambda share: video_digests((rows[index]["video"] for index in share), workers))
        return rows.add_column("sha256", digests)

    return data.map(with_digests)


def encode(data: TrainingData, cache: FeatureCache, workers: int) -> tuple[TrainingData, dict[str, str]]:
    """Fill the cache with the videos of all rows, shared out among the processes.

    Args:
        workers: videos read at once in each process.

    Returns:
        The rows with the columns `features` in the place of `video` and `sha256`, those that can't be encoded left out;
        and why, by the path of the video.

    Raises:
        ValueError: no training video could be encoded.
        OSError: the disk has no room for the features.
    """

    def with_keys(rows: Dataset) -> Dataset:
        return rows.add_column("features", [cache.entry_name(digest) for digest in rows["sha256"]])

    data = add_digests(data, workers).map(with_keys)
    places = {key: (rows, index) for rows in data.splits() for index, key in enumerate(rows["features"])}

    def video(key: str) -> Any:
        rows, index = places[key]
        return rows[index]["video"]

    def fill(keys: list[str]) -> list[tuple[str, str]]:
        results = cache.fill(((key, video(key)) for key in keys), workers)
        shown = messages.is_terminal
        watched = track(results, "Encoding videos", len(keys), console=messages, disable=not shown, transient=True)
        return [(key, error) for key, error in watched if error is not None]

    missing = cache.missing(places)
    with pictures_are_expected():
        if missing:
            cache.check_space([video(key) for key in missing[:: 1 + len(missing) // PROBED]], len(missing))
        errors = dict(_shared(missing, fill))
    failures = {video(key)["path"]: error for key, error in errors.items()}
    for path, error in failures.items():
        logger.warning("Left out: %s", error if path in error else f"{path}: {error}")

    def encoded(rows: Dataset) -> Dataset:
        return rows.select([index for index, key in enumerate(rows["features"]) if key not in errors]).remove_columns(
            "video"
        )

    data = data.map(encoded)
    if not len(data.train):
        raise InputError(f"None of the training videos can be encoded; the first error: {next(iter(errors.values()))}")
    return data, failures


def _shared(items: list[Any], work: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """`work` on a share of the items in each process, and the results of all."""
    state = PartialState()
    with state.split_between_processes(items) as share:
        results = work(share) if share else []
    return gather_object(results) if state.num_processes > 1 else results


def fit_standardizers(model: Any, collator: AnswerCollator, data: TrainingData) -> None:
    """Measure the statistics of what the projectors see on the training set (on at most 2,000 of its videos, evenly
    spread)."""
    rows = data.train
    column = "features" if collator.cache is not None else "id"
    firsts = list({name: index for index, name in reversed(list(enumerate(rows[column])))}.values())
    firsts = sorted(firsts)[:: 1 + len(firsts) // _MEASURED]
    streams: dict[str, list[torch.Tensor]] = {}
    for index in firsts:
        inputs = collator.video_inputs([rows[index]])
        if collator.cache is None:
            inputs = stack_features([tower_features(model.model, inputs)])
        for name, features in model.model.projector_inputs(**inputs).items():
            streams.setdefault(name, []).append(features.flatten(0, 1))
    few = model.config.num_frame_statistics
    for name, features in streams.items():
        # Those of its frame are the last channels of a spatial feature, and of every feature where streams are joined.
        has_few = name == "spatial_projector" or model.config.is_joint
        standardizer = getattr(model.model, name).standardizer
        standardizer.fit(torch.cat(features), few=few if has_few else 0, limit=_LIMIT)
