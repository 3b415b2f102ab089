"""Undoes the shrinkage of a model's scores, and makes its interval hold and its levels as sure as they are right, on
videos that it did not learn from.

The expectation of an uncertain answer lies nearer to the middle of the scale than the rating does. The map from
expected answers to ratings is found by matching quantiles, so that scores are spread as ratings are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import minimize_scalar

from modeling_lmmvqa.answers import INTERVAL_TAIL
from modeling_lmmvqa.quality_read_out import read_number
from processing.errors import InputError

# Quantiles of the answers and of the ratings that are matched. The extremes of a few hundred videos are chance.
QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
# In points: equal ratings, or equal answers, would make the map flat or a step, and it must stay a ranking.
_RISE = 0.1


def fit_calibration(probabilities: torch.Tensor, ratings: torch.Tensor) -> dict[str, Any]:
    """Fit on videos that the model did not learn from.

    Args:
        probabilities: (videos, 101), of each whole score as an answer.
        ratings: (videos,), 0 to 100.

    Returns:
        Keywords of `read_number`: "answer_map" and "interval_scale", with which as many of the ratings lie inside their
        interval as it says.

    Raises:
        ValueError: fewer videos than quantiles, or ratings that are all the same.
    """
    if len(ratings) < len(QUANTILES) or ratings.min() == ratings.max():
        raise InputError(
            f"{len(ratings)} videos with ratings from {ratings.min():g} to {ratings.max():g} can't calibrate a model: "
            f"rate at least {len(QUANTILES)}."
        )
    ratings, probabilities = ratings.double(), probabilities.double()
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    expected = probabilities @ torch.arange(probabilities.shape[1], dtype=torch.float64)
    # Beyond the outer quantiles the map runs on to the ends of the scale, so that no two answers get one score.
    pairs = [[0.0, 0.0]]
    for answer, rating in zip(
        torch.quantile(expected, levels).tolist(), torch.quantile(ratings, levels).tolist(), strict=True
    ):
        if answer > pairs[-1][0] + _RISE:
            pairs.append([round(answer, 3), round(min(max(rating, pairs[-1][1] + _RISE), 100 - _RISE), 3)])
    pairs.append([100.0, 100.0])
    pairs = [pair for pair, after in pairwise(pairs) if pair[1] < after[1]] + pairs[-1:]
    read: Any = read_number(probabilities.log(), answer_map=pairs)
    below, above = (read.interval.double() - read.value.double()[:, None]).abs().clamp(min=1e-3).T
    error = ratings - read.value.double()
    ratio = error.abs() / torch.where(error < 0, below, above)
    return {"answer_map": pairs, "interval_scale": round(torch.quantile(ratio, 1 - INTERVAL_TAIL).item(), 4)}


def fit_temperature(probabilities: torch.Tensor, places: torch.Tensor) -> float:
    """The temperature (Guo et al., "On calibration of modern neural networks") under which the right words are most
    probable.

    Args:
        probabilities: (videos, words), of each word, at the temperature 1.
        places: (videos,), of the right word.
    """
    log_probabilities = probabilities.double().clamp(min=1e-12).log()

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(log_probabilities / math.exp(log_temperature), places).item()

    return round(math.exp(minimize_scalar(loss, bounds=(math.log(0.2), math.log(20)), method="bounded").x), 4)


def calibrate_checkpoint(
    folder: Path,
    ratings: Sequence[float],
    levels: Sequence[str],
    videos: Sequence[Any],
    cache: Path | None = None,
    labels: Sequence[Mapping[str, float | str]] | None = None,
) -> dict[str, Any]:
    """Calibrate a full checkpoint by rated videos, and write that into its config.json.

    Args:
        folder: as `lmmvqa merge` or `compose` wrote it.
        ratings, levels: of `videos`, the ratings from 0 to 100.
        labels: of `videos`, answers to further questions by name; of each question, the videos that have one count.
        cache: folder of features that `lmmvqa train` or `features` encoded with the same towers.

    Returns:
        What it wrote: `calibration` of `LmmVqaConfig`.

    Raises:
        ValueError: the videos are too few, or the answers to one of them are no numbers.
        VideoError: one of them can't be read.
    """
    from lmmvqa.checkpoints.loading import load_checkpoint
    from lmmvqa.training.feature_cache import FeatureCache
    from modeling_lmmvqa.answers import UndefinedScore
    from modeling_lmmvqa.feature_batches import assessment_inputs
    from modeling_lmmvqa.tower_features import tower_features

    model, processor = load_checkpoint(str(folder))
    features = FeatureCache(cache, model, processor) if cache else None
    known = [
        {"score": rating, "level": level, **further}
        for rating, level, further in zip(ratings, levels, labels or [{}] * len(videos), strict=True)
    ]
    taught = {question.name for question in processor.questions}
    asked = [name for name in dict.fromkeys(name for of_video in known for name in of_video) if name in taught]
    said: dict[str, list[torch.Tensor]] = {name: [] for name in asked}
    # Fitted to what the decoder says, not on top of a former temperature.
    model.config.calibration = None
    for video in videos:
        if features is None:
            encoded = tower_features(model.base_model, processor.video_processor(video, return_tensors="pt"))
        else:
            key = features.key(video)
            for _, error in features.fill([(key, video)]):
                if error:
                    raise InputError(error)
            encoded = features.load(key)
        try:
            answers = model.assess(**assessment_inputs(processor, [encoded], asked).to(model.device)).answers
        except UndefinedScore as error:
            raise InputError(f"{video}: {error}") from error
        for name in asked:
            said[name].append(answers[name].probabilities.cpu())
    fitted: dict[str, dict[str, Any]] = {}
    for name in asked:
        question = processor.question(name)
        labelled = [place for place, of_video in enumerate(known) if name in of_video]
        probabilities = torch.cat([said[name][place] for place in labelled])
        right: list[Any] = [known[place][name] for place in labelled]
        if question.kind == "number":
            fitted[name] = fit_calibration(probabilities, torch.tensor(right))
        else:
            places = torch.tensor([question.answers.index(question.words(label)[0]) for label in right])
            fitted[name] = {"temperature": fit_temperature(probabilities, places)}
    config = folder / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"calibration": fitted}, indent=2) + "\n",
        encoding="utf-8",
    )
    return fitted
