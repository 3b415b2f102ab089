"""The quality read-out of a model of torch: from the logits of the language model to a score, a level and every other
answer, exactly.

`answer_tries` lays the questions out; that gives the probability of every allowed answer, by its shortest beginning
that no other one shares, so the score is an expectation and nothing has to be sampled or parsed. `answers` does the
arithmetic.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from .answer_tries import Branches, lay_out_rows
from .answers import NumberAnswer, WordAnswer, mapped
from .answers import read_number as read_number_of_arrays
from .answers import read_words as read_words_of_arrays


class AskedQuestion(Protocol):
    """A question in tokens, as the processor makes it: `kind` is "number", "ranked" (words, worst first) or "words"."""

    name: str
    kind: str
    answers: Sequence[str]
    token_ids: tuple[int, ...]
    answer_ids: tuple[tuple[int, ...], ...]


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
    rows = lay_out_rows(input_ids.cpu().numpy(), attention_mask.cpu().numpy(), branches, cached)
    laid = {name: torch.from_numpy(array).to(input_ids.device) for name, array in rows.items()}
    visible = laid.pop("visible")[:, None]
    # An additive mask is understood by both attention implementations.
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return laid | {"attention_mask": mask.masked_fill_(~visible, torch.finfo(dtype).min)}


def read_number(
    log_probabilities: torch.Tensor, answer_map: Sequence[Sequence[float]] | None = None, interval_scale: float = 1.0
) -> NumberAnswer:
    """`answers.read_number` with tensors, on the device of the one that is given."""
    read = read_number_of_arrays(log_probabilities.cpu().double().numpy(), answer_map, interval_scale)
    arrays = (read.value, read.std, read.interval, read.probabilities)
    return NumberAnswer(*(torch.from_numpy(array).to(log_probabilities.device) for array in arrays))


def read_words(log_probabilities: torch.Tensor, words: Sequence[str], temperature: float = 1.0) -> WordAnswer:
    """`answers.read_words` with tensors, on the device of the one that is given."""
    read = read_words_of_arrays(log_probabilities.cpu().float().numpy(), words, temperature)
    return WordAnswer(words, read.value, torch.from_numpy(read.probabilities).to(log_probabilities.device))


def calibrated_number(answer: torch.Tensor, answer_map: Sequence[Sequence[float]] | None = None) -> torch.Tensor:
    """The number that `answer_map` makes of an answer."""
    return answer if answer_map is None else _mapped(answer, answer_map)


def expected_answer(number: torch.Tensor, answer_map: Sequence[Sequence[float]] | None) -> torch.Tensor:
    """The expected answer that `answer_map` turns into this number: what a calibrated model is to learn from a
    rating."""
    return number if answer_map is None else _mapped(number, [(after, before) for before, after in answer_map])


def _mapped(x: torch.Tensor, pairs: Sequence[Sequence[float]]) -> torch.Tensor:
    found = mapped(x.cpu().double().numpy(), pairs)
    return torch.from_numpy(np.asarray(found)).to(x.device)
