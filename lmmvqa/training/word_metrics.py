"""How often words are right, where a label may name several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean


def rightly_called(found: Iterable[str], labels: Iterable[Sequence[str]]) -> dict[str, list[bool]]:
    """By the first word of the label, whether each answer is among the words of its label."""
    right: dict[str, list[bool]] = {}
    for word, label in zip(found, labels, strict=True):
        right.setdefault(label[0], []).append(word in label)
    return right


def balanced_accuracy(found: Iterable[str], labels: Iterable[Sequence[str]]) -> float:
    """The mean over the words of the share of their videos that are rightly called so: a word that is frequent weighs
    no more than a rare one."""
    return fmean(fmean(of) for of in rightly_called(found, labels).values())
