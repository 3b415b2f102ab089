"""The result of one video, and the row that every output makes of it: JSON, CSV, Parquet, table and pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Columns of a row in their order: type and meaning. Between "level" and "duration_s" stand those that depend on the
# checkpoint (CHECKPOINT_COLUMNS).
COLUMNS: dict[str, tuple[str, str]] = {
    "path": ("string", "the video, as it was given"),
    "score": ("float64", "0 (worst) to 100 (best)"),
    "score_std": ("float64", "standard deviation of the score, in points"),
    "interval_low": ("float64", "lower end of the central 90 % of the score's distribution"),
    "interval_high": ("float64", "its upper end"),
    "level": ("string", "the word for the score, by the points where the checkpoint's levels part"),
    "duration_s": ("float64", "length of the video in seconds"),
    "warnings": ("list<string>", "sentences: why the score may mislead; in CSV the list as JSON text"),
    "error": ("string", "what is wrong with the video and the remedy; there is no score then"),
}
PROBABILITY, DIMENSION = "probability_", "dimension_"
# The same of what a checkpoint was taught, a star for its words: one column for each level, worst first; three for
# each further number, such as dimension_sharpness, dimension_sharpness_low and dimension_sharpness_high; one for each
# further question that asks for a word, such as flaws.
CHECKPOINT_COLUMNS: dict[str, tuple[str, str]] = {
    f"{PROBABILITY}*": ("float64", "of each level word, worst first, when the model is asked for a word"),
    f"{DIMENSION}*": ("float64", "a further rating, 0 (worst) to 100 (best), and the ends of its central 90 %"),
    "*s": ("map<float64>", "the probability of each word; where they have no order, the most probable first"),
}
# Score and level are two questions, and their answers may disagree. The score is what counts: level, order and colours
# follow it. Where it lies more points than this outside the part of the word that the model finds most probable, the
# row has a warning.
LEVEL_TOLERANCE = 10.0


@dataclass(frozen=True)
class VideoScore:
    """The quality of one video, or why it has none.

    Args:
        path: as it was given.
        score: 0 to 100, higher is better.
        score_std: standard deviation of the score, in points.
        interval: the central 90 % of the score's distribution.
        level: the word for the score (`level_of`); None where the checkpoint was not taught the level.
        level_probabilities: of each level word, worst first, when the model is asked for a word; each None where there
            is an error.
        duration_s: length of the video in seconds.
        warnings: sentences for people: why the score may mislead.
        error: what is wrong and the remedy; scores and level are then None.
        timeline: quality over time, as `assess_timeline` gives it, where it was asked for.
        answers: to the further questions that the checkpoint was taught, by name, as `QualityOutput.as_dicts` has them;
            with an error, the same with None in place of each value.
    """

    path: str
    score: float | None = None
    score_std: float | None = None
    interval: tuple[float, float] | None = None
    level: str | None = None
    level_probabilities: dict[str, float | None] | None = None
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    timeline: dict[str, Any] | None = None
    answers: Mapping[str, Mapping[str, Any]] | None = None

    def as_row(self) -> dict[str, Any]:
        """The columns of `COLUMNS` and `CHECKPOINT_COLUMNS` in their order, and "timeline" where there is one."""
        low, high = self.interval or (None, None)
        numbers: dict[str, Any] = {}
        words: dict[str, Any] = {}
        for name, answer in (self.answers or {}).items():
            if "interval" in answer:
                ends = answer["interval"] or (None, None)
                of = (answer["value"], *ends)
                numbers |= {
                    f"{DIMENSION}{name}{end}": value for end, value in zip(("", "_low", "_high"), of, strict=True)
                }
            else:
                words[f"{name}s"] = answer["probabilities"]
        row = {
            "path": self.path,
            "score": self.score,
            "score_std": self.score_std,
            "interval_low": low,
            "interval_high": high,
            "level": self.level,
            **{f"{PROBABILITY}{word}": p for word, p in (self.level_probabilities or {}).items()},
            **numbers,
            **words,
            "duration_s": self.duration_s,
            "warnings": list(self.warnings),
            "error": self.error,
        }
        return row if self.timeline is None else row | {"timeline": self.timeline}


def level_of(score: float, levels: Sequence[str], bounds: Sequence[float]) -> str:
    """The word for a score; `levels` are all, worst first, `bounds` the scores above which each but the worst
    begins."""
    return levels[sum(score > bound for bound in bounds)]


def describe_levels(levels: Sequence[str], bounds: Sequence[float]) -> str:
    """Such as "poor up to 61, fair up to 77, good above"; nothing where there are no levels."""
    parts = [f"{word} up to {bound:.0f}" for word, bound in zip(levels, bounds, strict=False)]
    return ", ".join([*parts, f"{levels[-1]} above"]) if levels else ""


def level_warning(score: float, said: str, levels: Sequence[str], bounds: Sequence[float]) -> str | None:
    """A sentence where the word that the model finds most probable contradicts the score, None where it doesn't."""
    place = levels.index(said)
    low, high = [0.0, *bounds][place], [*bounds, 100.0][place]
    if low - LEVEL_TOLERANCE <= score <= high + LEVEL_TOLERANCE:
        return None
    meant = level_of(score, levels, bounds)
    return f"Asked for a word, the model says {said}, but its score of {score:.0f} means {meant}: the score counts."


def column_type(column: str) -> str:
    """The type of a column of a row, by its name: "string", "float64", "list<string>" or "map<float64>"."""
    if column in COLUMNS:
        return COLUMNS[column][0]
    return "float64" if column.startswith((PROBABILITY, DIMENSION)) else "map<float64>"
