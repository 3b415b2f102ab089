"""From the probabilities of all allowed answers to what a model thinks: a number with its interval, or a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Probability that lies outside the interval, half of it on each side.
INTERVAL_TAIL = 0.10


class UndefinedScore(ValueError):
    """The answers of a model are not finite numbers. The message names the remedy."""


@dataclass
class NumberAnswer:
    """What the model thinks of each video of a batch, asked for a number.

    Args:
        value: (videos,), 0 to 100: the expected number, calibrated as the model's config says.
        std: (videos,), its standard deviation, calibrated likewise; None where the answer was generated.
        interval: (videos, 2), its central 90 %; None where the answer was generated.
        probabilities: (videos, 101), of each whole number as an answer, before calibration; None where the answer was
            generated.
    """

    value: Any
    std: Any | None = None
    interval: Any | None = None
    probabilities: Any | None = None


@dataclass
class WordAnswer:
    """What the model thinks of each video of a batch, asked for a word.

    Args:
        words: every allowed word; of ranked ones the worst first.
        value: the most probable word of each video; None where a generated answer is none of them.
        probabilities: (videos, words); None where the answer was generated.
    """

    words: Sequence[str]
    value: list[str] | list[str | None]
    probabilities: Any | None = None


@dataclass
class QualityOutput:
    """The answers to all questions that were asked about each video of a batch.

    Args:
        answers: by the question's name.
        errors: where answers were generated, what is wrong with those of each video, or None. The numbers of a video
            with an error are none (NaN), and its words None.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    errors: list[str | None] | None = None

    @property
    def score(self) -> Any:
        """(videos,), 0 to 100, higher is better."""
        return self.answers["score"].value

    @property
    def score_std(self) -> Any | None:
        """(videos,), in points."""
        return self.answers["score"].std

    @property
    def score_interval(self) -> Any | None:
        """(videos, 2), central 90 % interval of the score."""
        return self.answers["score"].interval

    @property
    def score_probabilities(self) -> Any | None:
        """(videos, 101), probability of each whole score as an answer, before calibration."""
        return self.answers["score"].probabilities

    @property
    def level(self) -> list[str] | list[str | None] | None:
        """The most probable level word of each video; None where the level was not asked for."""
        return self.answers["level"].value if "level" in self.answers else None

    @property
    def level_probabilities(self) -> Any | None:
        """(videos, levels), worst level first."""
        return self.answers["level"].probabilities if "level" in self.answers else None

    def as_dicts(self) -> list[dict[str, dict[str, Any]]]:
        """The answers about each video by the question's name, of plain numbers rounded to what is meant: a number has
        `value`, `std` and `interval` (low, high), a word `value` and `probabilities` by word. For what was read out,
        not for what was generated."""
        columns: dict[str, list[dict[str, Any]]] = {}
        for name, answer in self.answers.items():
            if isinstance(answer, NumberAnswer):
                read: Any = answer
                numbers = zip(read.value.tolist(), read.std.tolist(), read.interval.tolist(), strict=True)
                columns[name] = [
                    {
                        "value": round(value, 4),
                        "std": round(std, 4),
                        "interval": tuple(round(bound, 4) for bound in bounds),
                    }
                    for value, std, bounds in numbers
                ]
            else:
                columns[name] = [
                    {
                        "value": value,
                        "probabilities": {word: round(p, 5) for word, p in zip(answer.words, row, strict=True)},
                    }
                    for value, row in zip(answer.value, answer.probabilities.tolist(), strict=True)
                ]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def read_number(
    log_probabilities: np.ndarray, answer_map: Sequence[Sequence[float]] | None = None, interval_scale: float = 1.0
) -> NumberAnswer:
    """Moments and interval of the distribution of a number.

    Args:
        log_probabilities: (videos, 101), of the answers 0 to 100.
        answer_map: pairs (expected answer, number), both rising: the expectation of an uncertain answer shrinks towards
            the middle of the scale, and this piecewise linear map undoes it. The identity by default.
        interval_scale: factor on the standard deviation, and on the distances between the number and the quantiles of
            the answer.
    """
    # Double precision: a second moment in single precision loses the small deviations.
    probabilities = np.exp(log_probabilities.astype(np.float64))
    values = np.arange(probabilities.shape[1], dtype=np.float64)
    interval = _central_interval(probabilities)
    value = probabilities @ values
    if answer_map is not None:
        value, values, interval = (mapped(x, answer_map) for x in (value, values, interval))
    variance = (probabilities * (values - value[:, None]) ** 2).sum(1)
    interval = (value[:, None] + interval_scale * (interval - value[:, None])).clip(0, probabilities.shape[1] - 1)
    return NumberAnswer(
        value=value.astype(np.float32),
        std=(interval_scale * np.sqrt(variance)).astype(np.float32),
        interval=interval.astype(np.float32),
        probabilities=probabilities.astype(np.float32),
    )


