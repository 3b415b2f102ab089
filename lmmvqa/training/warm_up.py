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
from modeling_lmmvqa.answer_tries import AnswerTrie
from modeling_lmmvqa.quality_read_out import expected_answer
from processing.questions import MAX_SCORE, Question

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.3
# The probability of the better word is the logistic function of so many times the cosine.
SHARPNESS = 5.0
# The logit of a word is so many times the cosines of the streams, added.
WORD_SHARPNESS = 20.0
# Errors below so many points count squared, those above linearly.
SQUARED_BELOW = 10.0
# Points of error that a nat of a word's cross-entropy weighs, and how often a rare word counts at most.
_WORD_WEIGHT, _RAREST = 2.0, 3.0


def warm_up(
    model: Any,
    collator: AnswerCollator,
    rows: Any,
    epochs: int,
    *,
    questions: Sequence[Question] = (),
    dropout: float = 0.0,
    seed: int = 0,
) -> list[float]:
    """Train the projectors of a model on features, without a pass through its decoder.

    Each stream's tokens have a mean cosine with the direction from the worst level word's embedding to the best one's;
    the logistic function makes it a probability, and the product over the streams is the score: a video is good when
    its pictures are and its motion is. The words are a pair of antonyms as in CLIP-IQA (Wang et al., "Exploring CLIP
    for assessing the look and feel of images"); not in the paper, whose projectors learn through the decoder alone.
    A question for unordered words is learned beside it: of each word the streams' cosines with its embedding are added.

    Args:
        model: a `LmmVqaForConditionalGeneration`; its projectors are changed.
        collator: with a cache.
        rows: each rated video once.
        questions: of these, those for unordered words are learned, from the videos that have an answer.
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
    words = []
    for question in questions:
        if question.kind == "words":
            targets = collator.targets(question, rows[question.name][:]).to(direction.device)
            counts = targets.sum(0)
            weights = (counts[counts > 0].mean() / counts.clamp(min=1e-6)).clamp(max=_RAREST)
            words.append((word_directions(model, collator.processor, question), targets, weights))
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
            tokens = model.model.project_features(
                **{name: value.to(direction.device) for name, value in videos.items()}
            )
            predicted = token_scores(tokens, model.config, direction)
            loss = nn.functional.smooth_l1_loss(predicted, ratings[batch], beta=SQUARED_BELOW)
            for directions, targets, weights in words:
                asked = targets[batch].sum(1) > 0
                if asked.any():
                    said = token_words(tokens, model.config, directions)
                    loss = loss - _WORD_WEIGHT * (targets[batch] * weights * said).sum(1)[asked].mean()
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
    cosines = _stream_cosines(videos, config, direction[None])[..., 0]
    return MAX_SCORE * torch.sigmoid(SHARPNESS * cosines).prod(1)


def token_words(videos: Sequence[torch.Tensor], config: Any, directions: torch.Tensor) -> torch.Tensor:
    """(videos, words) log-probabilities that the visual tokens (tokens, hidden size) of each video say, by the
    `word_directions` of a question."""
    return (WORD_SHARPNESS * _stream_cosines(videos, config, directions).sum(1)).log_softmax(1)


def _stream_cosines(videos: Sequence[torch.Tensor], config: Any, directions: torch.Tensor) -> torch.Tensor:
    """(videos, streams, directions), the mean cosine of the tokens of each stream with each of the directions
    (directions, hidden size)."""
    unit = nn.functional.normalize(directions, dim=-1)
    found = []
    for tokens in videos:
        chunks = (nn.functional.normalize(tokens, dim=-1) @ unit.T).unflatten(0, (-1, config.tokens_per_chunk))
        streams = chunks.split([config.num_spatial_tokens, config.num_temporal_tokens], dim=1)
        found.append(torch.stack([part.mean((0, 1)) for part in streams if part.numel()]))
    return torch.stack(found)


@torch.no_grad()
def word_direction(model: Any, processor: Any) -> torch.Tensor:
    """(hidden size,) from the embedding of the worst level word to that of the best; of a word of several tokens, their
    mean."""
    embeddings = model.get_input_embeddings()
    worst, *_, best = (
        embeddings(torch.tensor(processor.text_ids(level), device=embeddings.weight.device))
        for level in model.config.levels
    )
    return best.float().mean(0) - worst.float().mean(0)


@torch.no_grad()
def word_directions(model: Any, processor: Any, question: Question) -> torch.Tensor:
    """(answers, hidden size), the embedding of each answer as the read-out asks for it, its shortest beginning that no
    other answer shares, without what all answers have in common."""
    embeddings = model.get_input_embeddings()
    answers = AnswerTrie([processor.answer_ids(answer) for answer in question.answers]).answers
    means = torch.stack(
        [embeddings(torch.tensor(answer, device=embeddings.weight.device)).float().mean(0) for answer in answers]
    )
    return means - means.mean(0)
