"""The words that the model reads: the system prompt, and the questions that a checkpoint may be taught.

A question is an instruction and a response restriction, after the paper's prompt (section III: system prompt,
instruction, response restriction). The system prompt and the place of the video are the same for every question, so
that one prefix of the language model serves all questions about a video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .questions import NUMBER_INSTRUCTIONS, WORD_RESTRICTIONS, Question

# The questions that every rated set answers: of its own scale, and of the third of it.
TASKS: tuple[str, ...] = ("score", "level")
LEVELS: tuple[str, ...] = ("poor", "fair", "good")
# What can be told apart in a video of a second or two. "none" is a video that nothing lowers.
FLAWS: tuple[str, ...] = (
    "none",
    "compression",
    "blur",
    "noise",
    "banding",
    "exposure",
    "stutter",
    "freeze",
    "flicker",
    "upscaling",
)

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

FLAW_INSTRUCTIONS: tuple[str, ...] = (
    "What lowers the quality of this video most?",
    "Which flaw of this video is the worst?",
    "Name the fault that a viewer of this video sees first.",
    "What is wrong with this video?",
    "What spoils this video most?",
    "Say what harms the picture of this video most.",
    "Which distortion does this video suffer from?",
    "Find the main defect of this video.",
    "Why does this video not look better?",
    "What would viewers complain about first in this clip?",
    "Classify the worst fault of this clip.",
    "Name the main cause of lost quality in this video.",
    "Which impairment is the strongest in this video?",
    "Considering every frame and how it moves, what is wrong with this clip?",
    "Look at sharpness, artefacts, light and motion: what is at fault?",
    "What kind of damage does this video show?",
    "Decide which fault lowers the quality of the clip above.",
    "What would have to be mended first in this video?",
    "Tell me the worst flaw of this clip.",
    "What went wrong when this video was made or sent?",
)

# Ten words in every question would cost more than the rest of it.
_FLAW_RESTRICTIONS = (
    "Answer with one word.",
    "Reply with one word and nothing else.",
    "Only say the word.",
    "Your answer is a single word.",
)
# What is good about a dimension whose name alone doesn't say it.
_DIMENSIONS = {
    "noise": "freedom from noise",
    "artefact": "freedom from artefacts",
    "blur": "freedom from blur",
    "temporal": "smoothness of motion",
    "technical": "technical quality",
    "aesthetic": "aesthetic quality",
}

SCORE = Question("score", "number", SCORE_INSTRUCTIONS)
FLAW = Question("flaw", "words", FLAW_INSTRUCTIONS, _FLAW_RESTRICTIONS, FLAWS)


def level_question(levels: Sequence[str] = LEVELS, bounds: Sequence[float] = ()) -> Question:
    """The question for the level, with these words, worst first, and the scores at which they part."""
    return Question("level", "ranked", LEVEL_INSTRUCTIONS, WORD_RESTRICTIONS, levels, bounds)


# By name, the questions that come with words of their own. A composed checkpoint has the first two.
QUESTIONS: Mapping[str, Question] = {question.name: question for question in (SCORE, level_question(), FLAW)}


def question_of(entry: str | Mapping[str, Any] | Question) -> Question:
    """The question that a name or a mapping of the fields of `Question` means. A name that has no words of its own here
    is a dimension of quality, such as sharpness, and asks for a number.

    Raises:
        QuestionError: it can't be asked.
    """
    if not isinstance(entry, str):
        if isinstance(entry, Mapping) and "kind" not in entry and entry.get("name") in QUESTIONS:
            entry = {**QUESTIONS[entry["name"]].as_data(), **entry}
        return Question.of(entry)
    said = _DIMENSIONS.get(entry, entry.replace("_", " "))
    return QUESTIONS.get(entry) or Question(entry, "number", [text.format(name=said) for text in NUMBER_INSTRUCTIONS])


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
