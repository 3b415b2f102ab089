"""The quality read-out: from the logits of the language model to a score, a level and every other answer, exactly.

All answers that a question allows form a trie of tokens. The video, all questions, and every trie node where answers
part, go through the language model in one pass, as one prefix and branches that do not see each other. That gives the
probability of every allowed answer, by its shortest beginning that no other one shares, so the score is an expectation
and nothing has to be sampled or parsed.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import torch

# Probability that lies outside the interval, half of it on each side.
INTERVAL_TAIL = 0.10


class UndefinedScore(ValueError):
    """The answers of a model are not finite numbers. The message names the remedy."""


class AskedQuestion(Protocol):
    """A question in tokens, as the processor makes it: `kind` is "number", "ranked" (words, worst first) or "words"."""

    name: str
    kind: str
    answers: Sequence[str]
    token_ids: tuple[int, ...]
    answer_ids: tuple[tuple[int, ...], ...]


@dataclass
class NumberAnswer:
    """What the model thinks of each video of a batch, asked for a number.

    Args:
        value: (videos,), 0 to 100: the expected number, calibrated as the model's config says.
        std: (videos,), its standard deviation, calibrated likewise; None where the answer was generated.
        interval: (videos, 2), its central 90 %; None where the answer was generated.
        probabilities: (videos, 101), of each whole number as an answer, before calibration; None where the answer was
            generated.
    """

    value: torch.Tensor
    std: torch.Tensor | None = None
    interval: torch.Tensor | None = None
    probabilities: torch.Tensor | None = None


@dataclass
class WordAnswer:
    """What the model thinks of each video of a batch, asked for a word.

    Args:
        words: every allowed word; of ranked ones the worst first.
        value: the most probable word of each video; None where a generated answer is none of them.
        probabilities: (videos, words); None where the answer was generated.
    """

    words: Sequence[str]
    value: list[str] | list[str | None]
    probabilities: torch.Tensor | None = None


@dataclass
class QualityOutput:
    """The answers to all questions that were asked about each video of a batch.

    Args:
        answers: by the question's name.
        errors: where answers were generated, what is wrong with those of each video, or None. The numbers of a video
            with an error are none (NaN), and its words None.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    errors: list[str | None] | None = None

    @property
    def score(self) -> torch.Tensor:
        """(videos,), 0 to 100, higher is better."""
        return self.answers["score"].value

    @property
    def score_std(self) -> torch.Tensor | None:
        """(videos,), in points."""
        return self.answers["score"].std

    @property
    def score_interval(self) -> torch.Tensor | None:
        """(videos, 2), central 90 % interval of the score."""
        return self.answers["score"].interval

    @property
    def score_probabilities(self) -> torch.Tensor | None:
        """(videos, 101), probability of each whole score as an answer, before calibration."""
        return self.answers["score"].probabilities

    @property
    def level(self) -> list[str] | list[str | None] | None:
        """The most probable level word of each video; None where the level was not asked for."""
        return self.answers["level"].value if "level" in self.answers else None

    @property
    def level_probabilities(self) -> torch.Tensor | None:
        """(videos, levels), worst level first."""
        return self.answers["level"].probabilities if "level" in self.answers else None

    def as_dicts(self) -> list[dict[str, dict[str, Any]]]:
        """The answers about each video by the question's name, of plain numbers rounded to what is meant: a number has
        `value`, `std` and `interval` (low, high), a word `value` and `probabilities` by word. For what was read out,
        not for what was generated."""
        columns: dict[str, list[dict[str, Any]]] = {}
        for name, answer in self.answers.items():
            if isinstance(answer, NumberAnswer):
                read: Any = answer
                numbers = zip(read.value.tolist(), read.std.tolist(), read.interval.tolist(), strict=True)
                columns[name] = [
                    {
                        "value": round(value, 4),
                        "std": round(std, 4),
                        "interval": tuple(round(bound, 4) for bound in bounds),
                    }
                    for value, std, bounds in numbers
                ]
            else:
                columns[name] = [
                    {
                        "value": value,
                        "probabilities": {word: round(p, 5) for word, p in zip(answer.words, row, strict=True)},
                    }
                    for value, row in zip(answer.value, answer.probabilities.tolist(), strict=True)
                ]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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


def read_number(
    log_probabilities: torch.Tensor,
    answer_map: Sequence[Sequence[float]] | None = None,
    interval_scale: float = 1.0,
) -> NumberAnswer:
    """Moments and interval of the distribution of a number.

    Args:
        log_probabilities: (videos, 101), of the answers 0 to 100.
        answer_map: pairs (expected answer, number), both rising: the expectation of an uncertain answer shrinks towards
            the middle of the scale, and this piecewise linear map undoes it. The identity by default.
        interval_scale: factor on the standard deviation, and on the distances between the number and the quantiles of
            the answer.
    """
    # Double precision: a second moment in single precision loses the small deviations.
    probabilities = log_probabilities.double().exp()
    answers = torch.arange(probabilities.shape[1], dtype=torch.float64, device=probabilities.device)
    interval = _central_interval(probabilities)
    value, values = probabilities @ answers, answers
    if answer_map is not None:
        value, values, interval = (_interpolate(x, answer_map) for x in (value, values, interval))
    variance = (probabilities * (values - value[:, None]) ** 2).sum(1)
    interval = (value[:, None] + interval_scale * (interval - value[:, None])).clamp(0, probabilities.shape[1] - 1)
    return NumberAnswer(
        value=value.float(),
        std=interval_scale * variance.sqrt().float(),
        interval=interval.float(),
        probabilities=probabilities.float(),
    )


def read_words(log_probabilities: torch.Tensor, words: Sequence[str], temperature: float = 1.0) -> WordAnswer:
    """The most probable word and the probabilities of all.

    Args:
        log_probabilities: (videos, words).
        temperature: divides the log-probabilities, so that above 1 no word is as sure.
    """
    probabilities = (log_probabilities / temperature).softmax(1)
    return WordAnswer(words, [words[index] for index in probabilities.argmax(1).tolist()], probabilities)


def calibrated_number(answer: torch.Tensor, answer_map: Sequence[Sequence[float]] | None = None) -> torch.Tensor:
    """The number that `answer_map` makes of an answer."""
    return answer if answer_map is None else _interpolate(answer.double(), answer_map)


def expected_answer(number: torch.Tensor, answer_map: Sequence[Sequence[float]] | None) -> torch.Tensor:
    """The expected answer that `answer_map` turns into this number: what a calibrated model is to learn from a
    rating."""
    if answer_map is None:
        return number
    return _interpolate(number.double(), [(after, before) for before, after in answer_map])


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
