"""Agreement of predicted with rated video quality, as the field reports it, with intervals. Needs numpy, scipy,
evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, stdtrit

# The logistic function has four parameters; fewer pairs than one more would be met exactly.
FEWEST_FOR_FIT = 5
CONFIDENCE = 0.95
# A correlation of fewer pairs is chance to a large part: at 30, the 95 % interval of 0.5 goes from .17 to .73.
FEW_PAIRS = 30
STATISTICS = ("srcc", "krcc", "plcc", "rmse", "plcc_fitted", "rmse_fitted")
_FIT_STEPS = 2000
# An interval needs a value in this share of the resamples.
_SHARE_WITH_VALUE = 0.8
# Bounds the memory of a bootstrap, whatever the number of pairs.
_NUMBERS_AT_ONCE = 1_000_000

_DESCRIPTION = """\
Rank and linear correlation of predicted with rated quality (SRCC, KRCC, PLCC), PLCC and RMSE after the four-parameter
logistic fit that the field uses, each with a bootstrap interval; and the accuracy of quality levels.
"""

_INPUTS = """
Args:
    predictions: predicted quality, on any scale, higher is better.
    references: mean opinion scores.
    level_predictions, level_references: level words, for the level accuracy; both or neither.
    levels: the level words, worst first.
    groups: a label for each pair; the bootstrap draws whole groups. For copies of one content, which are no independent
        samples.
    resamples: bootstrap resamples; 0 leaves the intervals out.
    seed: of the bootstrap.

Returns:
    n: pairs.
    srcc, krcc, plcc, rmse: raw; krcc is tau-b, rmse means something only where both are on one scale.
    plcc_fitted, rmse_fitted: after the logistic fit; rmse_fitted is in the units of the references.
    intervals: {name: [low, high]}, 95 %, of each of the six, from the deviation in a bootstrap.
    logistic: parameters b1 to b4 of b2 + (b1 - b2) / (1 + exp((b3 - x) / b4)), x the prediction; None without a fit.
    level_accuracy: {level: share of its references that are predicted right, "total": of all}; with levels only.
    confusion: counts, a row for each reference level, a column for each predicted level; with levels only.
    notes: what could not be computed, and why (such a value is None), and whether the pairs are too few to say much.
"""

_CITATION = """\
@misc{vqeg2000, title={Final report from the Video Quality Experts Group on the validation of objective models of video
quality assessment}, author={{VQEG}}, year={2000}}
"""


def logistic(x: np.ndarray, parameters: Sequence[float]) -> np.ndarray:
    """The field's mapping of predictions to the scale of the ratings (VQEG)."""
    high, low, middle, width = parameters
    return low + (high - low) * expit((x - middle) / width)


def fit_logistic(x: np.ndarray, y: np.ndarray) -> list[float] | None:
    """Least-squares parameters of `logistic`, or None where the solver does not converge.

    Args:
        x, y: (pairs,), predictions and ratings, neither of them constant.
    """
    ends = (y.max(), y.min()) if np.corrcoef(x, y)[0, 1] >= 0 else (y.min(), y.max())

    def slopes(parameters: np.ndarray) -> np.ndarray:
        high, low, middle, width = parameters
        scaled = (x - middle) / width
        share = expit(scaled)
        steep = (low - high) * share * (1 - share) / width
        return np.stack([share, 1 - share, steep, steep * scaled], axis=1)

    with np.errstate(all="ignore"):
        try:
            solution = least_squares(
                lambda parameters: logistic(x, parameters) - y,
                [*ends, x.mean(), x.std()],
                slopes,
                method="lm",
                x_scale=[np.std(y), np.std(y), np.std(x), np.std(x)],
                max_nfev=_FIT_STEPS,
            )
        except ValueError:
            return None
    return solution.x.tolist() if solution.success and np.isfinite(solution.x).all() else None


