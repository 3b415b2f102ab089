"""Questions with a closed set of answers, as data: what a processor holds, and what its decoder was taught.

An answer is a whole number from 0 to 100, or one of some words. Whole numbers are as fine as opinion is; the expected
number of the read-out is continuous all the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal, TypeVar

from .errors import LmmVqaError

Kind = Literal["number", "ranked", "words"]
KINDS: tuple[Kind, ...] = ("number", "ranked", "words")
MAX_SCORE = 100
# Between the words of a label that names several.
SEPARATOR = ";"

# How a question is asked that brings no words of its own.
NUMBER_RESTRICTIONS = (
    "Answer with a number from 0 to 100.",
    "Reply with one whole number between 0 (worst) and 100 (best).",
    "Only give a number from 0 to 100.",
    "Your answer is a single number, 0 to 100.",
)
WORD_RESTRICTIONS = (
    "Answer with one word: {answers}.",
    "Reply with {answers} and nothing else.",
    "Only say {answers}.",
    "Your answer is one of these words: {answers}.",
)
NUMBER_INSTRUCTIONS = (
    "How good is the {name} of this video?",
    "Rate the {name} of this video.",
    "What score does this video deserve for its {name}?",
    "Score this video by its {name} alone.",
    "How would viewers rate the {name} of this clip?",
    "Judge the {name} of this video and nothing else.",
    "Give the {name} of this video as a number.",
    "Considering every frame, how good is the {name} of this clip?",
)
_WORD_INSTRUCTIONS = (
    "What is the {name} of this video?",
    "Name the {name} of this video.",
    "Which {name} does this video have?",
    "Classify this video by its {name}.",
    "What would viewers call the {name} of this clip?",
    "Decide on the {name} of this video.",
    "Put the {name} of this video into a word.",
    "Considering every frame, what is the {name} of this clip?",
)


class AnswerError(LmmVqaError, ValueError):
    """An answer that is not in the answer format. Never replaced by a default."""


class QuestionError(LmmVqaError, ValueError):
    """A question that can't be asked. The message names it and the remedy."""


