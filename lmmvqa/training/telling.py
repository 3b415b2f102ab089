"""What a run tells a person: what it learns from, how good its base was and how good it is now, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from hub_cards.training_card import FEW_VIDEOS
from lmmvqa.checkpoints.training_record import TrainingRecord
from lmmvqa.training.arguments import LmmVqaTrainingArguments

# What `evaluate` adds to a split's metrics, and what people call it; behind the name of a further question, too.
_FIGURES = {"loss": "loss", "srcc": "SRCC", "plcc": "PLCC", "level_accuracy": "right level"}
_OF_QUESTIONS = {"_srcc": "SRCC", "_plcc": "PLCC", "_balanced_accuracy": "balanced accuracy", "_accuracy": "accuracy"}


def beginning(arguments: LmmVqaTrainingArguments, learned: str, model: Any) -> str:
    """What is trained, and on what: `learned` is what `learned_from` says."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    whole = sum(weight.numel() for weight in model.parameters())
    return f"Trains {what_trains(arguments.trains)}: {trained:,} of {whole:,} parameters. {learned}"


def what_trains(trains: str) -> str:
    """The setting `trains` in words."""
    return {
        "projectors": "the projectors",
        "projectors+lora": "the projectors and low-rank updates of the decoder",
        "lora": "low-rank updates of the decoder",
        "projectors+decoder": "the projectors and the decoder",
    }[trains]


def learned_from(record: TrainingRecord, base: TrainingRecord) -> str:
    """What a run learned from, and what its base had learned from, in a sentence or two."""
    learned, chose = {}, {}
    for part in record.parts:
        found = learned if part.split == "train" else chose
        found[part.dataset] = found.get(part.dataset, frozenset()) | part.videos
    text = f"Learned from {_counts(learned)}."
    text += f" Validated on {_counts(chose)}." if chose else ""
    return f"{text} Its base had learned from {len(base.videos):,} videos." if base.videos else text


def _counts(sets: Mapping[str, frozenset[str]]) -> str:
    return ", ".join(f"{len(videos):,} video{'s' * (len(videos) != 1)} of {name}" for name, videos in sets.items())


def figures(metrics: Mapping[str, float], prefix: str) -> str:
    """The metrics of a split in words; a correlation over a handful of videos says that it says nothing."""
    count = int(metrics.get(f"{prefix}_n", 0))
    own = {key.removeprefix(f"{prefix}_"): value for key, value in metrics.items() if key.startswith(f"{prefix}_")}
    texts = [f"{name} {own[key]:.3f}" for key, name in {**_FIGURES, **_further(own)}.items() if key in own]
    if not count:
        return ", ".join(texts)
    return f"{', '.join(texts)} ({_how_many(count)})"


def _further(metrics: Mapping[str, float]) -> dict[str, str]:
    """Which metrics are of further questions, and what people call them, such as "SRCC of sharpness"."""
    found = {}
    for key in metrics:
        end = next((end for end in _OF_QUESTIONS if key.endswith(end)), None)
        if end is not None and key not in _FIGURES:
            found[key] = f"{_OF_QUESTIONS[end]} of {key.removesuffix(end)}"
    return found


def _how_many(count: int) -> str:
    return f"n = {count}" if count >= FEW_VIDEOS else f"n = {count}: its correlations say nothing"


def _videos(count: int) -> str:
    return str(count) if count >= FEW_VIDEOS or not count else _how_many(count)


def comparison(splits: Mapping[str, tuple[Mapping[str, float] | None, Mapping[str, float]]]) -> Table:
    """Base against tuned.

    Args:
        splits: by name, the metrics before and after; without a prefix. None where nothing was measured before.
    """
    table = Table("split", "", "videos", *_FIGURES.values())
    for split, (before, after) in splits.items():
        for name, metrics in (("base", before), ("tuned", after)):
            if metrics is None:
                continue
            count = int(metrics.get("n", 0))
            cells = [f"{metrics[key]:.3f}" if key in metrics else "-" for key in _FIGURES]
            table.add_row(split, name, _videos(count), *cells)
    return table


def warning_of_loss(before: Mapping[str, float] | None, after: Mapping[str, float]) -> str | None:
    """What a person should do when the base is better than what was tuned, on enough validation videos to tell.

    Args:
        before, after: metrics of the validation part, without a prefix.
    """
    if before is None or after.get("n", 0) < FEW_VIDEOS or after["loss"] < before["loss"]:
        return None
    return (
        f"The base is better on the validation part (loss {before['loss']:.3f}, tuned {after['loss']:.3f}): score "
        "with the base, or tune it on more videos or with a lower learning_rate. If its order is right and only its "
        "scale is not that of your ratings, `lmmvqa calibrate` is enough."
    )


def further_comparison(splits: Mapping[str, tuple[Mapping[str, float] | None, Mapping[str, float]]]) -> Table | None:
    """The same of further questions, each figure in a row; None where none were learned."""
    table = Table("split", "videos", "", "base", "tuned")
    for split, (before, after) in splits.items():
        for key, name in _further(after).items():
            cells = [f"{metrics[key]:.3f}" if key in metrics else "-" for metrics in (before or {}, after)]
            table.add_row(split, _videos(int(after.get("n", 0))), name, *cells)
    return table if table.row_count else None


def next_commands(output: Path, trains: str, *, folds: bool = False) -> list[str]:
    """What to do with what was trained."""
    if folds:
        return [f"lmmvqa merge {output}/fold_0 {output}_fold_0_merged"]
    scoring = f"lmmvqa score clip.mp4 --model {output}"
    return [scoring] if trains == "projectors+decoder" else [scoring, f"lmmvqa merge {output} {output}_merged"]
