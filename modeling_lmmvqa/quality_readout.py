"""The quality read-out: from the logits of the language model to a score and a level, exactly.

All answers that a question allows form a trie of tokens. The video, both questions, and every trie node where answers
part, go through the language model in one pass, as one prefix and branches that do not see each other. That gives the
probability of every allowed answer, by its shortest beginning that no other one shares, so the score is an expectation
and nothing has to be sampled or parsed.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers.utils import ModelOutput

# Probability that lies outside the interval, half of it on each side.
INTERVAL_TAIL = 0.10


class UndefinedScore(ValueError):
    """The answers of a model are not finite numbers. The message names the remedy."""


@dataclass
class QualityOutput(ModelOutput):
    """What the model thinks of each video of a batch.

    Args:
        score: (videos,), 0 to 100, higher is better: the expected score, calibrated as the model's config says.
        score_std: (videos,), its standard deviation in points, calibrated likewise; None where the answer was
            generated.
        score_interval: (videos, 2), central 90 % interval of the score; None where the answer was generated.
        level: the most probable level word of each video; None where a generated answer is none.
        level_probabilities: (videos, levels), worst level first; None where the answer was generated.
        score_probabilities: (videos, 101), probability of each whole score as an answer, before calibration; None where
            the answer was generated.
        errors: where answers were generated, what is wrong with those of each video, or None. The score of a video with
            an error is not a number.
    """

    score: torch.Tensor | None = None
    score_std: torch.Tensor | None = None
    score_interval: torch.Tensor | None = None
    level: list[str] | list[str | None] | None = None
    level_probabilities: torch.Tensor | None = None
    score_probabilities: torch.Tensor | None = None
    errors: list[str | None] | None = None

    def as_dicts(self, levels: Sequence[str]) -> list[dict[str, Any]]:
        """One dictionary a video, of plain numbers rounded to what is meant: score, score_std, interval (low, high),
        level and level_probabilities by level word. For what was read out, not for what was generated."""
        read: Any = self
        return [
            {
                "score": round(score, 4),
                "score_std": round(std, 4),
                "interval": tuple(round(bound, 4) for bound in bounds),
                "level": level,
                "level_probabilities": {word: round(p, 5) for word, p in zip(levels, probabilities, strict=True)},
            }
            for score, std, bounds, level, probabilities in zip(
                read.score.tolist(),
                read.score_std.tolist(),
                read.score_interval.tolist(),
                read.level,
                read.level_probabilities.tolist(),
                strict=True,
            )
        ]


class AnswerTrie:
    """The allowed answers of one question, each cut to the shortest token prefix that no other answer shares.

    Args:
        answers: token ids of every answer, each ending with the token that closes the assistant's turn (without it "5"
            could not be told from the beginning of "57").
        whole: places of answers that are not cut, so that their likelihood is that of saying them to their end.

    Raises:
        ValueError: two answers are the same.
    """

    def __init__(self, answers: Sequence[Sequence[int]], whole: Collection[int] = ()):
        uses = Counter(tuple(answer[:length]) for answer in answers for length in range(1, len(answer) + 1))
        shared = {prefix for prefix, count in uses.items() if count > 1}
        self.answers: list[tuple[int, ...]] = []
        for place, answer in enumerate(map(tuple, answers)):
            length = next((n for n in range(1, len(answer) + 1) if answer[:n] not in shared), None)
            if length is None:
                raise ValueError(f"The answer with the tokens {list(answer)} is given twice, or is part of another.")
            self.answers.append(answer if place in whole else answer[:length])
        # The root is the question itself; every other node is what is said before the token of an answer. Parents come
        # first.
        begun = {answer[:length] for answer in self.answers for length in range(1, len(answer))}
        self.nodes: list[tuple[int, ...]] = [(), *sorted(begun, key=lambda prefix: (len(prefix), prefix))]
        # (answers, longest answer): which node's logits hold each token of an answer, and which token; -1 behind its
        # end.
        index = {node: i for i, node in enumerate(self.nodes)}
        steps = [[(index[answer[:depth]], token) for depth, token in enumerate(answer)] for answer in self.answers]
        longest = max(map(len, steps))
        self._steps = torch.tensor([row + [(-1, -1)] * (longest - len(row)) for row in steps]).movedim(2, 0)

    def log_likelihoods(self, node_logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer among everything that the language model may say.

        Args:
            node_logits: (batch, nodes, vocabulary), the logits that follow each node, in the order of `nodes`.

        Returns:
            (batch, answers), float32; the probabilities of one row sum to 1 at most.
        """
        nodes, tokens = self._steps.to(node_logits.device)
        steps = node_logits.float().log_softmax(-1)[:, nodes, tokens].masked_fill(nodes < 0, 0.0)
        return steps.sum(2)

    def log_probabilities(self, node_logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer, given that the answer is an allowed one: (batch, answers), as
        `log_likelihoods` takes and returns them, but the probabilities of one row sum to 1."""
        return self.log_likelihoods(node_logits).log_softmax(-1)


@dataclass
class Branches:
    """Several questions with their tries, laid out as one row of tokens behind a shared prefix.

    Args:
        token_ids: (length,), the tokens of all branches.
        depths: (length,), distance of each token from the end of the prefix, 0 for a first token.
        visible: (length, length), whether the token of a row attends to that of a column: its ancestors and itself.
        nodes: for each trie the positions whose logits belong to its nodes.
    """

    token_ids: torch.Tensor
    depths: torch.Tensor
    visible: torch.Tensor
    nodes: list[list[int]]


def lay_out_branches(questions: Sequence[Sequence[int]], tries: Sequence[AnswerTrie]) -> Branches:
    """Lay out each question, followed by the nodes of its trie, as a branch of its own."""
    token_ids: list[int] = []
    parents: list[int] = []
    nodes: list[list[int]] = []

    def append(token: int, parent: int) -> int:
        token_ids.append(token)
        parents.append(parent)
        return len(token_ids) - 1

    for question, trie in zip(questions, tries, strict=True):
        position = -1
        for token in question:
            position = append(token, position)
        positions: dict[tuple[int, ...], int] = {(): position}
        for node in trie.nodes[1:]:
            positions[node] = append(node[-1], positions[node[:-1]])
        nodes.append([positions[node] for node in trie.nodes])

    visible = torch.eye(len(token_ids), dtype=torch.bool)
    depths = torch.zeros(len(token_ids), dtype=torch.long)
    for position, parent in enumerate(parents):
        if parent >= 0:
            visible[position] |= visible[parent]
            depths[position] = depths[parent] + 1
    return Branches(torch.tensor(token_ids), depths, visible, nodes)


@lru_cache(maxsize=8)
def lay_out_answers(
    questions: tuple[tuple[int, ...], ...],
    answers: tuple[tuple[tuple[int, ...], ...], ...],
    whole: tuple[frozenset[int], ...] | None = None,
) -> tuple[list[AnswerTrie], Branches]:
    """The tries of the allowed answers, with those at the places `whole` of each question not cut, and the branches of
    the questions: when scoring the same for every video, so made once."""
    tries = [AnswerTrie(*question) for question in zip(answers, whole or [()] * len(answers), strict=True)]
    return tries, lay_out_branches(questions, tries)


def lay_out_batch(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, branches: Branches, *, dtype: torch.dtype, cached: int = 0
) -> dict[str, torch.Tensor]:
    """Prefixes of several videos, each followed by all branches, as a batch of the language model's inputs.

    Args:
        input_ids, attention_mask: (videos, length), the prefixes, padded on the left.
        dtype: of the additive mask; that of the model's states.
        cached: so many first tokens of each prefix are in the language model's cache already.

    Returns:
        input_ids and position_ids (videos, what is left to read), and attention_mask (videos, 1, what is left to read,
        all keys).
    """
    num_videos, device = len(input_ids), input_ids.device
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    depths = attention_mask.sum(1, keepdim=True) + branches.depths.to(device)
    # The columns are keys: what is cached, the rest of the prefix, the branches. The rows are what is left to read. In
    # a row that is padded, cached tokens are left where padding would be.
    present = (attention_mask.bool() & (positions >= cached))[:, cached:]
    length = input_ids.shape[1] - cached
    visible = torch.zeros(
        length + len(branches.token_ids), length + len(branches.token_ids), dtype=torch.bool, device=device
    )
    visible[:length, :length] = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    visible[length:, :length] = True
    visible[length:, length:] = branches.visible.to(device)
    hidden_keys = torch.nn.functional.pad(~present, (cached, len(branches.token_ids)))
    visible = torch.nn.functional.pad(visible, (cached, 0), value=True) & ~hidden_keys[:, None]
    # An additive mask is understood by both attention implementations.
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
    return {
        "input_ids": torch.cat([input_ids[:, cached:], branches.token_ids.to(device).expand(num_videos, -1)], dim=1),
        "attention_mask": mask[:, None],
        "position_ids": torch.cat([positions[:, cached:], depths], dim=1),
    }


def read_out(
    score_log_probabilities: torch.Tensor,
    level_log_probabilities: torch.Tensor | None = None,
    levels: Sequence[str] = (),
    score_map: Sequence[Sequence[float]] | None = None,
    interval_scale: float = 1.0,
    level_temperature: float = 1.0,
) -> QualityOutput:
    """Moments, interval and level from the two answer distributions.

    Args:
        score_log_probabilities: (videos, 101), for the scores 0 to 100.
        level_log_probabilities: (videos, levels), worst level first; None where the level was not asked for.
        score_map: pairs (expected answer, score), both rising: the expectation of an uncertain answer shrinks towards
            the middle of the scale, and this piecewise linear map undoes it. The identity by default.
        interval_scale: factor on the standard deviation, and on the distances between the score and the quantiles of
            the answer.
        level_temperature: divides the log-probabilities of the levels, so that above 1 none is as sure.
    """
    # Double precision: a second moment in single precision loses the small deviations.
    probabilities = score_log_probabilities.double().exp()
    answers = torch.arange(probabilities.shape[1], dtype=torch.float64, device=probabilities.device)
    interval = _central_interval(probabilities)
    score, values = probabilities @ answers, answers
    if score_map is not None:
        score, values, interval = (_interpolate(x, score_map) for x in (score, values, interval))
    variance = (probabilities * (values - score[:, None]) ** 2).sum(1)
    interval = (score[:, None] + interval_scale * (interval - score[:, None])).clamp(0, probabilities.shape[1] - 1)
    quality = QualityOutput(
        score=score.float(),
        score_std=interval_scale * variance.sqrt().float(),
        score_interval=interval.float(),
        score_probabilities=probabilities.float(),
    )
    if level_log_probabilities is not None:
        quality.level_probabilities = (level_log_probabilities / level_temperature).softmax(1)
        quality.level = [levels[index] for index in quality.level_probabilities.argmax(1).tolist()]
    return quality


def calibrated_score(answer: torch.Tensor, score_map: Sequence[Sequence[float]] | None) -> torch.Tensor:
    """The score that `score_map` makes of an answer."""
    return answer if score_map is None else _interpolate(answer.double(), score_map)


def expected_answer(score: torch.Tensor, score_map: Sequence[Sequence[float]] | None) -> torch.Tensor:
    """The expected answer that `score_map` turns into this score: what a calibrated model is to learn from a rating."""
    if score_map is None:
        return score
    return _interpolate(score.double(), [(after, before) for before, after in score_map])


def _interpolate(x: torch.Tensor, pairs: Sequence[Sequence[float]]) -> torch.Tensor:
    """The piecewise linear map through `pairs`, constant beyond the first and the last."""
    xs, ys = torch.tensor(pairs, dtype=x.dtype, device=x.device).T.contiguous()
    x = x.clamp(xs[0], xs[-1])
    right = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])


def _central_interval(probabilities: torch.Tensor) -> torch.Tensor:
    """The two quantiles that leave half of `INTERVAL_TAIL` outside, each whole score spread evenly over its point.

    Spreading makes the interval a continuous function of the probabilities.
    """
    cumulated = probabilities.cumsum(1)
    bounds = []
    for quantile in (INTERVAL_TAIL / 2, 1 - INTERVAL_TAIL / 2):
        target = torch.full_like(cumulated[:, :1], quantile)
        score = torch.searchsorted(cumulated, target).clamp(max=probabilities.shape[1] - 1)
        inside = probabilities.gather(1, score).clamp(min=1e-12)
        fraction = ((target - cumulated.gather(1, score)) / inside + 1).clamp(0, 1)
        bounds.append((score + fraction - 0.5).clamp(0, probabilities.shape[1] - 1))
    return torch.cat(bounds, dim=1)
