"""Projectors before they learn through the decoder: their tokens learn to say good or poor in the decoder's own words.

A step through a decoder takes seconds on a processor, so that a projector that starts from noise learns from few of
them. Without it the same projector sees every video dozens of times within minutes, and the decoder then has to learn
only to read a direction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import nn

from lmmvqa.training.adapters import PROJECTORS
from lmmvqa.training.collators import AnswerCollator
from modeling_lmmvqa.quality_readout import expected_answer
from processing.questions import MAX_SCORE

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.3
# The probability of the better word is the logistic function of so many times the cosine.
SHARPNESS = 5.0
# Errors below so many points count squared, those above linearly.
SQUARED_BELOW = 10.0


def warm_up(
    model: Any, collator: AnswerCollator, rows: Any, epochs: int, *, dropout: float = 0.0, seed: int = 0
) -> list[float]:
    """Train the projectors of a model on features, without a pass through its decoder.

    Each stream's tokens have a mean cosine with the direction from the worst level word's embedding to the best one's;
    the logistic function makes it a probability, and the product over the streams is the score: a video is good when
    its pictures are and its motion is. The words are a pair of antonyms as in CLIP-IQA (Wang et al., "Exploring CLIP
    for assessing the look and feel of images"); not in the paper, whose projectors learn through the decoder alone.

    Args:
        model: a `LmmVqaForConditionalGeneration`; its projectors are changed.
        collator: with a cache.
        rows: each rated video once.
        dropout: of the projectors.
        epochs: over the rows, at least 1; the learning rate rises for a tenth of them and then falls to zero.

    Returns:
        Of each epoch, the mean absolute error in points, as the projectors were when they saw a video.
    """
    parts = [
        getattr(model.model, name).float().requires_grad_(True) for name in PROJECTORS if hasattr(model.model, name)
    ]
    for part in parts:
        part.dropout.p = dropout
    parameters = [parameter for part in parts for parameter in part.parameters()]
    direction = word_direction(model, collator.processor)
    ratings = (
        expected_answer(torch.tensor(rows["score"][:]), collator.answer_maps.get("score")).float().to(direction.device)
    )
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(rows) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    random = torch.Generator().manual_seed(seed)
    names = rows["features"][:]
    model.train()
    means = []
    for _ in range(epochs):
        errors = []
        for batch in torch.randperm(len(rows), generator=random).split(BATCH_SIZE):
            videos = collator.video_inputs([{"features": names[index]} for index in batch])
            predicted = word_scores(
                model.model, {name: value.to(direction.device) for name, value in videos.items()}, direction
            )
            loss = nn.functional.smooth_l1_loss(predicted, ratings[batch], beta=SQUARED_BELOW)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            errors += (predicted.detach() - ratings[batch]).abs().tolist()
        means.append(fmean(errors))
    logger.info("Warm-up: %d epochs, mean absolute error %.1f points over the last.", epochs, means[-1])
    return means


def word_scores(model: Any, videos: dict[str, torch.Tensor], direction: torch.Tensor) -> torch.Tensor:
    """(videos,) scores in 0 to 100 that the tokens of a `LmmVqaModel` say along a direction of word embeddings (hidden
    size,)."""
    return token_scores(model.project_features(**videos), model.config, direction)


def token_scores(videos: Sequence[torch.Tensor], config: Any, direction: torch.Tensor) -> torch.Tensor:
    """`word_scores` of the visual tokens (tokens, hidden size) of each video."""
    scores = []
    for tokens in videos:
        chunks = nn.functional.cosine_similarity(tokens, direction, dim=-1).unflatten(0, (-1, config.tokens_per_chunk))
        streams = [
            part.mean()
            for part in chunks.split([config.num_spatial_tokens, config.num_temporal_tokens], dim=1)
            if part.numel()
        ]
        scores.append(MAX_SCORE * torch.sigmoid(SHARPNESS * torch.stack(streams)).prod())
    return torch.stack(scores)


@torch.no_grad()
def word_direction(model: Any, processor: Any) -> torch.Tensor:
    """(hidden size,) from the embedding of the worst level word to that of the best; of a word of several tokens, their
    mean."""
    embeddings = model.get_input_embeddings()
    worst, *_, best = (
        embeddings(torch.tensor(processor.text_ids(level), device=embeddings.weight.device))
        for level in processor.levels
    )
    return best.float().mean(0) - worst.float().mean(0)
