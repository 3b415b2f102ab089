"""Data sets to rows for the trainer: several sources mixed, split, and reduced to what training reads."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import datasets

import dataset_builders
from dataset_builders.export_set import ALL
from dataset_builders.label_files import LabelError
from dataset_builders.release_builder import MESSAGES
from dataset_builders.set_specs import not_exported
from lmmvqa.checkpoints.composing import check_window
from lmmvqa.training.arguments import LmmVqaTrainingArguments
from lmmvqa.training.settings import DataSource
from lmmvqa.training.watching import GENERAL
from processing.errors import InputError
from processing.quality_prompts import TASKS
from processing.questions import MAX_SCORE, Question

logger = logging.getLogger(__name__)

FEATURES = datasets.Features(
    {
        "source": datasets.Value("string"),
        "id": datasets.Value("string"),
        "video": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        "task": datasets.Value("string"),
        "messages": MESSAGES,
        "score": datasets.Value("float64"),
        "level": datasets.Value("string"),
    }
)


@dataclass(frozen=True)
class TrainingData:
    """Rows of `FEATURES` and a column for the labels of each further question; `validation` is None and `tests` (by
    name, such as "test" or "konvid_1k_test") empty where the sources have none. `validation` is None too where nothing
    is validated: nothing is encoded in vain."""

    train: datasets.Dataset
    validation: datasets.Dataset | None
    tests: dict[str, datasets.Dataset]

    def map(self, change: Callable[[datasets.Dataset], datasets.Dataset]) -> TrainingData:
        """The same change to every split."""
        validation = None if self.validation is None else change(self.validation)
        tests = {name: change(rows) for name, rows in self.tests.items()}
        return replace(self, train=change(self.train), validation=validation, tests=tests)

    def splits(self) -> Iterable[datasets.Dataset]:
        return (rows for rows in (self.train, self.validation, *self.tests.values()) if rows is not None)


def load_training_data(arguments: LmmVqaTrainingArguments) -> TrainingData:
    """The rows of all sources. Label files are read here, videos are not.

    Raises:
        ValueError: a source can't be read, has other columns, or gives no split to train on.
    """
    dataset_builders.register()
    validates = arguments.eval_strategy != "no"
    sources = arguments.sources
    questions = arguments.questions
    loaded = [_load(source, questions) for source in sources]
    names = _names(sources)
    train, validation, tests = [], [], {}
    for name, splits in zip(names, loaded, strict=True):
        if "train" not in splits:
            raise InputError(f"{name} has no split train, only {', '.join(splits)}: there is nothing to train on.")
        rows = {split: _common(part, name, questions) for split, part in splits.items()}
        kept = rows.pop("train")
        if "validation" in rows:
            validation.append(rows.pop("validation"))
        elif arguments.validation_fraction:
            held = _drawn(kept, "validation", arguments.validation_fraction)
            validation.append(kept.select(held))
            kept = kept.select(sorted(set(range(len(kept))) - set(held)))
        train.append(
            kept.select(_drawn(kept, "data", arguments.data_fraction)) if arguments.data_fraction < 1 else kept
        )
        tests |= {split if len(sources) == 1 else f"{name}_{split}": part for split, part in rows.items()}
    data = TrainingData(
        train=datasets.concatenate_datasets(train),
        validation=datasets.concatenate_datasets(validation) if validation and validates else None,
        tests=tests,
    )
    if not len(data.train):
        raise InputError("No video is left to train on: raise data_fraction or lower validation_fraction.")
    for question in _further(questions):
        if not any(label is not None for label in data.train[question.name]):
            raise InputError(
                f"tasks asks for {question.name}, and no video to train on has an answer to it: give a label file a "
                f"column {question.name}, or leave it out of tasks."
            )
    if validates and data.validation is None:
        raise InputError(
            f"eval_strategy={arguments.eval_strategy.value} needs a validation split, and the data has none: set "
            "validation_fraction=0.1, give your ratings a column split, or set eval_strategy=no."
        )
    return data


def _further(questions: Sequence[Question]) -> list[Question]:
    """The questions beside score and level."""
    return [question for question in questions if question.name not in TASKS]


def _load(source: DataSource, questions: Sequence[Question]) -> datasets.DatasetDict:
    of_all = [question.name for question in questions if question.name in TASKS]
    further = [question.as_data() for question in _further(questions)]
    configuration = None if source.spec.builder in dataset_builders.GENERAL_SETS else "_and_".join(of_all or TASKS)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in source.options.items()}
    if further and source.spec.builder in dataset_builders.RATED_SETS:
        options["questions"] = further
    elif further and source.spec.builder is None:
        # Of an exported set what is not asked is left out below.
        configuration = ALL
    try:
        return datasets.load_dataset(name=configuration, **source.spec.source, **options)
    # A missing configuration, an option that a builder doesn't have and a broken file are errors of unrelated kinds.
    except Exception as error:
        if source.spec.builder is None:
            raise not_exported(source.spec.folder, error) from error
        cause = error if isinstance(error, LabelError) else error.__cause__ or error
        raise InputError(f"The data set {source.spec} can't be loaded: {cause}") from error


def _names(sources: list[DataSource]) -> list[str]:
    """A short name for each source, numbered where two would be the same."""
    short = [source.spec.name for source in sources]
    return [name if short.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(short)]


def _common(rows: datasets.Dataset, source: str, questions: Sequence[Question]) -> datasets.Dataset:
    """Rows of any source with the columns of all, of the tasks that are asked for."""
    asked = {GENERAL, *(question.name for question in questions)}
    features = {
        question.name: datasets.Value("float64" if question.kind == "number" else "string")
        for question in _further(questions)
    }
    media = "image" if "image" in rows.column_names else "video"
    if missing := {media, "messages"} - set(rows.column_names):
        raise InputError(f"{source} has no column {', '.join(sorted(missing))}: export it with `lmmvqa data build`.")
    rows = rows.cast_column(media, datasets.Video(decode=False))

    def common(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "source": source,
            "id": row["id"],
            "video": row[media],
            "task": row.get("task", GENERAL),
            "messages": _as_video(row["messages"]),
            "score": row.get("score"),
            "level": row.get("level"),
            **{name: row.get(name) for name in features},
        }

    if "task" in rows.column_names and set(rows.unique("task")) - asked:
        rows = rows.filter(lambda task: task in asked, input_columns="task")
    return rows.map(common, remove_columns=rows.column_names, features=datasets.Features(FEATURES | features))


def _as_video(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An image is a video of one frame: it stands where a video would."""
    return [
        {
            "role": message["role"],
            "content": [
                block | {"type": "video"} if block["type"] == "image" else block for block in message["content"]
            ],
        }
        for message in messages
    ]


