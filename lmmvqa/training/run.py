"""From a YAML file to a trained checkpoint: settings -> rows -> base -> features -> training -> evaluation."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from transformers import AutoConfig, AutoProcessor, set_seed

import lmmvqa.registration  # noqa: F401 - makes the Auto classes know ours
from hub_cards.training_card import FEW_VIDEOS
from lmmvqa.checkpoints import FRESH_DEFAULT
from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.checkpoints.loading import load_base
from lmmvqa.checkpoints.training_record import SeenVideos, TrainingRecord, read_record
from lmmvqa.console import messages
from lmmvqa.training.adapters import make_trainable
from lmmvqa.training.arguments import LmmVqaTrainingArguments, make_arguments
from lmmvqa.training.collators import AnswerCollator, ReadOutCollator
from lmmvqa.training.encoding import add_digests, encode, fit_standardizers
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.settings import read_settings
from lmmvqa.training.telling import beginning, comparison, further_comparison, learned_from, warning_of_loss
from lmmvqa.training.trainer import LmmVqaTrainer, last_checkpoint, rated_indices
from lmmvqa.training.training_data import TrainingData, check_fit, learned_bounds, load_training_data
from lmmvqa.training.warm_up import warm_up
from modeling_lmmvqa import LmmVqaConfig
from processing.errors import InputError
from processing.quality_prompts import TASKS
from processing.questions import Question

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.yaml"
# Settings that may differ when a run goes on: they change what is said and kept, not what is learned.
_MAY_CHANGE = (
    "logging",
    "report_to",
    "push_to_hub",
    "hub_",
    "save_",
    "disable_tqdm",
    "run_name",
    "encoding_workers",
    "dataloader_num_workers",
)


def run_training(
    config: str | os.PathLike, overrides: Mapping[str, Any] | None = None, *, test: bool = True
) -> dict[str, float]:
    """Encode what is not in the cache, train, save, and evaluate on every test split.

    Stopped and started again, it goes on from the last checkpoint in `output_dir`. With `folds` it does so for each
    fold, in `output_dir/fold_N`, and gives the mean over them.

    Args:
        config: a YAML file, or the name of one of our recipes.
        overrides: settings that replace those of the file.
        test: evaluate on the test splits; not for a caller that predicts them itself.

    Returns:
        The metrics of the test splits, such as "test_srcc"; also in `all_results.json`.

    Raises:
        FileNotFoundError, ValueError: a setting is wrong or names what isn't there; before anything is loaded.
        DivergedError: the loss is no number any more, or has grown far beyond its beginning.
    """
    settings = read_settings(config, overrides)
    arguments = make_arguments(settings, str(config))
    arguments.check()
    with PartialState().main_process_first():
        check_same_run(settings, Path(arguments.output_dir))
    if arguments.folds:
        return _run_folds(settings, arguments, str(config), test)
    return train(arguments, test=test)


def train(arguments: LmmVqaTrainingArguments, *, test: bool = True) -> dict[str, float]:
    """`run_training` for arguments."""
    trainer = build_trainer(arguments)
    logger.info("%s", beginning(arguments, trainer.learned, trainer.model))
    if (checkpoint := last_checkpoint(arguments.output_dir)) is not None:
        logger.info("Goes on from %s.", checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()
    metrics: dict[str, float] = {}
    for name, rows in trainer.tests.items() if test else ():
        results = trainer.evaluate(rows, metric_key_prefix=name)
        trainer.save_metrics(name, results)
        metrics |= results
    trainer.create_model_card()
    if arguments.push_to_hub:
        trainer.push_to_hub()
    if trainer.is_world_process_zero():
        splits = {name: (None, _of_split(metrics, name)) for name in trainer.tests if test}
        if (validated := trainer.validation_figures()) is not None:
            splits = {"validation": validated} | splits
        if splits:
            messages.print(*filter(None, (comparison(splits), further_comparison(splits))), sep="\n")
        if validated is not None and (text := warning_of_loss(*validated)):
            logger.warning("%s", text)
        logger.info("%s The result is in %s.", trainer.learned, arguments.output_dir)
    return metrics


def _of_split(metrics: Mapping[str, float], split: str) -> dict[str, float]:
    return {name.removeprefix(f"{split}_"): value for name, value in metrics.items() if name.startswith(f"{split}_")}


def build_trainer(arguments: LmmVqaTrainingArguments) -> LmmVqaTrainer:
    """Everything that training needs, loaded, checked and encoded; `train()` is next.

    Raises:
        FileNotFoundError, ValueError: a setting is wrong, or model and data don't go together.
    """
    arguments.check()
    with arguments.main_process_first(desc="reading the labels"):
        data = load_training_data(arguments)
    if arguments.model is not None and arguments.model != FRESH_DEFAULT:
        check_fit(_our_config(arguments.model), AutoProcessor.from_pretrained(arguments.model), data)
    # Before the projectors are drawn.
    set_seed(arguments.seed)
    with arguments.main_process_first(desc="loading the base"):
        model, processor = load_base(arguments.model, device=str(arguments.device))
    check_fit(model.config, processor, data)
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        # Its shards hold parameters of one precision; it computes in the one that its configuration states.
        model.float()
    if data.validation is not None:
        _choose_by_what_says_something(arguments, len(rated_indices(data.validation)))
    cache = None
    if arguments.cache_features:
        cache = open_cache(arguments, model, processor)
        data, _ = encode(data, cache, arguments.encoding_workers)
    else:
        data = add_digests(data, arguments.encoding_workers)
    base_record, record = _base_record(arguments.model), _record(data)
    teach(processor, arguments.questions, learned_bounds(data.train, processor.levels))
    maps = {name: entries.get("answer_map") for name, entries in (model.config.calibration or {}).items()}
    shared = {
        "cache": cache,
        "processor": processor,
        "answer_maps": {name: pairs for name, pairs in maps.items() if pairs is not None},
    }
    collator = AnswerCollator(**shared)
    fresh = arguments.model == FRESH_DEFAULT
    if fresh if arguments.standardize_features is None else arguments.standardize_features:
        fit_standardizers(model, collator, data)
    if arguments.loss != "answer" or arguments.warm_up_epochs:
        rated = data.map(_rated)
        if not len(rated.train):
            raise InputError(
                f"loss={arguments.loss} with warm_up_epochs={arguments.warm_up_epochs} learns from ratings, and the "
                "data has none: set "
                "loss=answer and warm_up_epochs=0."
            )
    warm_up_errors: list[float] = []
    # A run that goes on has its projectors in its checkpoint.
    if arguments.warm_up_epochs and last_checkpoint(arguments.output_dir) is None:
        warm_up_errors = warm_up(
            model,
            collator,
            rated.train,
            arguments.warm_up_epochs,
            questions=arguments.questions,
            dropout=arguments.projector_dropout,
            seed=arguments.seed,
        )
    model = make_trainable(
        model,
        arguments.trains,
        rank=arguments.lora_rank,
        dropout=arguments.lora_dropout,
        projector_dropout=arguments.projector_dropout,
        seed=arguments.seed,
    )
    if arguments.loss != "answer":
        data = rated
        collator = ReadOutCollator(
            **shared,
            questions=tuple(question.name for question in arguments.questions),
            ends=arguments.loss != "read_out",
        )
    return LmmVqaTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=data.train,
        eval_dataset=data.validation,
        processing_class=processor,
        tests=data.tests,
        warm_up_errors=warm_up_errors,
        record=base_record.followed_by(record),
        learned=learned_from(record, base_record),
    )


def teach(processor: Any, questions: Sequence[Question], bounds: Sequence[float] = ()) -> None:
    """Put questions that the checkpoint does not know among those that its processor holds.

    Args:
        bounds: the scores at which the levels that are learned part.

    Raises:
        ValueError: it knows one of them with other answers.
    """
    known = {question.name: question for question in processor.questions}
    for question in questions:
        before = known.get(question.name)
        # Words for the level that a base does not know are refused by `check_fit`.
        if before is not None and question.name not in TASKS and before.answers != question.answers:
            raise InputError(
                f"The base was taught the question {question.name} with the answers {', '.join(before.answers)}: "
                "ask it with these, or by another name."
            )
        if before is None:
            processor.questions = (*processor.questions, question)
    if bounds and "level" in [question.name for question in questions]:
        processor.questions = tuple(
            replace(question, bounds=bounds) if question.name == "level" else question
            for question in processor.questions
        )


def _choose_by_what_says_something(arguments: LmmVqaTrainingArguments, rated: int) -> None:
    """A correlation over a handful of validation videos is chance, and must not choose the best checkpoint."""
    metric = (arguments.metric_for_best_model or "").removeprefix("eval_")
    if metric in ("srcc", "plcc") and rated < FEW_VIDEOS:
        logger.warning(
            "The validation part has %d rated videos, too few to choose the best checkpoint by %s: it is chosen by the "
            "loss.",
            rated,
            metric,
        )
        arguments.metric_for_best_model, arguments.greater_is_better = "loss", False


def _base_record(model: str | None) -> TrainingRecord:
    """What the base has seen; of one without a record, nobody knows. Fresh parts have none."""
    known = None if model == FRESH_DEFAULT else read_record(model or str(default_checkpoint()))
    return known or TrainingRecord()


def _record(data: TrainingData) -> TrainingRecord:
    """The videos that are learned from, and those that choose the best checkpoint."""
    parts: dict[tuple[str, str], set[str]] = {}
    for split, rows in (("train", data.train), ("validation", data.validation)):
        for source, digest in zip(rows["source"], rows["sha256"], strict=True) if rows is not None else ():
            if not digest.startswith("unreadable/"):
                parts.setdefault((source, split), set()).add(digest)
    return TrainingRecord(tuple(SeenVideos(*place, frozenset(videos)) for place, videos in parts.items()))


def _rated(rows: Dataset) -> Dataset:
    """One row of each video that has a score."""
    return rows.select(rated_indices(rows))


def open_cache(arguments: LmmVqaTrainingArguments, model: Any, processor: Any) -> FeatureCache:
    """The cache of a run."""
    return FeatureCache(arguments.feature_cache or Path(arguments.output_dir) / "features", model, processor)


def _our_config(name: str) -> LmmVqaConfig:
    config = AutoConfig.from_pretrained(name)
    if not isinstance(config, LmmVqaConfig):
        raise InputError(
            f"model={name} is a {config.model_type!r} model and not an LMM-VQA checkpoint: make one with lmmvqa "
            "compose."
        )
    return config


def check_same_run(settings: dict[str, Any], output_dir: Path) -> None:
    """A folder holds one run: one with other settings must not go on from its checkpoints.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    file = output_dir / SETTINGS_FILE
    if file.is_file() and any(output_dir.rglob("trainer_state.json")):
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        changed = [
            f"{key} ({before.get(key)} before, {settings.get(key)} now)"
            for key in sorted({*before, *settings})
            if before.get(key) != settings.get(key) and not key.startswith(_MAY_CHANGE)
        ]
        if changed:
            raise InputError(
                f"{output_dir} holds a run with other settings: {', '.join(changed)}. Name another output folder, or "
                "remove that one."
            )
    if PartialState().is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")


def _run_folds(
    settings: dict[str, Any], arguments: LmmVqaTrainingArguments, origin: str, test: bool
) -> dict[str, float]:
    """Each fold as a run of its own, from the same base and the same cache."""
    results = []
    for fold in arguments.folds:
        logger.info("Fold %d", fold)
        changed = {
            "folds": None,
            "output_dir": str(Path(arguments.output_dir) / f"fold_{fold}"),
            "feature_cache": arguments.feature_cache or str(Path(arguments.output_dir) / "features"),
            "data_options": {**arguments.data_options, "fold": fold},
        }
        results.append(train(make_arguments({**settings, **changed}, origin), test=test))
    names = sorted(set.intersection(*(set(result) for result in results)))
    mean = {name: fmean(result[name] for result in results) for name in names}
    if PartialState().is_main_process:
        folds = {f"fold_{fold}": result for fold, result in zip(arguments.folds, results, strict=True)}
        (Path(arguments.output_dir) / "all_results.json").write_text(json.dumps({"mean": mean, **folds}, indent=2))
    return mean
