"""What is evaluated: our model by both read-outs, other language models asked without training, baselines.

A method takes rated rows and gives, for each in order, a mapping of what it predicts: `predicted` (higher is better, on
its own scale), perhaps `predicted_std`, `interval`, `predicted_level`, `level_probabilities`, `score_probabilities`,
`answers`, `duration_s`; or `error`, and then `unparsable` where an answer was given but says no score.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lmmvqa.checkpoints.training_record import TrainingRecord
from lmmvqa.evaluation.further_questions import answer_columns
from lmmvqa.evaluation.rated_sets import RatedRow
from processing.errors import InputError, LmmVqaError
from processing.quality_prompts import LEVELS, QUESTIONS, TASKS
from processing.questions import MAX_SCORE, AnswerError
from processing.video_reader import VideoError, open_video

if TYPE_CHECKING:
    from lmmvqa.training.feature_cache import FeatureCache

logger = logging.getLogger(__name__)

# Q-Align's five words and what they are worth, and the beginning of the answer whose next word is read.
QUALITY_WORDS = {"excellent": 100.0, "good": 75.0, "fair": 50.0, "poor": 25.0, "bad": 0.0}
WORD_QUESTION = "How would you rate the quality of this video?"
WORD_ANSWER = "The quality of the video is"
# Of ours, the level that each word speaks for.
LEVEL_OF_WORD = {"excellent": "good", "good": "good", "fair": "fair", "poor": "poor", "bad": "poor"}

Prediction = dict[str, Any]


class Method(Protocol):
    """What can be evaluated. `timed` says whether the time that `predict` takes is that of the method."""

    timed: bool

    def predict(self, rows: Sequence[RatedRow]) -> Iterator[Prediction]:
        """One prediction a row, in their order."""


class LmmVqa:
    """Our model: `distribution` (score and level from the probabilities of all answers) or `generate` (the paper: text,
    parsed strictly). The questions are the fixed ones. With a folder of `features`, videos are encoded into that
    `FeatureCache` once. `record` is what the checkpoint learned from; `questions` are asked beside score and level.

    Raises:
        QuestionError: the checkpoint was never taught one of the questions.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        read_out: str = "distribution",
        batch_size: int = 8,
        features: Path | None = None,
        record: TrainingRecord | None = None,
        questions: Sequence[str] = (),
    ):
        if read_out not in ("distribution", "generate"):
            raise InputError(f"--read-out {read_out} is not one of our model: choose distribution or generate.")
        self.model, self.processor, self.read_out = model, processor, read_out
        self.record, self.timed, self.cache = record, features is None, None
        if features is not None:
            from lmmvqa.training.feature_cache import FeatureCache

            self.cache = FeatureCache(features, model, processor)
        calibration = model.config.calibration_of("score")
        self.calibration = {
            "pairs": calibration.get("answer_map"),
            "interval_scale": calibration.get("interval_scale", 1.0),
        }
        self.batch_size = batch_size
        self.questions = [processor.question(name) for name in questions]

    def predict(self, rows: Sequence[RatedRow]) -> Iterator[Prediction]:
        for start in range(0, len(rows), self.batch_size):
            encoded = [self._encode(row) for row in rows[start : start + self.batch_size]]
            found = [item for item in encoded if "error" not in item]
            answers = iter(self._assess([item["features"] for item in found]) if found else ())
            for item in encoded:
                yield item if "error" in item else {**next(answers), "duration_s": item["duration_s"]}

    def _encode(self, row: RatedRow) -> dict[str, Any]:
        from modeling_lmmvqa.tower_features import tower_features

        try:
            if self.cache is not None:
                return self._cached(self.cache, row)
            inputs = self.processor.video_processor(row.source, return_metadata=True, return_tensors="pt")
            info = inputs.pop("video_metadata")[0]
            return {"features": tower_features(self.model.base_model, inputs), "duration_s": info.duration_s}
        # Of one bad file; anything else is a fault of ours, and ends the run with its trace.
        except VideoError as error:
            return {"error": str(error)}

    @staticmethod
    def _cached(cache: FeatureCache, row: RatedRow) -> dict[str, Any]:
        key = cache.key(row.source)
        if error := next((error for _, error in cache.fill([(key, row.source)]) if error), None):
            return {"error": error}
        with open_video(row.source) as reader:
            duration = reader.info.duration_s
        return {"features": cache.load(key), "duration_s": duration}

    def _assess(self, features: list[Any]) -> list[Prediction]:
        from modeling_lmmvqa.answers import UndefinedScore
        from modeling_lmmvqa.feature_batches import assessment_inputs

        taught = {question.name for question in self.processor.questions}
        asked = [*(name for name in TASKS if name in taught), *(question.name for question in self.questions)]
        inputs = assessment_inputs(self.processor, features, asked).to(self.model.device)
        try:
            quality = self.model.assess(**inputs, mode=self.read_out, processor=self.processor)
        # One video whose numbers overflow must not take the others of its batch with it.
        except UndefinedScore as error:
            if len(features) > 1:
                return [prediction for video in features for prediction in self._assess([video])]
            return [{"error": str(error)}]
        predictions = []
        for i in range(len(features)):
            if quality.errors and quality.errors[i]:
                predictions.append({"error": quality.errors[i], "unparsable": True})
                continue
            prediction: Prediction = {"predicted": quality.score[i].item()}
            if quality.level is not None:
                prediction["predicted_level"] = quality.level[i]
            if quality.score_std is not None:
                prediction |= {
                    "predicted_std": quality.score_std[i].item(),
                    "interval": quality.score_interval[i].tolist(),
                    "score_probabilities": quality.score_probabilities[i].tolist(),
                }
            if quality.level_probabilities is not None:
                prediction["level_probabilities"] = quality.level_probabilities[i].tolist()
            predictions.append(prediction | answer_columns(self.questions, quality.answers, i))
        return predictions


