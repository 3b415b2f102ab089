"""A YAML file to a trained checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

logger = logging.getLogger(__name__)

FRESH_DEFAULT = "default"


@dataclass
class LmmVqaTrainingArguments(TrainingArguments):
    """`TrainingArguments` and what is ours; the defaults of the optimiser are the paper's recipe.

    Args:
        model: folder or Hub id of a checkpoint; "default" for the parts of the default checkpoint with fresh projectors.
        dataset: one of our data set builders.
        data_dir: the folder that the builder reads.
        tasks: "score" or "score_and_level" (the paper's wo/ and w/ multi-task).
        feature_cache: folder for the features of the frozen towers; by default inside `output_dir`.
    """

    model: str = field(default=FRESH_DEFAULT)
    dataset: str = field(default="rated_videos")
    data_dir: str | None = field(default=None)
    tasks: str = field(default="score_and_level")
    feature_cache: str | None = field(default=None)

    learning_rate: float = field(default=1e-3)
    lr_scheduler_type: str = field(default="cosine")
    warmup_steps: float = field(default=0.1)
    adam_beta2: float = field(default=0.95)
    max_grad_norm: float = field(default=1.0)
    logging_steps: float = field(default=10)
    # The collator needs every column, and the labels are in no column.
    remove_unused_columns: bool | None = field(default=False)
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    report_to: str | list[str] = field(default="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks not in ("score", "level", "score_and_level"):
            raise ValueError(f"tasks={self.tasks!r} is unknown: choose score, level or score_and_level.")


def read_arguments(config: Path, overrides: Mapping[str, Any] | None = None) -> LmmVqaTrainingArguments:
    """Settings of a YAML file, some of them replaced.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown or a value is not allowed; the message shows it.
    """
    if not config.is_file():
        raise FileNotFoundError(f"{config} does not exist: name a YAML file, such as one of lmmvqa/training/recipes.")
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) | dict(overrides or {})
    known = {item.name for item in fields(LmmVqaTrainingArguments) if item.init}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"{config}: unknown setting {', '.join(unknown)}. Known are those of transformers' TrainingArguments and "
                         f"{', '.join(item for item in LmmVqaTrainingArguments.__annotations__ if item in known)}.")
    try:
        return LmmVqaTrainingArguments(**settings)
    except TypeError as error:
        raise ValueError(f"{config}: {error}") from error


def run_training(config: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Encode what is not in the cache, train the projectors, save them, and evaluate on the split "test" if there is one.

    Stopped and started again, it goes on from the last checkpoint in `output_dir`.

    Returns:
        The metrics of the evaluation, as `LmmVqaTrainer.evaluate` names them.
    """
    arguments = read_arguments(config, overrides)
    if arguments.data_dir is None or not Path(arguments.data_dir).exists():
        raise FileNotFoundError(f"data_dir={arguments.data_dir} does not exist: name the folder of the data set {arguments.dataset!r}.")

    from datasets import load_dataset
    from transformers import set_seed
    from transformers.trainer_utils import get_last_checkpoint

    import dataset_builders
    from lmmvqa.default_checkpoint import compose_default
    from lmmvqa.scoring import load_checkpoint
    from lmmvqa.training.feature_cache import FeatureCache
    from lmmvqa.training.trainer import AnswerCollator, LmmVqaTrainer, freeze_all_but_projectors, video_path

    dataset_builders.register()
    data = load_dataset(arguments.dataset, arguments.tasks, data_dir=arguments.data_dir)
    # Before the projectors are drawn.
    set_seed(arguments.seed)
    fresh = arguments.model == FRESH_DEFAULT
    model, processor = compose_default() if fresh else load_checkpoint(arguments.model)
    freeze_all_but_projectors(model)
    cache = FeatureCache(arguments.feature_cache or Path(arguments.output_dir) / "features", model, processor)
    trainer = LmmVqaTrainer(
        model=model,
        args=arguments,
        data_collator=AnswerCollator(cache, processor),
        train_dataset=data["train"],
        eval_dataset=data.get("validation", data.get("test")),
        processing_class=processor,
        cache=cache,
    )
    cache.fill(video_path(row) for split in data.values() for row in split.select_columns("video"))
    if fresh:
        trainer.fit_standardizers()
    last = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model()
    trainer.save_state()
    if "test" not in data:
        return {}
    metrics = trainer.evaluate(data["test"])
    trainer.save_metrics("test", metrics)
    logger.info("On the split test: %s", {name: round(value, 4) for name, value in metrics.items()})
    return metrics
