"""What a run says while it goes on, and when it must stop."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from lmmvqa.console import messages
from lmmvqa.training.telling import figures
from processing.errors import LmmVqaError

logger = logging.getLogger(__name__)

# A run has diverged when its mean loss over this many steps is this many times that of its first steps.
_WINDOW = 20
_DIVERGED = 3.0
# Rows of general data (captions, instructions) belong to no question of quality.
GENERAL = "general"


def loss_names(processor: Any) -> tuple[str, ...]:
    """What losses are reported of: each question, and general data."""
    return (*(question.name for question in processor.questions), GENERAL)


class DivergedError(LmmVqaError, RuntimeError):
    """Training can't go on. The message says since when, and from where to start again."""


class LossWatch:
    """Stops a run whose loss is no number, or grows far beyond where it began."""

    def __init__(self) -> None:
        self.first: deque[float] = deque(maxlen=_WINDOW)
        self.last: deque[float] = deque(maxlen=_WINDOW)

    def check(self, loss: float, step: int, last_checkpoint: str | None) -> None:
        """
        Raises:
            DivergedError: `loss` is not finite, or the mean of the last losses is three times that of the first.
        """
        if len(self.first) < _WINDOW:
            self.first.append(loss)
        self.last.append(loss)
        begin, now = (sum(losses) / len(losses) for losses in (self.first, self.last))
        if not math.isfinite(loss):
            what = f"the loss of step {step + 1} is {loss}"
        elif now > _DIVERGED * begin:
            what = f"the mean loss of the last {_WINDOW} steps is {now:.3g}, that of the first was {begin:.3g}"
        else:
            return
        kept = (
            f"The last good checkpoint is {last_checkpoint}." if last_checkpoint else "No checkpoint was written yet."
        )
        raise DivergedError(
            f"Training diverged: {what}. {kept} Start again, in another output_dir, with a lower learning_rate, more "
            "warmup_steps or a lower max_grad_norm."
        )


class Throughput:
    """Videos, tokens and losses by name since the last report, on this process."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.reset()

    def reset(self) -> None:
        self.start = time.perf_counter()
        self.counts = torch.zeros(2 + 2 * len(self.names), dtype=torch.float64)

    def count(self, videos: int, tokens: torch.Tensor | int, losses: torch.Tensor, tasks: torch.Tensor) -> None:
        """Count a batch.

        Args:
            videos: rows of the batch, `tokens` of all of them.
            losses: (n,), of each answer's token or each answer, without a gradient.
            tasks: (n,), places among the names.
        """
        counts = self.counts.to(losses.device)
        counts[0] += videos
        counts[1] += tokens
        counts[2::2] += torch.zeros(len(self.names), device=losses.device).index_add(0, tasks, losses.float())
        counts[3::2] += torch.bincount(tasks, minlength=len(self.names))
        self.counts = counts

    def report(self, accelerator: Any) -> dict[str, float]:
        """Rates over all processes, and the mean loss of each task; begins anew."""
        counts = accelerator.reduce(self.counts.to(accelerator.device, torch.float32), "sum").tolist()
        seconds = time.perf_counter() - self.start
        self.reset()
        logs = {"videos_per_second": round(counts[0] / seconds, 3), "tokens_per_second": round(counts[1] / seconds, 1)}
        for index, name in enumerate(self.names):
            if tokens := counts[3 + 2 * index]:
                logs[f"loss_{name}"] = counts[2 + 2 * index] / tokens
        return logs


@torch.no_grad()
def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each next token (rows, positions - 1), and which of them count.

    Args:
        logits: (rows, positions, vocabulary).
        labels: (rows, positions), -100 where nothing is to be learned.
    """
    shifted = labels[:, 1:]
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), shifted.flatten(), ignore_index=-100, reduction="none"
    )
    return losses.view(shifted.shape), shifted != -100


class WarmUpLog(TrainerCallback):
    """The errors of the projectors' warm-up, before the first step in the run's log: `warm_up_epoch`, and
    `warm_up_error` in points."""

    def __init__(self, errors: Sequence[float]):
        self.entries = [{"warm_up_epoch": epoch, "warm_up_error": error} for epoch, error in enumerate(errors, 1)]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.log_history = self.entries + state.log_history


class ProgressDisplay(TrainerCallback):
    """A line on standard error: steps, time left, loss now and at first. Where that is no terminal, a line for each
    report."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.start, self.start_step = time.perf_counter(), state.global_step
        # Of a run that goes on, the first of all.
        self.first_loss = next((entry["loss"] for entry in state.log_history if "loss" in entry), None)
        # A run of a few steps is reported ten times, too.
        state.logging_steps = max(1, min(state.logging_steps, state.max_steps // 10))
        columns = (
            "Training",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        shown = messages.is_terminal and state.is_world_process_zero
        self.progress = Progress(*columns, console=messages, disable=not shown)
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step)
        self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            self.first_loss = logs["loss"] if self.first_loss is None else self.first_loss
            text = (
                f"loss {logs['loss']:.3f} (at first {self.first_loss:.3f}), {logs['videos_per_second']:.1f} questions/s"
            )
            self.progress.update(self.task, description=text)
            if not messages.is_terminal:
                logger.info(
                    "Step %d of %d, epoch %.1f of %g: %s, %s left",
                    state.global_step,
                    state.max_steps,
                    state.epoch or 0,
                    state.num_train_epochs,
                    text,
                    self._time_left(state),
                )
        elif "eval_loss" in logs:
            when = f"after step {state.global_step}" if state.global_step else "before training"
            logger.info("Validation %s: %s", when, figures(logs, "eval"))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.stop()

    def _time_left(self, state: Any) -> str:
        done = max(1, state.global_step - self.start_step)
        seconds = (time.perf_counter() - self.start) / done * (state.max_steps - state.global_step)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