def statistics(x: np.ndarray, y: np.ndarray, fitted: np.ndarray | None, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The six figures for many weightings of the same pairs: one row of ones for the figures themselves, and one row of
    counts for each resample of a bootstrap.

    Args:
        x, y: (pairs,), predictions and ratings, finite.
        fitted: (pairs,), the predictions mapped to the scale of the ratings.
        weights: (rows, pairs), how often a row holds each pair.

    Returns:
        {name: (rows,)}, NaN where undefined.
    """
    values = dict.fromkeys(STATISTICS, np.full(len(weights), np.nan)) | {"rmse": _rmse(x, y, weights)}
    if np.ptp(x) and np.ptp(y):
        values["srcc"] = _srcc(x, y, weights)
        values["krcc"] = _kendall(x, y, weights)
        values["plcc"] = _pearson(x, y, weights)
    if fitted is not None:
        values["plcc_fitted"] = _pearson(fitted, y, weights)
        values["rmse_fitted"] = _rmse(fitted, y, weights)
    return values


def group_numbers(groups: Sequence[Any] | None, pairs: int) -> np.ndarray:
    """(pairs,): the number of each pair's group, from 0; without groups each pair is its own."""
    if groups is None:
        return np.arange(pairs)
    return np.unique([str(group) for group in groups], return_inverse=True)[1]


def drawn_weights(numbers: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """A bootstrap over whole groups: (rows, pairs), how often each resample holds each pair; as many rows at once as
    there is memory for.

    Args:
        numbers: (pairs,), those of `group_numbers`.
    """
    random, count = np.random.default_rng(seed), numbers.max() + 1
    rows_at_once = max(1, _NUMBERS_AT_ONCE // len(numbers))
    for first in range(0, resamples, rows_at_once):
        rows = min(rows_at_once, resamples - first)
        yield random.multinomial(count, np.full(count, 1 / count), size=rows)[:, numbers].astype(float)


def intervals(
    x: np.ndarray,
    y: np.ndarray,
    fitted: np.ndarray | None,
    figures: dict[str, float | None],
    groups: Sequence[Any] | None,
    resamples: int,
    seed: int,
) -> dict[str, list[float] | None]:
    """Each figure, more and less Student's quantile times its deviation in a bootstrap over pairs, or over whole
    groups; None where a fifth of the resamples has no value.

    Deviations are taken where they hardly depend on the figure itself: of Fisher's z = arctanh(r) for correlations, of
    the logarithm for errors (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sections 12.5 and 12.6).
    That keeps a correlation within -1 to 1 and an error above 0, and covers better than quantiles of the resamples do,
    which are too narrow for few pairs.

    The fit is that of all pairs: as the optimum, it changes its two figures in the second order only. But it is too
    good for the population, by the degrees of freedom of its parameters: as in an adjusted R squared, the end of the
    worse figures is counted from the figure without that advantage (of the error, both ends).
    """
    numbers = group_numbers(groups, len(x))
    count = numbers.max() + 1
    if count < FEWEST_FOR_FIT:
        return dict.fromkeys(STATISTICS)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in STATISTICS}
    for weights in drawn_weights(numbers, resamples, seed):
        for name, column in statistics(x, y, fitted, weights).items():
            drawn[name].append(column)
    bounds: dict[str, list[float] | None] = {}
    for name, columns in drawn.items():
        column, figure = np.concatenate(columns), figures[name]
        column = column[np.isfinite(column)]
        if figure is None or len(column) < _SHARE_WITH_VALUE * resamples:
            bounds[name] = None
        else:
            bounds[name] = _interval(name, figure, column, len(x), count)
    return bounds


def _interval(name: str, figure: float, resampled: np.ndarray, pairs: int, drawn: int) -> list[float]:
    """The interval of one figure from its values in resamples of `drawn` pairs or groups."""
    quantile = stdtrit(drawn - 1, (1 + CONFIDENCE) / 2) * np.sqrt(drawn / (drawn - 1))
    # What a fit of four parameters gains on the pairs that it is fitted to.
    gain = pairs / (pairs - FEWEST_FOR_FIT + 1) if name.endswith("_fitted") else 1.0
    quantile *= np.sqrt(gain)
    if name.startswith("rmse"):
        floor = max(figure / pairs, np.finfo(float).tiny)
        center = np.log(max(figure, floor)) + np.log(gain) / 2
        reach = quantile * np.log(np.maximum(resampled, floor)).std()
        low, high = np.exp([center - reach, center + reach])
    else:
        # Half a step of a rank correlation: at its end, z would be infinite.
        end = 1 - {"srcc": 6 / (pairs * (pairs**2 - 1)), "krcc": 2 / (pairs * (pairs - 1))}.get(name, 1e-12)
        without_gain = np.sqrt(max(0.0, 1 - (1 - figure**2) * gain)) * np.sign(figure)
        reach = quantile * np.arctanh(resampled.clip(-end, end)).std()
        ends = np.arctanh(np.clip([without_gain, figure], -end, end))
        low, high = np.tanh([ends.min() - reach, ends.max() + reach])
    return [float(min(low, figure)), float(max(high, figure))]


def says_nothing(count: int) -> str:
    """What stands beside a correlation of so few pairs."""
    return f"n = {count}: says nothing (from {FEW_PAIRS} on, a correlation begins to)."


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    references: Sequence[float],
    *,
    groups: Sequence[Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """How much better the first of two methods orders the same videos, by a paired bootstrap: both are measured on the
    same draws, so that what makes a draw easy or hard cancels out.

    Args:
        first, second: predicted quality by two methods, each on any scale, higher is better.
        references: mean opinion scores.
        groups: a label for each video; whole groups are drawn.

    Returns:
        {"n", "srcc": [of the first, of the second], "difference", "interval" (95 %, percentiles of the bootstrap), "p"
        (two-sided; never below 2 / (resamples + 1))}. The last three are None where an SRCC is undefined or there are
        fewer than five groups.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    sides = [np.asarray(values, dtype=np.float64) for values in (first, second, references)]
    if len({side.shape for side in sides}) != 1 or not all(np.isfinite(side).all() for side in sides):
        raise ValueError("Give one finite prediction of each method and one reference for every video.")
    one, other, y = sides
    numbers = group_numbers(groups, len(y))
    whole = np.ones((1, len(y)))
    figures = [_srcc(side, y, whole)[0] for side in (one, other)]
    result: dict[str, Any] = {"n": len(y), "srcc": [None if np.isnan(f) else float(f) for f in figures]}
    if np.isnan(figures).any() or len(np.unique(numbers)) < FEWEST_FOR_FIT:
        return result | {"difference": None, "interval": None, "p": None}
    weightings = drawn_weights(numbers, resamples, seed)
    differences = np.concatenate([_srcc(one, y, weights) - _srcc(other, y, weights) for weights in weightings])
    differences = differences[np.isfinite(differences)]
    ends = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    sides_of_zero = [(1 + (differences <= 0).sum()), (1 + (differences >= 0).sum())]
    return result | {
        "difference": float(figures[0] - figures[1]),
        "interval": ends.tolist(),
        "p": float(min(1.0, 2 * min(sides_of_zero) / (len(differences) + 1))),
    }


def level_agreement(predicted: Sequence[str], rated: Sequence[str], levels: Sequence[str]) -> dict[str, Any]:
    """`level_accuracy` and `confusion` of level words.

    Raises:
        ValueError: they differ in number, or a word is none of `levels`.
    """
    if len(predicted) != len(rated):
        raise ValueError(f"{len(predicted)} level_predictions for {len(rated)} level_references: give one for each.")
    if unknown := sorted(set(map(str, (*predicted, *rated))) - set(levels)):
        raise ValueError(
            f"{unknown[0]!r} is not a level: name the levels, worst first, as levels= (now {', '.join(levels)})."
        )
    if not rated:
        raise ValueError("No levels to compare: give at least one pair.")
    confusion = [
        [sum(p == column and r == row for p, r in zip(predicted, rated, strict=True)) for column in levels]
        for row in levels
    ]
    right = [confusion[i][i] for i in range(len(levels))]
    accuracy = {level: right[i] / sum(confusion[i]) if sum(confusion[i]) else None for i, level in enumerate(levels)}
    return {"level_accuracy": {**accuracy, "total": sum(right) / len(rated)}, "confusion": confusion}


def vqa_metrics(
    predictions: Sequence[float] | np.ndarray,
    references: Sequence[float],
    *,
    level_predictions: Sequence[str] | None = None,
    level_references: Sequence[str] | None = None,
    levels: Sequence[str] = ("poor", "fair", "good"),
    groups: Sequence[Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """What the metric computes; arguments and result are those that its description states.

    Raises:
        ValueError: lengths differ, fewer than two pairs, a value is not finite, or a level is unknown.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (predictions, references))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"predictions of shape {x.shape} and references of shape {y.shape}: give one number of each for every "
            "video."
        )
    if len(x) < 2:
        raise ValueError(f"{len(x)} pairs: agreement needs at least two, and means something from some dozens on.")
    for name, side in (("predictions", x), ("references", y)):
        if len(bad := np.flatnonzero(~np.isfinite(side))):
            raise ValueError(
                f"{len(bad)} of {len(side)} {name} are not finite (the first is number {bad[0]}): leave these pairs "
                "out and say how many."
            )
    if groups is not None and len(groups) != len(x):
        raise ValueError(f"{len(groups)} groups for {len(x)} pairs: give a label for each.")
    if (level_predictions is None) != (level_references is None):
        raise ValueError("Give both level_predictions and level_references, or neither.")

    notes = []
    parameters = fit_logistic(x, y) if len(x) >= FEWEST_FOR_FIT and np.ptp(x) and np.ptp(y) else None
    fitted = None if parameters is None else logistic(x, parameters)
    figures = statistics(x, y, fitted, np.ones((1, len(x))))
    values = {name: None if np.isnan(column[0]) else float(column[0]) for name, column in figures.items()}
    constant = [name for name, side in (("predictions", x), ("references", y)) if np.ptp(side) == 0]
    if constant:
        notes.append(f"The {' and '.join(constant)} are constant: correlations and the logistic fit are undefined.")
    if len(x) < FEWEST_FOR_FIT:
        notes.append(f"{len(x)} pairs: too few for the logistic fit and for intervals (at least {FEWEST_FOR_FIT}).")
    elif not constant and values["rmse_fitted"] is None:
        notes.append("The logistic fit did not converge.")
    elif not constant and values["plcc_fitted"] is None:
        notes.append("The logistic fit is flat: PLCC after it is undefined.")
    bounds: dict[str, list[float] | None] = dict.fromkeys(STATISTICS)
    if resamples and len(x) >= FEWEST_FOR_FIT:
        bounds = intervals(x, y, fitted, values, groups, resamples, seed)
        if groups is not None and (count := len({str(group) for group in groups})) < FEWEST_FOR_FIT:
            notes.append(f"{count} groups: too few for intervals (at least {FEWEST_FOR_FIT}).")
    if len(x) < FEW_PAIRS:
        notes.append(says_nothing(len(x)))
    result = {
        "n": len(x),
        **values,
        "intervals": bounds,
        "logistic": parameters,
        "notes": notes,
    }
    if level_predictions is not None and level_references is not None:
        result |= level_agreement(level_predictions, level_references, levels)
    return result


def _ranks(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(rows, pairs): the rank of each pair among those that its row holds, ties sharing the mean of their ranks."""
    values, index = np.unique(x, return_inverse=True)
    counts = np.zeros((len(weights), len(values)))
    np.add.at(counts.T, index, weights.T)
    return (counts.cumsum(1) - counts / 2 + 0.5)[:, index]


def _srcc(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _pearson(_ranks(x, weights), _ranks(y, weights), weights)


def _kendall(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Tau-b of each row. The number of concordant less discordant pairs is a quadratic form of the counts."""
    agreement = np.zeros(len(weights))
    size = max(1, _NUMBERS_AT_ONCE // len(x))
    for first in range(0, len(x), size):
        block = slice(first, first + size)
        signs = np.sign(x[block, None] - x) * np.sign(y[block, None] - y)
        agreement += (weights[:, block] * (weights @ signs.T)).sum(1)
    total = weights.sum(1) ** 2
    untied = []
    for side in (x, y):
        values, index = np.unique(side, return_inverse=True)
        counts = np.zeros((len(weights), len(values)))
        np.add.at(counts.T, index, weights.T)
        untied.append(total - (counts**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(agreement / np.sqrt(untied[0]) / np.sqrt(untied[1]), -1, 1)


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    totals = weights.sum(1, keepdims=True)
    x, y = (side - (weights * side).sum(1, keepdims=True) / totals for side in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip((weights * x * y).sum(1) / np.sqrt((weights * x * x).sum(1) * (weights * y * y).sum(1)), -1, 1)


def _rmse(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.sqrt((weights * (x - y) ** 2).sum(1) / weights.sum(1))


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class VqaMetric(evaluate.Metric):
    """`evaluate.load(folder)` gives this; `compute` hands its arguments to `vqa_metrics`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float], **options: Any) -> dict[str, Any]:
        return vqa_metrics(predictions, references, **options)
