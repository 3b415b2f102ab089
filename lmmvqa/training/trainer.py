"""The trainer: cross-entropy on the answer, projectors only (paper, section III), on features that are encoded once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from scipy.stats import pearsonr, spearmanr
from transformers import Trainer

from lmmvqa.training.feature_cache import FeatureCache
from modeling_lmmvqa.feature_batches import assessment_inputs, pad_left, stack_features

TRAINED_WEIGHTS = "trained.safetensors"
PROJECTORS = ("spatial_projector", "temporal_projector")


def freeze_all_but_projectors(model: torch.nn.Module) -> None:
    """What trains in the paper."""
    model.requires_grad_(False)
    for name in PROJECTORS:
        getattr(model.model, name, torch.nn.Module()).requires_grad_(True)


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers of what is ours in a checkpoint: the projectors."""
    prefixes = tuple(f"model.{name}." for name in PROJECTORS)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name.startswith(prefixes)}


def load_trained_state(model: torch.nn.Module, folder: str | os.PathLike) -> None:
    """Put weights that `trained_state` gave back into a model.

    Raises:
        FileNotFoundError: the folder holds none.
        RuntimeError: they belong to a model of another shape.
    """
    path = Path(folder) / TRAINED_WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {folder} is not an output of `lmmvqa train`.")
    state = load_file(path)
    expected = trained_state(model)
    if {name: tensor.shape for name, tensor in state.items()} != {name: tensor.shape for name, tensor in expected.items()}:
        raise RuntimeError(f"{path} belongs to a model with other projectors: check the model and its configuration.")
    model.load_state_dict(state, strict=False)


@dataclass
class AnswerCollator:
    """Rows of a question-and-answer data set to a batch for `forward`.

    Sequences are padded on the left, so that all answers end together and logits are needed for the last few positions
    only: with a large vocabulary and a short answer this saves a fifth of a step.
    """

    cache: FeatureCache
    processor: Any

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor | int]:
        features = [self.cache.load(video_path(row)) for row in rows]
        sequences, answers = [], []
        for row, feature in zip(rows, features, strict=True):
            prompt = [message for message in row["messages"] if message["role"] != "assistant"]
            answer = self.processor.answer_ids(row["answer"])
            prefix = self.processor.prefix_ids(prompt, len(feature["spatial_features"]))
            sequences.append(torch.tensor(prefix + self.processor.question_ids(prompt) + answer))
            answers.append(torch.tensor(answer))
        input_ids = pad_left(sequences, self.processor.tokenizer.pad_token_id)
        labels = pad_left(answers, -100)
        # One position more than the longest answer: the first token is predicted from the one before it.
        labels = torch.nn.functional.pad(labels, (1, 0), value=-100)
        return {
            "input_ids": input_ids,
            "attention_mask": pad_left([torch.ones_like(sequence) for sequence in sequences], 0),
            "labels": labels,
            "logits_to_keep": labels.shape[1],
            **stack_features(features),
        }


class LmmVqaTrainer(Trainer):
    """`Trainer` that saves what was trained and nothing else, and evaluates with the quality read-out.

    Evaluation scores every video of the evaluation set once and reports `eval_srcc` and `eval_plcc` with the ratings and
    `eval_level_accuracy`, so `metric_for_best_model="srcc"` chooses by what the model is for.
    """

    def __init__(self, *args: Any, cache: FeatureCache, **kwargs: Any):
        self.cache = cache
        super().__init__(*args, **kwargs)

    def fit_standardizers(self) -> None:
        """Measure the statistics of the features on the training set; done once, before the first step."""
        videos = sorted({video_path(row) for row in self.train_dataset})
        features = [self.cache.load(video) for video in videos]
        for name in PROJECTORS:
            if (projector := getattr(self.model.model, name, None)) is not None:
                stream = name.replace("projector", "features")
                projector.standardizer.fit(torch.cat([feature[stream].flatten(0, 1) for feature in features]))

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        rows = {row["id"]: row for row in (eval_dataset if eval_dataset is not None else self.eval_dataset)}
        predictions = self.assess(list(rows.values()))
        scores, ratings = [p["score"] for p in predictions], [row["score"] for row in rows.values()]
        right = [p["level"] == row["level"] for p, row in zip(predictions, rows.values(), strict=True)]
        metrics = {
            f"{metric_key_prefix}_srcc": float(spearmanr(scores, ratings).statistic),
            f"{metric_key_prefix}_plcc": float(pearsonr(scores, ratings).statistic),
            f"{metric_key_prefix}_level_accuracy": sum(right) / len(right),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def assess(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Score and level of every row's video, by the read-out."""
        model, size = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        model.eval()
        predictions = []
        for start in range(0, len(rows), size):
            features = [self.cache.load(video_path(row)) for row in rows[start : start + size]]
            inputs = assessment_inputs(self.processing_class, features)
            quality = model.assess(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
            predictions += [
                {"score": score, "level": level}
                for score, level in zip(quality.score.tolist(), quality.level, strict=True)
            ]
        return predictions

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        output = Path(output_dir or self.args.output_dir)
        output.mkdir(parents=True, exist_ok=True)
        save_file(trained_state(self.accelerator.unwrap_model(self.model)), output / TRAINED_WEIGHTS)
        torch.save(self.args, output / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained_state(model or self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        load_trained_state(self.model, self.state.best_model_checkpoint)


def video_path(row: dict[str, Any]) -> str:
    """The file of a row; its `video` is a path or an undecoded `datasets` video."""
    video = row["video"]
    return video if isinstance(video, str) else video["path"]
