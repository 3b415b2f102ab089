"""What the trainings of both towers share: the rows of graded copies, the split by fold, and how a tower with heads is
fitted."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmmvqa.training.trainer import last_checkpoint
from processing.errors import InputError

# A few minutes of a spatial tower, one of a temporal one.
SAVE_STEPS = 200
_RUN = "run"


class _HasFold(Protocol):
    fold: int


Copy = TypeVar("Copy", bound=_HasFold)


def copy_rows(ratings: Path) -> list[dict[str, str]]:
    """The rows of the ratings.csv of graded copies, the column `video` as a path that can be opened."""
    with ratings.open(newline="", encoding="utf-8") as file:
        return [{**row, "video": str(ratings.parent / row["video"])} for row in csv.DictReader(file)]


def split_by_fold(copies: Sequence[Copy], held_out: Sequence[int]) -> tuple[list[Copy], list[Copy]]:
    """Copies to learn from, and those of the first of the folds that are held out.

    Raises:
        ValueError: there are none of either.
    """
    train, tested = [c for c in copies if c.fold not in held_out], [c for c in copies if c.fold == held_out[0]]
    if not train or not tested:
        there = ", ".join(map(str, sorted({copy.fold for copy in copies}))) or "none"
        raise InputError(
            f"A tower learns from some folds and is tested on another, fold {held_out[0]}; there are copies of folds "
            f"{there}: add "
            "contents, or choose with --held-out-fold."
        )
    return train, tested


class DrawnDataset(Dataset):
    """What is random about an item depends on its place, the epoch and `seed` alone, so that a training that goes on
    sees the same."""

    epoch = 0

    def __init__(self, seed: int):
        self.seed = seed

    def random(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, index))


class _NewDrawForEveryEpoch(TrainerCallback):
    def __init__(self, data: DrawnDataset):
        self.data = data

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.data.epoch = int(state.epoch or 0)


def fit_tower(
    model: nn.Module,
    data: DrawnDataset,
    output: Path,
    *,
    labels: list[str],
    epochs: int,
    learning_rate: float,
    tower_learning_rate: float | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> Trainer:
    """Train a tower with heads, whose `forward` gives "loss" and "logits", on one cosine of the learning rate.

    Stopped and started again, it goes on from the last checkpoint in `output/run`, to the same weights.
    `remove_checkpoints` is for the caller, once the tower is saved. The log of its losses stays, in
    `output/trainer_state.json`.

    Args:
        labels: those of `forward`'s arguments that are not input.
        tower_learning_rate: for `model.tower`, if it was trained before and the heads were not.

    Returns:
        The trainer, for `predict`.
    """
    settings: dict[str, Any] = {"per_device_train_batch_size": batch_size, "per_device_eval_batch_size": batch_size}
    arguments = TrainingArguments(
        output_dir=str(output / _RUN),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=0.01,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_grad_norm=1.0,
        logging_steps=20,
        save_steps=SAVE_STEPS,
        save_total_limit=1,
        report_to=[],
        label_names=labels,
        remove_unused_columns=False,
        disable_tqdm=True,
        seed=seed,
        **settings,
    )
    optimizer = None
    if tower_learning_rate is not None:
        heads = [parameter for name, parameter in model.named_parameters() if not name.startswith("tower.")]
        groups = [{"params": heads}, {"params": model.tower.parameters(), "lr": tower_learning_rate}]
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=arguments.weight_decay)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        optimizers=(optimizer, None),
        callbacks=[_NewDrawForEveryEpoch(data)],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(arguments.output_dir))
    trainer.state.save_to_json(str(output / "trainer_state.json"))
    return trainer


def remove_checkpoints(output: Path) -> None:
    """Those of `fit_tower`: the next training in this folder, of the same settings, is a new one."""
    shutil.rmtree(output / _RUN)