class ZeroShot:
    """Any video or image language model that `AutoModelForImageTextToText` loads, asked without training.

    `generate`: our two fixed questions; the answer may be a sentence, but must state one number from 0 to 100, and one
    level word. `level-words`: Q-Align's read-out, the expectation over the probabilities of five words.

    Args:
        name: Hub id or folder.
        frames: key frames shown, evenly spaced over the video.

    Raises:
        ValueError: it is no such model, has no chat template, or its tokenizer can't tell the five words apart.
    """

    timed = True

    def __init__(self, name: str, read_out: str = "level-words", frames: int = 8, device: str = "cpu"):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if read_out not in ("generate", "level-words"):
            raise InputError(f"--read-out {read_out} is not one of a zero-shot model: choose generate or level-words.")
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(name)
            self.model = model.to(device).eval()
            self.processor = AutoProcessor.from_pretrained(name)
        # The readers under the library raise errors of many kinds.
        except Exception as error:
            raise InputError(
                f"{name} can't be loaded as a video or image language model ({error}): check its name."
            ) from error
        if getattr(self.processor, "chat_template", None) is None:
            raise InputError(
                f"The processor of {name} has no chat template, so it can't be asked: save one with it "
                "(processor.chat_template)."
            )
        self.read_out, self.frames = read_out, frames
        self.takes_videos = getattr(self.processor, "video_processor", None) is not None
        self._words = self._word_tokens() if read_out == "level-words" else {}

    def predict(self, rows: Sequence[RatedRow]) -> Iterator[Prediction]:
        for row in rows:
            try:
                frames, duration = self._key_frames(row)
                answer = self._ask_words if self.read_out == "level-words" else self._ask_text
                yield {**answer(frames), "duration_s": duration}
            except VideoError as error:
                yield {"error": str(error)}

    def _ask_text(self, frames: Any) -> Prediction:
        answers = [self._generate(frames, QUESTIONS[task].fixed) for task in TASKS]
        try:
            return {
                "predicted": stated_score(answers[0]),
                "predicted_level": stated_level(answers[1]),
                "answers": answers,
            }
        except AnswerError as error:
            return {"error": str(error), "unparsable": True, "answers": answers}

    def _ask_words(self, frames: Any) -> Prediction:
        import torch

        inputs = self._inputs(frames, WORD_QUESTION, WORD_ANSWER)
        with torch.no_grad():
            logits = self.model(**inputs).logits[0, -1].float()
        probabilities = dict(zip(self._words, logits[list(self._words.values())].softmax(0).tolist(), strict=True))
        levels = {
            level: sum(p for word, p in probabilities.items() if LEVEL_OF_WORD[word] == level) for level in LEVELS
        }
        return {
            "predicted": sum(p * QUALITY_WORDS[word] for word, p in probabilities.items()),
            "predicted_level": max(levels, key=levels.__getitem__),
            "level_probabilities": list(levels.values()),
        }

    def _generate(self, frames: Any, question: str) -> str:
        import torch

        inputs = self._inputs(frames, question)
        with torch.no_grad():
            generated = self.model.generate(**inputs, do_sample=False, max_new_tokens=32)
        return self.processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]

    def _inputs(self, frames: Any, question: str, answer: str = "") -> dict[str, Any]:
        seen = [{"type": "video"}] if self.takes_videos else [{"type": "image"}] * len(frames)
        messages = [{"role": "user", "content": [*seen, {"type": "text", "text": question}]}]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + answer
        pictures = {"videos": [frames]} if self.takes_videos else {"images": list(frames)}
        return self.processor(text=[text], **pictures, return_tensors="pt").to(self.model.device)

    def _key_frames(self, row: RatedRow) -> tuple[Any, float]:
        """(frames, height, width, 3) uint8, and the video's length in seconds."""
        import numpy as np

        with open_video(row.source, max_chunks=self.frames) as reader:
            frames = [chunk.key_frame.transpose(1, 2, 0) for chunk in reader]
            duration = reader.info.duration_s
        # Short videos repeat their last frame: some of these models want a fixed number.
        return np.stack(frames + [frames[-1]] * (self.frames - len(frames))), duration

    def _word_tokens(self) -> dict[str, int]:
        """The first token of each word, as it follows the beginning of the answer."""
        tokenizer = self.processor.tokenizer
        start = tokenizer(WORD_ANSWER, add_special_tokens=False)["input_ids"]
        words = {}
        for word in QUALITY_WORDS:
            ids = tokenizer(f"{WORD_ANSWER} {word}", add_special_tokens=False)["input_ids"]
            shared = next((i for i, (a, b) in enumerate(zip(ids, start, strict=False)) if a != b), len(start))
            # Where the space is a token of its own, the word begins behind it.
            rest = [token for token in ids[shared:] if tokenizer.decode([token]).strip()]
            words[word] = rest[0]
        if len(set(words.values())) < len(words):
            raise InputError(
                f"The tokenizer begins two of the words {', '.join(words)} with one token: use --read-out generate."
            )
        return words


