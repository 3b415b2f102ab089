"""Features of several videos to one batch: what scoring, training and the pipeline share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature

from .tower_features import Features


def pad_left(sequences: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """(sequences, longest), filled up in front: what follows a prompt starts at the same place in every row."""
    return pad_sequence(list(sequences), batch_first=True, padding_value=value, padding_side="left")


def stack_features(features: Sequence[Features]) -> dict[str, torch.Tensor]:
    """Features of each video, `spatial_features` (chunks, tokens, channels) and perhaps `temporal_features`, as a batch
    padded to the most chunks, with `chunk_counts`."""
    streams = {name: pad_sequence([video[name] for video in features], batch_first=True) for name in features[0]}
    return {**streams, "chunk_counts": torch.tensor([len(video["spatial_features"]) for video in features])}


def assessment_prompts(
    processor: Any, chunk_counts: torch.Tensor, questions: Sequence[str] | None = None
) -> dict[str, Any]:
    """What `assess` takes beside the videos, for videos of `chunk_counts` (videos,) chunks; `questions` as `ask`."""
    prefixes = [torch.tensor(processor.assessment_prefix_ids(count)) for count in chunk_counts.tolist()]
    return {
        "input_ids": pad_left(prefixes, processor.tokenizer.pad_token_id),
        "attention_mask": pad_left([torch.ones_like(prefix) for prefix in prefixes], 0),
        "questions": processor.ask(questions),
    }


def assessment_inputs(
    processor: Any, features: Sequence[Features], questions: Sequence[str] | None = None
) -> BatchFeature:
    """What `assess` takes, for videos whose features are at hand.

    Args:
        questions: names of those to ask; without it all that the checkpoint was taught.
    """
    streams = stack_features(features)
    return BatchFeature(assessment_prompts(processor, streams["chunk_counts"], questions) | streams)
