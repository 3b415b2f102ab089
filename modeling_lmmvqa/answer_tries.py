"""Questions and their allowed answers as tokens of the language model: which are read, and which of them see which.

All answers that a question allows form a trie of tokens. The video, all questions, and every trie node where answers
part, go through the language model in one pass, as one prefix and branches that do not see each other. Arrays alone, so
that every way of running the language model lays them out alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


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
        # (2, answers, longest answer): which node's logits hold each token of an answer, and which token; -1 behind its
        # end.
        index = {node: i for i, node in enumerate(self.nodes)}
        steps = [[(index[answer[:depth]], token) for depth, token in enumerate(answer)] for answer in self.answers]
        longest = max(map(len, steps))
        rows = [row + [(-1, -1)] * (longest - len(row)) for row in steps]
        self.steps = np.moveaxis(np.array(rows, np.int64), 2, 0)

    def log_likelihoods(self, node_logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer among everything that the language model may say.

        Args:
            node_logits: (batch, nodes, vocabulary), the logits that follow each node, in the order of `nodes`.

        Returns:
            (batch, answers), float32; the probabilities of one row sum to 1 at most.
        """
        import torch

        # In the precision of the logits, the number of a token may be another's.
        nodes, tokens = torch.as_tensor(self.steps, device=node_logits.device)
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

    token_ids: np.ndarray
    depths: np.ndarray
    visible: np.ndarray
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

    visible = np.eye(len(token_ids), dtype=bool)
    depths = np.zeros(len(token_ids), np.int64)
    for position, parent in enumerate(parents):
        if parent >= 0:
            visible[position] |= visible[parent]
            depths[position] = depths[parent] + 1
    return Branches(np.array(token_ids, np.int64), depths, visible, nodes)


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


def lay_out_rows(
    input_ids: np.ndarray, attention_mask: np.ndarray, branches: Branches, cached: int = 0
) -> dict[str, Any]:
    """Prefixes of several videos, each followed by all branches, as a batch of the language model's inputs.

    Args:
        input_ids, attention_mask: (videos, length), the prefixes, padded on the left.
        cached: so many first tokens of each prefix are in the language model's cache already.

    Returns:
        input_ids and position_ids (videos, what is left to read), and `visible` (videos, what is left to read, all
        keys): what each token attends to.
    """
    positions = (attention_mask.cumsum(1) - 1).clip(min=0)
    depths = attention_mask.sum(1, keepdims=True) + branches.depths
    # The columns are keys: what is cached, the rest of the prefix, the branches. The rows are what is left to read. In
    # a row that is padded, cached tokens are left where padding would be.
    present = (attention_mask.astype(bool) & (positions >= cached))[:, cached:]
    length, count = input_ids.shape[1] - cached, len(branches.token_ids)
    visible = np.zeros((length + count, cached + length + count), bool)
    visible[:, :cached] = True
    visible[:length, cached : cached + length] = np.tri(length, dtype=bool)
    visible[length:, cached : cached + length] = True
    visible[length:, cached + length :] = branches.visible
    keys = np.pad(present, ((0, 0), (cached, count)), constant_values=True)
    branch_ids = np.broadcast_to(branches.token_ids, (len(input_ids), count))
    return {
        "input_ids": np.concatenate([input_ids[:, cached:], branch_ids], axis=1),
        "visible": visible & keys[:, None],
        "position_ids": np.concatenate([positions[:, cached:], depths], axis=1),
    }