def stated_score(answer: str) -> float:
    """The score (0 to 100) that a free answer states, such as "I would give it 75 out of 100."

    Raises:
        AnswerError: it states none, several, or one off the scale.
    """
    text = re.sub(
        r"(?i)(/|out of|of a possible|on a scale (of|from) \d+ (to|-)) *100|(from|between) 0 (to|and) 100|%",
        " ",
        answer,
    )
    numbers = {float(number) for number in re.findall(r"(?<![\w.-])\d+(?:\.\d+)?(?!\w)", text)}
    if len(numbers) == 1 and (number := numbers.pop()) <= MAX_SCORE:
        return number
    raise AnswerError(f"{answer!r} states no score: expected one number from 0 to {MAX_SCORE}.")


def stated_level(answer: str) -> str:
    """The one level word in a free answer.

    Raises:
        AnswerError: it holds none, or several.
    """
    found = {level for level in LEVELS if re.search(rf"\b{level}\b", answer, re.IGNORECASE)}
    if len(found) == 1:
        return found.pop()
    raise AnswerError(f"{answer!r} states no level: expected one of {', '.join(LEVELS)}.")


class Baseline:
    """NIQE or BRISQUE, averaged over key frames; negative, so that higher is better."""

    timed = True

    def __init__(self, name: str):
        from lmmvqa.evaluation.natural_scene import BASELINES

        self.measure = BASELINES[name]

    def predict(self, rows: Sequence[RatedRow]) -> Iterator[Prediction]:
        from lmmvqa.evaluation.natural_scene import mean_over_key_frames

        for row in rows:
            try:
                value, duration = mean_over_key_frames(row.source, self.measure)
                yield {"predicted": -value, "duration_s": duration}
            except LmmVqaError as error:
                yield {"error": str(error)}


def watched(items: Iterable[Any], count: int, title: str) -> Iterator[Any]:
    """With a progress bar on standard error."""
    from rich.progress import track

    from lmmvqa.console import messages

    return iter(track(items, title, count, console=messages, disable=not messages.is_terminal, transient=True))