def read_words(log_probabilities: np.ndarray, words: Sequence[str], temperature: float = 1.0) -> WordAnswer:
    """The most probable word and the probabilities of all.

    Args:
        log_probabilities: (videos, words).
        temperature: divides the log-probabilities, so that above 1 no word is as sure.
    """
    probabilities = softmax(log_probabilities / temperature)
    return WordAnswer(words, [words[index] for index in probabilities.argmax(1).tolist()], probabilities)


def read_answers(
    questions: Sequence[Any],
    log_probabilities: Sequence[Any],
    calibration: Mapping[str, Mapping[str, Any]] | None = None,
    number: Callable[..., NumberAnswer] = read_number,
    words: Callable[..., WordAnswer] = read_words,
) -> QualityOutput:
    """What a model thinks, from the log-probabilities of each question's answers, (videos, answers).

    Args:
        questions: with `name`, `kind` and `answers`.
        calibration: keywords of each question's read-out, by its name.
        number, words: `read_number` and `read_words`, or the like for tensors.
    """
    found: dict[str, NumberAnswer | WordAnswer] = {}
    for question, read in zip(questions, log_probabilities, strict=True):
        stated = (calibration or {}).get(question.name, {})
        if question.kind == "number":
            found[question.name] = number(read, **stated)
        else:
            found[question.name] = words(read, question.answers, **stated)
    return QualityOutput(found)


def calibration_by_question(stated: dict[str, Any] | None) -> dict[str, dict[str, Any]] | None:
    """The keywords of each question's read-out, also where a checkpoint states them that knew two questions.

    Raises:
        ValueError: an entry is unknown.
    """
    if not stated or all(isinstance(value, dict) for value in stated.values()):
        return stated
    homes = {
        "score_map": ("score", "answer_map"),
        "interval_scale": ("score", "interval_scale"),
        "level_temperature": ("level", "temperature"),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, value in stated.items():
        if name not in homes:
            raise ValueError(f"calibration has no entry {name!r}: give the entries of each question by its name.")
        question, keyword = homes[name]
        found.setdefault(question, {})[keyword] = value
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """(..., classes): probabilities."""
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., classes): logarithms of probabilities."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def mapped(x: np.ndarray, pairs: Sequence[Sequence[float]]) -> np.ndarray:
    """The piecewise linear map through `pairs`, constant beyond the first and the last."""
    xs, ys = np.array(pairs, np.float64).T
    return np.interp(x, xs, ys)


def _central_interval(probabilities: np.ndarray) -> np.ndarray:
    """The two quantiles that leave half of `INTERVAL_TAIL` outside, each whole score spread evenly over its point.

    Spreading makes the interval a continuous function of the probabilities.
    """
    cumulated = probabilities.cumsum(1)
    last = probabilities.shape[1] - 1
    bounds = []
    for quantile in (INTERVAL_TAIL / 2, 1 - INTERVAL_TAIL / 2):
        score = (cumulated < quantile).sum(1, keepdims=True).clip(max=last)
        inside = np.take_along_axis(probabilities, score, 1).clip(min=1e-12)
        fraction = ((quantile - np.take_along_axis(cumulated, score, 1)) / inside + 1).clip(0, 1)
        bounds.append((score + fraction - 0.5).clip(0, last))
    return np.concatenate(bounds, axis=1)
