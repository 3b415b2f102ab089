"""The trainer: cross-entropy on the answer (paper, section III) or on the read-out, on features that are encoded
once."""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from huggingface_hub import HfApi
from scipy.stats import pearsonr, spearmanr
from torch.distributed.fsdp import register_fsdp_forward_method
from transformers import BatchFeature, PrinterCallback, ProgressCallback, Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from hub_cards.training_card import training_card
from lmmvqa.checkpoints.remote_code import PUBLIC_FILES
from lmmvqa.checkpoints.training_record import TrainingRecord
from lmmvqa.training.collators import spread_over_answers
from lmmvqa.training.telling import what_trains
from lmmvqa.training.warm_up import token_scores, token_words, word_direction, word_directions
from lmmvqa.training.watching import (
    DivergedError,
    LossWatch,
    ProgressDisplay,
    Throughput,
    WarmUpLog,
    loss_names,
    token_losses,
)
from lmmvqa.training.word_metrics import balanced_accuracy
from modeling_lmmvqa.feature_batches import assessment_prompts
from modeling_lmmvqa.quality_read_out import expected_answer
from processing.questions import Question

logger = logging.getLogger(__name__)


class LmmVqaTrainer(Trainer):
    """`Trainer` that reports losses by task, stops when it diverges, and evaluates with the quality read-out.

    Evaluation adds `eval_srcc` and `eval_plcc` with the ratings and `eval_level_accuracy` to the loss, so
    `metric_for_best_model: srcc` chooses by what the model is for. `lmmvqa.training.run.build_trainer` makes one from
    arguments.

    Args:
        tests: test splits by name, for evaluation after training.
        warm_up_errors: what `lmmvqa.training.warm_up.warm_up` returned, for the log of the run.
        record: what base and run learn from; it stands beside every set of weights that is saved.
        learned: the same in words, for the terminal and the card.
    """

    def __init__(
        self,
        *args: Any,
        tests: Mapping[str, Dataset] | None = None,
        warm_up_errors: Sequence[float] = (),
        record: TrainingRecord | None = None,
        learned: str = "",
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.tests = dict(tests or {})
        self.record, self.learned = record, learned
        self.throughput, self.loss_watch = Throughput(loss_names(self.processing_class)), LossWatch()
        # The library's own displays write to standard output, or count what means nothing to a user.
        for display in (PrinterCallback, ProgressCallback):
            self.remove_callback(display)
        self.add_callback(ProgressDisplay())
        self.add_callback(WarmUpLog(warm_up_errors))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """The library's. A run that begins measures its base on the validation part first."""
        self.args.eval_on_start = self.eval_dataset is not None and not resume_from_checkpoint
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy: over all tokens of the answers in the global batch, or with what the read-out should be, over
        all videos."""
        if "targets" in inputs:
            return self._read_out_loss(model, inputs, return_outputs)
        inputs = dict(inputs)
        tasks = inputs.pop("tasks")
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            losses, kept = token_losses(outputs.logits, inputs["labels"])
            self.throughput.count(
                len(tasks), inputs["attention_mask"].sum(), losses[kept], tasks[:, None].expand_as(kept)[kept]
            )
        return (loss, outputs) if return_outputs else loss

    def _read_out_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """Cross-entropy of the probabilities of all allowed answers with their targets, the questions added. Each
        answer weighs the same, so a question that few videos of a batch answer weighs little in it."""
        inputs = dict(inputs)
        answers, targets = inputs.pop("answers"), inputs.pop("targets")
        outputs = model(**inputs)
        if self.args.loss == "words":
            targets = self._word_targets(outputs.video_outputs.pooler_output, targets)
        read = (answers.log_probabilities if self.args.loss == "read_out" else answers.log_likelihoods)(outputs.logits)
        losses = [-(target * found).sum(1) for target, found in zip(targets.values(), read, strict=True)]
        loss = torch.stack([part.mean() for part in losses]).sum()
        if model.training:
            asked = [target.sum(1) > 0 for target in targets.values()]
            places = [
                torch.full_like(of, self.throughput.names.index(name), dtype=torch.long)[of]
                for name, of in zip(targets, asked, strict=True)
            ]
            told = [part.detach()[of] for part, of in zip(losses, asked, strict=True)]
            self.throughput.count(len(losses[0]), inputs["position_ids"].numel(), torch.cat(told), torch.cat(places))
            loss = loss / self.current_gradient_accumulation_steps
        return (loss, {"loss": loss, "logits": read[0]}) if return_outputs else loss

    @torch.no_grad()
    def _word_targets(
        self, videos: Sequence[torch.Tensor], targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The targets, with what the visual tokens of each video themselves say of the score and of unordered words."""
        model, processor = self.accelerator.unwrap_model(self.model), self.processing_class
        scores = token_scores(videos, model.config, word_direction(model, processor))
        answers = expected_answer(scores, self.data_collator.answer_maps.get("score"))
        said = {
            name: token_words(videos, model.config, word_directions(model, processor, processor.question(name))).exp()
            for name in targets
            if processor.question(name).kind == "words"
        }
        return {**targets, "score": spread_over_answers(answers), **said}

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """
        Raises:
            DivergedError: the loss is no number, or far above where it began.
        """
        loss = super().training_step(*args, **kwargs)
        # Of an accumulated batch this is a part, so it is made whole again.
        whole = loss.item() * self.current_gradient_accumulation_steps
        self.loss_watch.check(whole, self.state.global_step, self._last_checkpoint())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self.throughput.report(self.accelerator)
        super().log(logs, start_time)

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The library's, for the loss, and then the read-out on every rated video of the set, each once."""
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        rows = distinct_videos(dataloader.dataset)
        if rows:
            predictions = self.assess(rows)
            metrics = quality_metrics(predictions, rows, self.processing_class.questions) | {"n": len(rows)}
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def assess(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers to all questions about every row's video, by the question's name; the rows are shared out among
        the processes."""
        model, size = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        register_fsdp_forward_method(model, "assess")
        model.eval()
        predictions = []
        # Every process runs the model equally often, because a sharded model's parts come from all of them.
        with self.accelerator.split_between_processes(rows, apply_padding=True) as share:
            for start in range(0, len(share), size):
                videos = self.data_collator.video_inputs(share[start : start + size])
                inputs = BatchFeature(assessment_prompts(self.processing_class, videos["chunk_counts"]) | videos)
                read = model.assess(**inputs.to(self.args.device)).answers
                values = [
                    answer.value if isinstance(answer.value, list) else answer.value.tolist()
                    for answer in read.values()
                ]
                predictions += [dict(zip(read, row, strict=True)) for row in zip(*values, strict=True)]
        return gather_object(predictions)[: len(rows)] if self.accelerator.num_processes > 1 else predictions

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        broken = [
            name for name, weight in model.named_parameters() if weight.requires_grad and not weight.isfinite().all()
        ]
        if broken:
            raise DivergedError(
                f"Training diverged: {broken[0]} is not finite after step {self.state.global_step}, so no checkpoint "
                f"is written. Last good checkpoint: {self._last_checkpoint()}. Start again with a lower learning_rate."
            )
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        # All processes come here, and one writes.
        if self.record is not None and self.args.should_save:
            self.record.write(Path(output_dir or self.args.output_dir))

    def push_to_hub(
        self, commit_message: str | None = "End of training", blocking: bool = True, token: str | None = None, **_: Any
    ) -> Any:
        """Upload what loads the model, and its card; no other file of the run's folder leaves this machine.

        Raises:
            ValueError: the base is on this machine only.
        """
        self.args.check_base_is_public()
        if self.hub_model_id is None:
            self.init_hf_repo(token=token)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card()
        self._finish_current_push()
        return self._upload(self.args.output_dir, commit_message, token, run_as_future=not blocking)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if not busy or self.args.hub_always_push:
            message = f"Training in progress, step {self.state.global_step}"
            job = self._upload(checkpoint_folder, message, self.args.hub_token, run_as_future=True)
            if busy:
                self.push_in_progress.jobs.append(job)
            else:
                self.push_in_progress = PushInProgress([job])

    def _upload(self, folder: str, message: str | None, token: str | None, *, run_as_future: bool) -> Any:
        return HfApi().upload_folder(
            repo_id=self.hub_model_id,
            folder_path=folder,
            commit_message=message,
            token=token or self.args.hub_token,
            revision=self.args.hub_revision,
            run_as_future=run_as_future,
            allow_patterns=[*PUBLIC_FILES, "*.py", "README.md"],
            # A pattern's * takes slashes, too: the features and checkpoints below are not meant.
            ignore_patterns=["*/*"],
        )

    def create_model_card(self, **_: Any) -> None:
        """Write `README.md` of the output: what was trained from what, on what, and how well it does."""
        if not self.is_world_process_zero():
            return
        arguments, adapter = self.args, self.args.trains != "projectors+decoder"
        shown = (
            "trains",
            "tasks",
            "data_fraction",
            "num_train_epochs",
            "learning_rate",
            "weight_decay",
            "warmup_steps",
            "seed",
        )
        training_card(
            repository=self.hub_model_id or Path(arguments.output_dir).name,
            base=arguments.public_base,
            data=[source.spec.name for source in arguments.sources],
            results=self._last_results(),
            adapter=adapter,
            what=f"with {what_trains(arguments.trains)} trained",
            learned=self.learned,
            settings={name: getattr(arguments, name) for name in shown}
            | {
                "global batch": arguments.train_batch_size
                * arguments.gradient_accumulation_steps
                * arguments.world_size
            },
        ).save(Path(arguments.output_dir) / "README.md")

    def validation_figures(self) -> tuple[dict[str, float] | None, dict[str, float]] | None:
        """Metrics of the validation part of the base, and of the weights that are kept; None where nothing is
        validated, and no base where a run was begun by an older release."""
        entries = [entry for entry in self.state.log_history if "eval_loss" in entry]
        if not entries:
            return None
        kept = self.state.best_global_step if self.args.load_best_model_at_end else None
        tuned = next((entry for entry in reversed(entries) if entry["step"] == kept), entries[-1])
        base = entries[0] if entries[0]["step"] == 0 else None
        return tuple(
            entry and {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            for entry in (base, tuned)
        )

    def _last_results(self) -> dict[str, dict[str, float]]:
        """Read-out metrics of each split, as last measured."""
        results: dict[str, dict[str, float]] = {}
        # The longest names first: one may begin with another.
        splits = sorted(["eval", *self.tests], key=len, reverse=True)
        for entry in self.state.log_history:
            for name, value in entry.items():
                split = next((split for split in splits if name.startswith(f"{split}_")), None)
                if split and name.endswith(("_srcc", "_plcc", "_accuracy", "_n")):
                    results.setdefault(split, {})[name.removeprefix(f"{split}_")] = value
        return {"validation" if split == "eval" else split: result for split, result in results.items()}

    def _last_checkpoint(self) -> str | None:
        return last_checkpoint(self.args.output_dir)


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint of a run that was written to its end; its state is the last file to be written. One with a
    file that is damaged is left out, with a warning."""
    written = [path.parent for path in Path(output_dir).glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    for checkpoint in sorted(written, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        damaged = [file for file in sorted(checkpoint.glob("*.pt*")) if not _is_whole(file)]
        if not damaged:
            return str(checkpoint)
        logger.warning(
            "%s is damaged: training goes on from an earlier checkpoint, or from the beginning. Delete %s.",
            damaged[0],
            checkpoint,
        )
    return None


def _is_whole(file: Path) -> bool:
    """What PyTorch saves is a zip file, with a table of contents at its end and a checksum of each part, which PyTorch
    itself does not look at."""
    try:
        with zipfile.ZipFile(file) as parts:
            return parts.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):
        return False


def distinct_videos(rows: Dataset) -> list[dict[str, Any]]:
    """One row of each video that has a score."""
    return [rows[index] for index in rated_indices(rows)]


def rated_indices(rows: Dataset) -> list[int]:
    """The place of one row of each video that has a score."""
    first: dict[tuple[str, str], int] = {}
    for index, (source, name, score) in enumerate(zip(rows["source"], rows["id"], rows["score"], strict=True)):
        if score is not None:
            first.setdefault((source, name), index)
    return list(first.values())


def quality_metrics(
    predictions: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], questions: Sequence[Question]
) -> dict[str, float]:
    """How right the answers are, over the rows that have a label.

    Returns:
        Of the score `srcc` and `plcc` (raw); of other numbers `NAME_srcc` and `NAME_plcc`; of ranked words
        `NAME_accuracy`; of unordered words `NAME_balanced_accuracy`, the mean over the words of how many videos are
        rightly called so. A label that names several words is met by each of them, and counts for its first.
    """
    metrics: dict[str, float] = {}
    for question in questions:
        name = question.name
        known = [
            (found[name], row[name])
            for found, row in zip(predictions, rows, strict=True)
            if row.get(name) is not None and name in found
        ]
        if not known:
            continue
        found, labels = zip(*known, strict=True)
        if question.kind == "number":
            prefix = "" if name == "score" else f"{name}_"
            if len(set(labels)) > 1:
                # Answers that are all the same rank nothing.
                ranked = len(set(found)) > 1
                metrics[f"{prefix}srcc"] = float(spearmanr(found, labels).statistic) if ranked else 0.0
                metrics[f"{prefix}plcc"] = float(pearsonr(found, labels).statistic) if ranked else 0.0
            continue
        words = [question.words(label) for label in labels]
        if question.kind == "ranked":
            metrics[f"{name}_accuracy"] = fmean(word in label for word, label in zip(found, words, strict=True))
        else:
            metrics[f"{name}_balanced_accuracy"] = balanced_accuracy(found, words)
    return metrics


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
