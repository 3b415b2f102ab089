"""The settings of a training run: a YAML file to checked arguments, before anything heavy is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from lmmvqa.checkpoints import FRESH_DEFAULT
from lmmvqa.training.settings import DataSource, check_data_and_model, data_sources, meant_word, read_settings
from processing.errors import InputError
from processing.quality_prompts import QUESTIONS, question_of
from processing.questions import Question, QuestionError

TRAINS = ("projectors", "projectors+lora", "lora", "projectors+decoder")
TASKS = ("score", "level", "score_and_level")
LOSSES = ("answer", "read_out", "read_out_and_format", "words")


@dataclass
class LmmVqaTrainingArguments(TrainingArguments):
    """`TrainingArguments` and what is ours; the defaults of the optimiser are the paper's recipe.

    Args:
        model: folder or Hub id of a checkpoint; without it the default checkpoint as it comes. "default" stands for the
            parts of the default checkpoint with fresh projectors.
        trains: "projectors" (the paper), "projectors+lora" (and low-rank updates of the decoder), "lora" (these alone;
            the projectors are saved with them) or "projectors+decoder" (everything but the towers: the stage for
            general video of the paper's section IV-D).
        data: `NAME=FOLDER` with one of our builders, an exported folder, or a Hub id; or a list of several to mix, each
            such a text or a mapping of `data` and options of its own.
        data_options: keywords for the builder, such as {fold: 0, levels: authors, scale: [1, 5]}.
        tasks: what the rated sets teach: "score", "level" or "score_and_level" (the paper's wo/ and w/ multi-task), or
            a list of questions, such as [score, level, flaw]. One that has no words of its own here asks for a number
            (a dimension, such as sharpness); a mapping of the fields of `Question` describes any other. A label file's
            column of the question's name holds the answers; rows without one are not asked.
        loss: "answer" is the cross-entropy on the one right answer (the paper), which any conversation has. "read_out"
            is that on the probabilities of all allowed answers, where those near the rating are nearly right: rated
            videos only, both tasks in one pass, and far fewer steps. "read_out_and_format" takes their likelihoods
            among everything that the decoder may say, so that what it generates is an allowed answer, too; it ranks
            best after "read_out". "words" is the same with the score that the visual tokens say in level words
            (`lmmvqa.training.warm_up`) in the place of the rating, for trains=lora after a warm-up: the decoder learns
            to read its tokens, and not the contents by heart.
        data_fraction: share of the training videos that is used, in (0, 1]; drawn by a hash of each id, so that a
            smaller share lies within a larger one.
        validation_fraction: share of the training videos kept for validation where a set has no validation split.
        folds: train and test on each of these folds and give the mean, such as [0, 1, 2, 3, 4].
        lora_rank, lora_dropout: of "projectors+lora" and "lora", on every linear layer of the decoder.
        projector_dropout: on the features that enter a projector, and inside an MLP, while it trains; in [0, 1).
        standardize_features: measure mean and deviation of the towers' features on the training set before the first
            step; by default only for fresh parts of the default checkpoint.
        warm_up_epochs: epochs in which the projectors learn from the ratings alone, without the decoder, before the
            first step (a minute for thousands of videos; see `lmmvqa.training.warm_up`). For projectors that start
            fresh.
        cache_features: encode every video once and train on what the towers gave, instead of encoding in every epoch.
        feature_cache: folder for that; by default `features` inside `output_dir`.
        encoding_workers: videos decoded at once while the cache is filled.
    """

    model: str | None = field(default=None)
    trains: str = field(default="projectors")
    data: str | list[Any] | None = field(default=None)
    data_options: dict[str, Any] = field(default_factory=dict)
    tasks: str | list[Any] = field(default="score_and_level")
    loss: str = field(default="answer")
    data_fraction: float = field(default=1.0)
    validation_fraction: float = field(default=0.0)
    folds: list[int] | None = field(default=None)
    lora_rank: int = field(default=16)
    lora_dropout: float = field(default=0.05)
    projector_dropout: float = field(default=0.0)
    standardize_features: bool | None = field(default=None)
    warm_up_epochs: int = field(default=0)
    cache_features: bool = field(default=True)
    feature_cache: str | None = field(default=None)
    encoding_workers: int = field(default=max(1, min(8, (os.cpu_count() or 1) - 1)))

    learning_rate: float = field(default=1e-3)
    lr_scheduler_type: str = field(default="cosine")
    warmup_steps: float = field(default=0.1)
    adam_beta2: float = field(default=0.95)
    max_grad_norm: float = field(default=1.0)
    logging_steps: float = field(default=10)
    # The collator needs every column, and what is to be learned is in no column.
    remove_unused_columns: bool | None = field(default=False)
    label_names: list[str] | None = field(default=None)
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)
    report_to: str | list[str] = field(default="none")
    # Other processes than the first would warn where it does not.
    log_level_replica: str = field(default="passive")
    # Frozen parameters need no gradient, and all others get one in every step.
    ddp_find_unused_parameters: bool | None = field(default=False)
    # The library's filter would hide a loss that is no number behind the mean of earlier ones.
    logging_nan_inf_filter: bool = field(default=False)
    disable_tqdm: bool | None = field(default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.label_names = self.label_names or (["labels"] if self.loss == "answer" else ["targets"])
        _one_of("trains", self.trains, TRAINS)
        if isinstance(self.tasks, str) and self.tasks not in TASKS:
            raise InputError(
                f"tasks={self.tasks!r} is unknown: choose one of {', '.join(TASKS)}, or list questions, such as "
                "[score, level, flaw]."
            )
        _one_of("loss", self.loss, LOSSES)
        if self.loss != "answer" and "score" not in [question.name for question in self.questions]:
            raise InputError(f"loss={self.loss} learns the score, with or without other questions: add score to tasks.")
        if self.loss == "words" and self.trains != "lora":
            raise InputError(
                "loss=words teaches the decoder what the projectors say, which must not change meanwhile: set trains "
                f"to lora, not {self.trains}."
            )
        if not 0 < self.data_fraction <= 1:
            raise InputError(f"data_fraction={self.data_fraction} must be above 0 and at most 1, such as 0.25.")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction={self.validation_fraction} must be at least 0 and below 1, such as 0.1."
            )
        if not 0 <= self.projector_dropout < 1:
            raise InputError(f"projector_dropout={self.projector_dropout} must be at least 0 and below 1, such as 0.1.")
        if self.lora_rank < 1 or self.encoding_workers < 1:
            raise InputError(
                f"lora_rank={self.lora_rank} and encoding_workers={self.encoding_workers} must be at least 1."
            )
        if self.warm_up_epochs < 0 or (self.warm_up_epochs and not self.cache_features):
            raise InputError(
                f"warm_up_epochs={self.warm_up_epochs} must be at least 0, and above 0 it needs cache_features=true."
            )
        if self.hub_strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
            raise InputError(
                f"hub_strategy={self.hub_strategy.value} uploads the trainer's state, which names files of this "
                "machine: set it to every_save or end. A run that was stopped goes on from its own folder."
            )
        if self.folds is not None and not (self.folds and all(isinstance(fold, int) for fold in self.folds)):
            raise InputError(f"folds={self.folds} must be a list of folds, such as [0, 1, 2, 3, 4].")
        if self.folds and "fold" in self.data_options:
            raise InputError("Give folds or data_options.fold, not both: folds trains on each in turn.")

    @property
    def questions(self) -> tuple[Question, ...]:
        """What `tasks` names.

        Raises:
            QuestionError: a question can't be asked, or is named twice.
        """
        if isinstance(self.tasks, str):
            return tuple(QUESTIONS[name] for name in self.tasks.split("_and_"))
        questions = tuple(map(question_of, self.tasks))
        names = [question.name for question in questions]
        if not names or len(set(names)) < len(names):
            raise QuestionError(f"tasks={self.tasks} must name at least one question, and none of them twice.")
        return questions

    @property
    def sources(self) -> list[DataSource]:
        """The data sets of the run.

        Raises:
            ValueError: an entry of `data` is no data set.
        """
        return data_sources(self.data, self.data_options)

    def check(self) -> None:
        """What can be known to fail before anything is loaded.

        Raises:
            FileNotFoundError: the model does not exist.
            ValueError: a setting that can't work; the message shows it and the remedy.
        """
        check_data_and_model(self.data, self.model)
        if self.push_to_hub:
            self._check_push()

    @property
    def public_base(self) -> str:
        """How others may call the base: its Hub id, or what it is; no place on this machine."""
        if self.model in (None, FRESH_DEFAULT):
            return "the default checkpoint of LMM-VQA" if self.model is None else "the parts of the default checkpoint"
        return "a local checkpoint" if os.path.isdir(self.model) else self.model

    def check_base_is_public(self) -> None:
        """
        Raises:
            InputError: what is trained is an adapter, and its base is on this machine only.
        """
        if self.trains != "projectors+decoder" and (self.model in (None, FRESH_DEFAULT) or os.path.isdir(self.model)):
            raise InputError(
                f"push_to_hub pushes what was trained, to be loaded together with its base, but model={self.model} is "
                "on this "
                "machine only: push the base first (lmmvqa push) and name its Hub id as model; or train without "
                "push_to_hub, then lmmvqa merge and push the merged checkpoint."
            )

    def _check_push(self) -> None:
        from huggingface_hub import HfApi

        self.check_base_is_public()
        try:
            HfApi(token=self.hub_token).whoami(cache=True)
        # A missing token, a wrong one and a lost connection are errors of three unrelated kinds.
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"push_to_hub=true, but the Hub does not know you ({reason}): log in with `hf auth login`."
            ) from error


def read_arguments(config: str | os.PathLike, overrides: Mapping[str, Any] | None = None) -> LmmVqaTrainingArguments:
    """Settings of a YAML file, or of one of our recipes by its name, some of them replaced.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown or a value is not allowed; the message shows it.
    """
    return make_arguments(read_settings(config, overrides), str(config))


def make_arguments(settings: Mapping[str, Any], origin: str) -> LmmVqaTrainingArguments:
    """Arguments of a mapping; `origin` names it in errors.

    Raises:
        ValueError: a key is unknown or a value is not allowed.
    """
    known = {item.name for item in fields(LmmVqaTrainingArguments) if item.init}
    if unknown := sorted(set(settings) - known):
        hints = [f"{key} ({meant_word(key, known)})" for key in unknown]
        raise InputError(
            f"{origin}: unknown setting {', '.join(hints)}. Known are those of transformers' TrainingArguments and "
            f"{', '.join(item for item in LmmVqaTrainingArguments.__annotations__ if item in known)}."
        )
    try:
        return LmmVqaTrainingArguments(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{origin}: {error}") from error


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value!r} is unknown: choose one of {', '.join(allowed)}.")