@dataclass(frozen=True)
class Question:
    """A question about a video, all ways of asking it, and all answers that it allows.

    Args:
        name: a lower-case word. A label file's column of this name holds the answers.
        kind: "number" (0 worst, 100 best), "ranked" (words, worst first) or "words" (in no order; of a video several
            may be right).
        instructions, restrictions: ways of asking, of which training draws and inference takes the first. By default
            they are made of the name. "{answers}" in a restriction stands for the words.
        answers: the words; of a number "0" to "100", and nothing to be given.
        bounds: of ranked words that part a score: the points above which each word but the worst begins. Without them
            the parts are equal.

    Raises:
        QuestionError: a field has a value that can't be.
    """

    name: str
    kind: Kind
    instructions: Sequence[str] = ()
    restrictions: Sequence[str] = ()
    answers: Sequence[str] = ()
    bounds: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", str(self.name)):
            raise QuestionError(
                f"{self.name!r} can't be the name of a question: take lower-case letters, such as flaw."
            )
        if self.kind not in KINDS:
            raise QuestionError(f"The question {self.name} has the kind {self.kind!r}: choose {', '.join(KINDS)}.")
        numbers = tuple(str(value) for value in range(MAX_SCORE + 1))
        answers = tuple(self.answers) or (numbers if self.kind == "number" else ())
        if self.kind == "number" and answers != numbers:
            raise QuestionError(
                f"The question {self.name} asks for a number from 0 to {MAX_SCORE}: give it no answers."
            )
        if len(set(answers)) < len(answers) or len(answers) < 2 or not all(answers):
            raise QuestionError(
                f"The question {self.name} allows {', '.join(map(repr, answers)) or 'no answers'}: give it at least "
                "two different words."
            )
        bounds = tuple(map(float, self.bounds))
        if bounds and (
            self.kind != "ranked"
            or len(bounds) != len(answers) - 1
            or any(low >= high for low, high in pairwise((0.0, *bounds, float(MAX_SCORE))))
        ):
            raise QuestionError(
                f"The question {self.name} has the bounds {', '.join(map('{:g}'.format, bounds))}: give ranked words "
                f"one less than there are, rising, between 0 and {MAX_SCORE}."
            )
        listed = f"{', '.join(answers[:-1])} or {answers[-1]}"
        is_number = self.kind == "number"
        instructions = self.instructions or (NUMBER_INSTRUCTIONS if is_number else _WORD_INSTRUCTIONS)
        restrictions = self.restrictions or (NUMBER_RESTRICTIONS if is_number else WORD_RESTRICTIONS)
        shown = self.name.replace("_", " ")
        for field, value in (
            ("answers", answers),
            ("bounds", bounds),
            ("instructions", tuple(text.replace("{name}", shown) for text in instructions)),
            ("restrictions", tuple(text.replace("{answers}", listed) for text in restrictions)),
        ):
            object.__setattr__(self, field, value)

    @classmethod
    def of(cls, data: Question | Mapping[str, Any]) -> Question:
        """The question that a mapping of its fields describes.

        Raises:
            QuestionError: a field is unknown, or has a value that can't be.
        """
        if isinstance(data, Question):
            return data
        if not isinstance(data, Mapping):
            raise QuestionError(f"{data!r} is no question: write its name, or a mapping of its fields.")
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise QuestionError(f"A question has no field {', '.join(unknown)}: known are {', '.join(known)}.")
        if missing := [name for name in ("name", "kind") if name not in data]:
            raise QuestionError(f"The question {dict(data)} lacks {' and '.join(missing)}.")
        return cls(**data)

    def as_data(self) -> dict[str, Any]:
        """The question as JSON holds it."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind}
        data |= {name: list(getattr(self, name)) for name in ("instructions", "restrictions")}
        data |= {} if self.kind == "number" else {"answers": list(self.answers)}
        return data | ({"bounds": list(self.bounds)} if self.bounds else {})

    @property
    def fixed(self) -> str:
        """What inference and evaluation ask: the first instruction with the first restriction."""
        return f"{self.instructions[0]} {self.restrictions[0]}"

    def drawn(self, key: str, *, seed: int = 0) -> str:
        """What training asks, drawn by a hash: the same `key` (a video's id) and `seed` draw the same words on every
        machine, and the questions about a video are drawn independently."""
        digest = hashlib.sha256(f"{seed}/{self.name}/{key}".encode()).digest()
        instruction = self.instructions[int.from_bytes(digest[:8], "big") % len(self.instructions)]
        restriction = self.restrictions[int.from_bytes(digest[8:16], "big") % len(self.restrictions)]
        return f"{instruction} {restriction}"

    def answer(self, value: float | str) -> str:
        """The answer that a rating (0 to 100) or a label means: the nearest whole number, or the first word.

        Raises:
            ValueError: the rating is not in [0, 100], or a word is not allowed.
        """
        return format_score(float(value)) if self.kind == "number" else self.words(str(value))[0]

    def words(self, label: str) -> tuple[str, ...]:
        """The allowed words that a label names, the most important first: only of the kind "words" it may name several.

        Raises:
            AnswerError: it names something else.
        """
        parts = label.split(SEPARATOR) if self.kind == "words" else [label]
        known = {word.lower(): word for word in self.answers}
        if unknown := [part.strip() for part in parts if part.strip().lower() not in known]:
            raise AnswerError(
                f"{unknown[0]!r} is no answer to the question {self.name}: expected one of {', '.join(self.answers)}."
            )
        return tuple(dict.fromkeys(known[part.strip().lower()] for part in parts))

    def parse(self, text: str) -> float | str:
        """The number or word that a generated answer states.

        Raises:
            AnswerError: it is not exactly one of the answers (of a word, case and a final full stop don't matter; a
                number may have a fraction).
        """
        if self.kind == "number":
            return parse_score(text)
        return parse_word(text, self.name, self.answers)


@dataclass(frozen=True)
class AskedQuestion:
    """A question in tokens, as the read-out takes it.

    Args:
        name, kind, answers, bounds: of the `Question`.
        token_ids: what follows the prefix, up to the answer.
        answer_ids: of each answer, with the end of the assistant's turn.
    """

    name: str
    kind: Kind
    answers: tuple[str, ...]
    token_ids: tuple[int, ...]
    answer_ids: tuple[tuple[int, ...], ...]
    bounds: tuple[float, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> AskedQuestion:
        """The question of `dataclasses.asdict`, also where it went through JSON."""
        tuples = {name: tuple(data.get(name, ())) for name in ("answers", "token_ids", "bounds")}
        return cls(**{**data, **tuples, "answer_ids": tuple(map(tuple, data["answer_ids"]))})


Known = TypeVar("Known", Question, AskedQuestion)


def find_question(questions: Iterable[Known], name: str) -> Known:
    """The question of this name among those that a checkpoint was taught.

    Raises:
        QuestionError: it was never taught it.
    """
    known = {question.name: question for question in questions}
    if name not in known:
        raise QuestionError(
            f"This checkpoint was never taught the question {name}: it answers {', '.join(known)}. Teach it: `lmmvqa "
            f"train` with {name} among its tasks."
        )
    return known[name]


def level_names(questions: Iterable[Question | AskedQuestion]) -> list[str]:
    """The words of the question for the level, worst first; none where a checkpoint was not taught it."""
    level = _level(questions)
    return [] if level is None else list(level.answers)


def level_bounds(questions: Iterable[Question | AskedQuestion]) -> list[float]:
    """The scores above which each word of the question for the level but the worst begins: equal parts of the scale
    where nobody stated others."""
    level = _level(questions)
    if level is None:
        return []
    count = len(level.answers)
    return list(level.bounds) or [MAX_SCORE * place / count for place in range(1, count)]


def _level(questions: Iterable[Question | AskedQuestion]) -> Question | AskedQuestion | None:
    return next((question for question in questions if question.name == "level"), None)


def format_score(score: float) -> str:
    """The answer for a score on the 0-100 scale: the nearest whole number, halves upwards.

    Raises:
        ValueError: the score is not in [0, 100].
    """
    if not 0 <= score <= MAX_SCORE:
        raise ValueError(f"A score lies between 0 and {MAX_SCORE}, but this one is {score}: rescale the ratings first.")
    return str(int(score + 0.5))


def parse_score(answer: str) -> float:
    """The score (0 to 100) that an answer states; a fraction is allowed, any other text is not.

    Raises:
        AnswerError: the answer is not a plain decimal number in [0, 100].
    """
    text = answer.strip()
    # float() alone would also take "1e1", "nan", "5_0" and digits of other scripts.
    if text.isascii() and text.replace(".", "", 1).isdigit() and float(text) <= MAX_SCORE:
        return float(text)
    raise AnswerError(f"{answer!r} is not a score: expected a number from 0 to {MAX_SCORE}.")


def parse_word(answer: str, name: str, words: Sequence[str]) -> str:
    """The word that an answer states.

    Raises:
        AnswerError: the answer is not exactly one of `words` (case and a final full stop don't matter).
    """
    said = answer.strip().removesuffix(".").lower()
    for word in words:
        if said == word.lower():
            return word
    raise AnswerError(f"{answer!r} is not a {name}: expected one of {', '.join(words)}.")
