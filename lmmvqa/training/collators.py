"""Rows of a question-and-answer data set to batches for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lmmvqa.training.feature_cache import FeatureCache, decode
from lmmvqa.training.watching import loss_names
from modeling_lmmvqa.answer_tries import AnswerTrie, lay_out_answers
from modeling_lmmvqa.feature_batches import pad_left, stack_features
from modeling_lmmvqa.quality_read_out import expected_answer, lay_out_batch
from processing.errors import InputError
from processing.questions import MAX_SCORE, Question

# Standard deviation, in points, of the answers that are right about a rating: no one rates to the point, and a
# neighbour of the rating is nearly as right.
SCORE_SPREAD = 4.0


@dataclass
class AnswerCollator:
    """Rows of a question-and-answer data set to a batch for `forward`.

    Sequences are padded on the left, so that all answers end together and logits are needed for the last few positions
    only: with a large vocabulary and a short answer this saves a fifth of a step.

    Args:
        cache: where the features of a row's video are, named in its column `features`; without it the batch holds the
            videos of the column `video`, for the towers to encode.
        processor: a `LmmVqaProcessor`.
        answer_maps: of the model's calibration, by the question's name. Numbers are learned as the answers that these
            turn into the ratings.
    """

    cache: FeatureCache | None
    processor: Any
    answer_maps: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor | int]:
        videos = self.video_inputs(rows)
        sequences, labels = zip(
            *(
                self._tokens(self._conversation(row), chunks)
                for row, chunks in zip(rows, videos["chunk_counts"].tolist(), strict=True)
            ),
            strict=True,
        )
        # From one position before the first answer: its first token is predicted there.
        kept = max(len(row) - next(i for i, label in enumerate(row) if label != -100) for row in labels) + 1
        input_ids = [torch.tensor(sequence) for sequence in sequences]
        return {
            "input_ids": pad_left(input_ids, self.processor.tokenizer.pad_token_id),
            "attention_mask": pad_left([torch.ones_like(sequence) for sequence in input_ids], 0),
            "labels": pad_left([torch.tensor(row[-kept:]) for row in labels], -100),
            "logits_to_keep": kept,
            "tasks": torch.tensor([loss_names(self.processor).index(row["task"]) for row in rows]),
            **videos,
        }

    def video_inputs(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """What `forward` takes for the videos of these rows: features, or without a cache the videos themselves."""
        if self.cache is not None:
            return stack_features([self.cache.load(row["features"]) for row in rows])
        decoded = [decode(self.processor.video_processor, row["video"]) for row in rows]
        batch = {
            name: torch.nn.utils.rnn.pad_sequence([video[name][0] for video in decoded], batch_first=True)
            for name in decoded[0]
            if name != "chunk_counts"
        }
        return {**batch, "chunk_counts": torch.cat([video["chunk_counts"] for video in decoded])}

    def targets(self, question: Question, labels: Sequence[Any]) -> torch.Tensor:
        """(videos, answers) probabilities that the answers ought to have: those near a rating, or an equal share for
        each word that a label names; all 0 for a video without a label."""
        targets = torch.zeros(len(labels), len(question.answers))
        for target, label in zip(targets, labels, strict=True):
            if label is None:
                continue
            if question.kind == "number":
                answer = expected_answer(torch.tensor([label]), self.answer_maps.get(question.name))
                target[:] = spread_over_answers(answer)[0]
            else:
                words = question.words(label)
                target[[question.answers.index(word) for word in words]] = 1 / len(words)
        return targets

    def _conversation(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The messages of a row; the answer of a rating as the model is to give it."""
        if (answer_map := self.answer_maps.get(row["task"])) is None:
            return row["messages"]
        answer = self.processor.question(row["task"]).answer(
            expected_answer(torch.tensor(row[row["task"]]), answer_map).item()
        )
        return [*row["messages"][:-1], {"role": "assistant", "content": [{"type": "text", "text": answer}]}]

    def _tokens(self, messages: list[dict[str, Any]], num_chunks: int) -> tuple[list[int], list[int]]:
        """Token ids of a conversation, and its labels: each answer with the end of its turn.

        Raises:
            ValueError: there is no answer, not exactly one video, or the chat template rewrites earlier turns.
        """
        processor, placeholders = self.processor, self.processor.video_placeholders(num_chunks)
        ids: list[int] = []
        labels: list[int] = []
        done = ""
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            chat = processor.apply_chat_template(messages[:turn], tokenize=False, add_generation_prompt=True)
            if not chat.startswith(done) or chat.count(processor.video_token) != 1:
                raise InputError(
                    "This conversation can't be trained on, because it has not exactly one video or its template "
                    f"rewrites it: {messages}"
                )
            question = chat[len(done) :].replace(processor.video_token, placeholders)
            question_ids = processor.text_ids(question)
            answer = "".join(block["text"] for block in message["content"]).strip()
            answer_ids = processor.answer_ids(answer)
            ids += question_ids + answer_ids
            labels += [-100] * len(question_ids) + answer_ids
            done = chat + answer + processor.end_of_turn
        if not done:
            raise InputError(f"This conversation has no answer to learn: {messages}")
        return ids, labels


