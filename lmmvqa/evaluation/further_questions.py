"""Figures of what a checkpoint answers beside score and level: dimensions of quality, and flaws in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmmvqa.evaluation.vqa_metric.vqa_metric import CONFIDENCE, drawn_weights, group_numbers, vqa_metrics
from lmmvqa.training.word_metrics import balanced_accuracy
from processing.questions import Question

# Columns of a run, and the question's name: the label, and the answer (of words their probabilities).
RATED, PREDICTED, LABEL, ANSWER = "rated_", "predicted_", "label_", "answer_"
COLUMNS = {f"{RATED}*": "float64", f"{PREDICTED}*": "float64", f"{LABEL}*": "string", f"{ANSWER}*": "map<float64>"}


def label_columns(questions: Sequence[Question], labels: Mapping[str, float | str]) -> dict[str, Any]:
    """The columns of a video's labels, and those of its answers with nothing in them yet."""
    row: dict[str, Any] = {}
    for question in questions:
        is_number = question.kind == "number"
        row[(RATED if is_number else LABEL) + question.name] = labels.get(question.name)
        row[(PREDICTED if is_number else ANSWER) + question.name] = None
    return row


def answer_columns(questions: Sequence[Question], answers: Mapping[str, Any], video: int) -> dict[str, Any]:
    """The columns of the answers about one video of a batch; `answers` are those of `QualityOutput`."""
    row: dict[str, Any] = {}
    for question in questions:
        answer = answers[question.name]
        if question.kind == "number":
            row[PREDICTED + question.name] = answer.value[video].item()
        elif answer.probabilities is None:
            row[ANSWER + question.name] = {answer.value[video]: 1.0}
        else:
            row[ANSWER + question.name] = dict(zip(answer.words, answer.probabilities[video].tolist(), strict=True))
    return row


def question_figures(
    questions: Sequence[Question], rows: Sequence[Mapping[str, Any]], resamples: int = 1000
) -> dict[str, dict[str, Any]]:
    """By the question's name, how right the answers are, over the videos that have a label and an answer.

    Returns:
        Of a number what `vqa_metrics` gives. Of words: `n`, `words`, `confusion` (a row for the label's first word, a
        column for the first answer), `accuracy` (the first answer is one of the label's words), `balanced_accuracy`
        with its 95 % `interval` (a bootstrap over contents where all are known), `majority` (the accuracy of always
        saying the commonest word) and `chance` (the balanced accuracy of any one word); and where labels name two words
        `either_first` and `both_in_three` of the answers.
    """
    found = {}
    for question in questions:
        number = question.kind == "number"
        label, answer = (RATED, PREDICTED) if number else (LABEL, ANSWER)
        columns = label + question.name, answer + question.name
        known = [row for row in rows if all(row.get(column) is not None for column in columns)]
        if not known:
            continue
        contents = [row.get("content") for row in known]
        groups = contents if all(contents) else None
        if number:
            predicted, rated = ([row[name + question.name] for row in known] for name in (answer, label))
            try:
                found[question.name] = vqa_metrics(predicted, rated, groups=groups, resamples=resamples)
            except ValueError as error:
                found[question.name] = {"n": len(known), "intervals": {}, "notes": [str(error)]}
            continue
        labels = [question.words(row[label + question.name]) for row in known]
        answers = [sorted(row[answer + question.name].items(), key=lambda pair: -pair[1]) for row in known]
        ranked = [[word for word, _ in each] for each in answers]
        found[question.name] = _word_figures(question, labels, ranked, groups, resamples)
    return found


def _word_figures(
    question: Question,
    labels: Sequence[Sequence[str]],
    ranked: Sequence[Sequence[str]],
    groups: Sequence[Any] | None,
    resamples: int,
) -> dict[str, Any]:
    first = [words[0] for words in ranked]
    places = {word: place for place, word in enumerate(question.answers)}
    confusion = np.zeros((len(places), len(places)), dtype=int)
    for label, word in zip(labels, first, strict=True):
        # One of two faults that is named counts as named rightly.
        confusion[places[word if word in label else label[0]], places[word]] += 1
    commonest, _ = Counter(word for label in labels for word in label).most_common(1)[0]
    figures: dict[str, Any] = {
        "n": len(labels),
        "words": list(question.answers),
        "confusion": confusion.tolist(),
        "accuracy": float(np.mean([word in label for word, label in zip(first, labels, strict=True)])),
        "balanced_accuracy": balanced_accuracy(first, labels),
        "interval": _interval(first, labels, groups, resamples),
        "majority": float(np.mean([commonest in label for label in labels])),
        "chance": 1 / len({label[0] for label in labels}),
    }
    two = [(words, label) for words, label in zip(ranked, labels, strict=True) if len(label) == 2]
    if two:
        figures["two"] = len(two)
        figures["either_first"] = float(np.mean([words[0] in label for words, label in two]))
        figures["both_in_three"] = float(np.mean([set(label) <= set(words[:3]) for words, label in two]))
    return figures


def _interval(
    found: Sequence[str], labels: Sequence[Sequence[str]], groups: Sequence[Any] | None, resamples: int
) -> list[float] | None:
    """Percentiles of the balanced accuracy in a bootstrap over videos, or over whole groups."""
    if not resamples:
        return None
    values = []
    for weights in drawn_weights(group_numbers(groups, len(found)), resamples, seed=0):
        for counts in weights.astype(int):
            chosen = np.repeat(np.arange(len(found)), counts).tolist()
            values.append(balanced_accuracy([found[place] for place in chosen], [labels[place] for place in chosen]))
    return np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