def _drawn(rows: datasets.Dataset, purpose: str, share: float) -> list[int]:
    """Indices of the rows of a share of the videos: those with the lowest hashes, so that shares nest and all rows of a
    video stay together."""
    ids = rows["id"][:]
    ordered = sorted(dict.fromkeys(ids), key=lambda name: hashlib.sha256(f"{purpose}/{name}".encode()).digest())
    chosen = set(ordered[: max(1, round(share * len(ordered)))])
    return [index for index, name in enumerate(ids) if name in chosen]


def learned_bounds(rows: datasets.Dataset, levels: Sequence[str]) -> list[float]:
    """The scores at which the levels of rated videos part; where sets part them differently, as many videos lie below
    as have a lower level. Empty where a level has no video."""
    rated = [(score, level) for score, level in zip(rows["score"][:], rows["level"][:], strict=True) if level in levels]
    scores = sorted(score for score, _ in rated)
    ends = list(accumulate(sum(level == word for _, level in rated) for word in levels))[:-1]
    if not levels or any(not 0 < end < len(scores) for end in ends):
        return []
    bounds = [round((scores[end - 1] + scores[end]) / 2, 2) for end in ends]
    return bounds if all(low < high for low, high in pairwise((0, *bounds, MAX_SCORE))) else []


def check_fit(config: Any, processor: Any, data: TrainingData) -> None:
    """Whether a model and the data go together, by their configuration alone.

    Raises:
        ValueError: the data has level words that the model doesn't know, or a video's tokens don't fit the decoder.
    """
    levels = {level for rows in data.splits() for level in set(rows["level"][:]) if level is not None}
    asks_levels = any(TASKS[1] in rows["task"][:] for rows in data.splits())
    if asks_levels and (unknown := sorted(levels - set(config.levels))):
        raise InputError(
            f"The data has the level {', '.join(unknown)}, the model knows {', '.join(config.levels)}: compose the "
            "model with "
            "these level words (--set levels=...), or train with tasks=score."
        )
    check_window(config, processor.video_processor.max_chunks)