@dataclass(frozen=True)
class AllowedAnswers:
    """Where the answers of each question stand among the logits of a batch: a trie, and the slice of its nodes."""

    tries: list[AnswerTrie]
    nodes: list[slice]

    def log_likelihoods(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """(rows, nodes of all tries, vocabulary) -> (rows, answers) for each question, among everything that may be
        said."""
        return [trie.log_likelihoods(logits[:, nodes]) for trie, nodes in zip(self.tries, self.nodes, strict=True)]

    def log_probabilities(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """The same, among the allowed answers."""
        return [trie.log_probabilities(logits[:, nodes]) for trie, nodes in zip(self.tries, self.nodes, strict=True)]


@dataclass
class ReadOutCollator(AnswerCollator):
    """Rows of rated videos, each once, to a batch for `forward` in which all allowed answers are asked for, as in
    `assess`.

    One pass teaches all questions, and of a number not the one right answer but every allowed one: those near the
    rating are nearly right. The words of a batch's questions are drawn by its first video. A question is not asked
    about a video that has no answer to it.

    Args:
        questions: names of those to ask.
        ends: answers that are right are said to their end, for likelihoods. Other answers are cut where they can be
            told from the rest, and a decoder that learned from these alone would not know where to stop.
    """

    questions: tuple[str, ...] = ("score",)
    ends: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        videos = self.video_inputs(rows)
        processor = self.processor
        asked = [
            question
            for question in map(processor.question, self.questions)
            if any(row[question.name] is not None for row in rows)
        ]
        targets = {question.name: self.targets(question, [row[question.name] for row in rows]) for question in asked}
        key = f"{rows[0]['source']}/{rows[0]['id']}/{rows[-1]['id']}"
        tries, branches = lay_out_answers(
            tuple(tuple(processor.question_ids(question.drawn(key))) for question in asked),
            tuple(tuple(tuple(processor.answer_ids(answer)) for answer in question.answers) for question in asked),
            tuple(map(_likeliest, targets.values())) if self.ends else None,
        )
        prefixes = [torch.tensor(processor.assessment_prefix_ids(count)) for count in videos["chunk_counts"].tolist()]
        input_ids = pad_left(prefixes, processor.tokenizer.pad_token_id)
        attention_mask = pad_left([torch.ones_like(prefix) for prefix in prefixes], 0)
        ends = torch.tensor([len(nodes) for nodes in branches.nodes]).cumsum(0).tolist()
        return {
            **lay_out_batch(input_ids, attention_mask, branches, dtype=torch.float32),
            **videos,
            "logits_to_keep": input_ids.shape[1]
            + torch.tensor([position for nodes in branches.nodes for position in nodes]),
            "answers": AllowedAnswers(tries, [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]),
            "targets": targets,
        }


def _likeliest(targets: torch.Tensor) -> frozenset[int]:
    """The places of the answers that are most right about any of the videos (videos, answers)."""
    right = (targets > 0) & (targets == targets.amax(1, keepdim=True))
    return frozenset(right.any(0).nonzero().flatten().tolist())


def spread_over_answers(answers: torch.Tensor) -> torch.Tensor:
    """(videos, 101) probabilities that the answers 0 to 100 ought to have where these (videos,) are right."""
    distances = torch.arange(MAX_SCORE + 1, device=answers.device) - answers[:, None]
    return (-0.5 * (distances / SCORE_SPREAD) ** 2).softmax(1).float()
