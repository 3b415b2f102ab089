"""Every word that the model reads or may answer: prompts, answer format, strict parser.

A question is an instruction and a response restriction, after the paper's prompt (section III: system prompt,
instruction, response restriction). The system prompt and the place of the video are the same for every question, so
that one prefix of the language model serves all questions about a video.

An answer is a whole number from 0 to 100, or one of the level words. Whole numbers are as fine as opinion is; the
expected score of the read-out is continuous all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from .errors import LmmVqaError

Task = Literal["score", "level"]
TASKS: tuple[Task, ...] = ("score", "level")
LEVELS: tuple[str, ...] = ("poor", "fair", "good")
MAX_SCORE = 100

SYSTEM_PROMPT = "You judge the quality of videos."

SCORE_INSTRUCTIONS: tuple[str, ...] = (
    "How good is the quality of this video?",
    "Rate the quality of this video.",
    "What quality score does this video deserve?",
    "Judge how good this video looks and give it a score.",
    "Score the visual quality of the video.",
    "How would viewers score the quality of this video?",
    "Give the perceptual quality of this video as a number.",
    "Assess the overall quality of the video.",
    "What number describes the quality of this video best?",
    "How well does this video look to a human eye?",
    "Estimate the mean opinion score of this video.",
    "Weigh sharpness, artefacts and motion, then rate the video.",
    "Please evaluate the picture quality of this video.",
    "If an audience rated this video, what would the mean rating be?",
    "Look at blur, noise and compression: how good is the video?",
    "Tell me the quality rating of this clip.",
    "Considering every frame and how it moves, how good is this clip?",
    "Grade the technical quality of this video.",
    "How pleasant is this video to watch, as far as its quality goes?",
    "Quantify the quality of the video shown.",
    "Which score fits the fidelity and smoothness of this video?",
    "Provide a quality score for the clip above.",
    # The kind that the paper prints.
    "Would you mind calculating the quality score of this video with the help of these frames?",
)

LEVEL_INSTRUCTIONS: tuple[str, ...] = (
    "Which level of quality does this video have?",
    "Classify the quality of this video.",
    "Name the quality level of this video.",
    "What word describes the quality of this video?",
    "Sort this video into one of the quality levels.",
    "How would viewers describe the quality of this video?",
    "Judge how good this video looks and name its level.",
    "Put the visual quality of the video into a word.",
    "Assess the overall quality level of the video.",
    "Into which quality class does this clip fall?",
    "Decide on the quality level of the clip above.",
    "What level would an audience give to this video?",
    "Look at blur, noise and compression: which level fits the video?",
    "Please state the picture quality of this video in a word.",
    "Considering every frame and how it moves, which level fits this clip?",
    "Describe the technical quality of this video in a word.",
    "Which word fits the fidelity and smoothness of this video?",
    "Say how well this video looks to a human eye.",
    "Weigh sharpness, artefacts and motion, then choose a level.",
    "Tell me the quality category of this clip.",
    "How good is this video: which of the levels is right?",
    "Pick the level that matches the quality of the video shown.",
    "Would you mind naming the quality level of this video with the help of these frames?",
)

_INSTRUCTIONS: dict[Task, tuple[str, ...]] = {"score": SCORE_INSTRUCTIONS, "level": LEVEL_INSTRUCTIONS}
_RESTRICTIONS: dict[Task, tuple[str, ...]] = {
    "score": (
        "Answer with a number from 0 to 100.",
        "Reply with one whole number between 0 (worst) and 100 (best).",
        "Only give a number from 0 to 100.",
        "Your answer is a single number, 0 to 100.",
    ),
    "level": (
        "Answer with one word: {levels}.",
        "Reply with {levels} and nothing else.",
        "Only say {levels}.",
        "Your answer is one of these words: {levels}.",
    ),
}


class AnswerError(LmmVqaError, ValueError):
    """An answer that is not in the answer format. Never replaced by a default."""


def instructions(task: Task) -> tuple[str, ...]:
    """All instructions of a task."""
    return _INSTRUCTIONS[_checked(task)]


def restrictions(task: Task, levels: Sequence[str] = LEVELS) -> tuple[str, ...]:
    """All response restrictions of a task, with the level words filled in."""
    words = f"{', '.join(levels[:-1])} or {levels[-1]}"
    return tuple(restriction.format(levels=words) for restriction in _RESTRICTIONS[_checked(task)])


def fixed_question(task: Task, levels: Sequence[str] = LEVELS) -> str:
    """The question of inference and evaluation: the first instruction with the first restriction."""
    return f"{instructions(task)[0]} {restrictions(task, levels)[0]}"


def drawn_question(task: Task, key: str, *, seed: int = 0, levels: Sequence[str] = LEVELS) -> str:
    """A question of training, drawn by a hash: the same `key` (a video's id) and `seed` draw the same question on
    every machine, and the score and the level question of a video are drawn independently."""
    digest = hashlib.sha256(f"{seed}/{task}/{key}".encode()).digest()
    instruction = instructions(task)[int.from_bytes(digest[:8], "big") % len(instructions(task))]
    restriction = restrictions(task, levels)[int.from_bytes(digest[8:16], "big") % len(restrictions(task, levels))]
    return f"{instruction} {restriction}"


def conversation(question: str, *, video: Any = None, answer: str | None = None) -> list[dict[str, Any]]:
    """Chat messages about one video: system prompt, the video and then the question, and the answer if there is one.

    `video` is whatever the processor reads; without it the video is a bare placeholder, for callers that pass videos
    beside the text.
    """
    placeholder = {"type": "video"} if video is None else {"type": "video", "video": video}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
        {"role": "user", "content": [placeholder, {"type": "text", "text": question}]},
    ]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def score_answers() -> list[str]:
    """Every answer that the score question allows, in the order of their values 0, 1, ..., 100."""
    return [str(value) for value in range(MAX_SCORE + 1)]


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


def parse_level(answer: str, levels: Sequence[str] = LEVELS) -> str:
    """The level that an answer states.

    Raises:
        AnswerError: the answer is not exactly one of `levels` (case and a final full stop don't matter).
    """
    word = answer.strip().removesuffix(".").lower()
    for level in levels:
        if word == level.lower():
            return level
    raise AnswerError(f"{answer!r} is not a level: expected one of {', '.join(levels)}.")


def _checked(task: Task) -> Task:
    if task not in TASKS:
        raise ValueError(f"Unknown task {task!r}: expected one of {', '.join(TASKS)}.")
    return task
