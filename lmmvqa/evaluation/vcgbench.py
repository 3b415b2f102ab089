"""VCGBench (the paper's Table IX): Video-ChatGPT's five aspects of video understanding, answered by our model, marked
by a judge.

The official question files are `generic_qa.json` (correctness, detail, context), `temporal_qa.json` and
`consistency_qa.json` (two questions with one answer); entries hold `Q` (or `Q1` and `Q2`), `A` and `video_name`. The
judge is any endpoint that speaks OpenAI's chat completions. Its instructions here are our own words for the benchmark's
criteria, and every mark is kept with the judge's name and instructions: marks of different judges or instructions don't
compare.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dataset_builders.label_files import files_below, without_video_suffix
from lmmvqa.scoring.result_files import Columns, ResultFile
from processing.errors import InputError, LmmVqaError
from processing.quality_prompts import conversation
from processing.video_names import is_video
from processing.video_reader import VideoError

logger = logging.getLogger(__name__)

SCORES = "scores.json"
GENERIC, TEMPORAL, CONSISTENCY = "generic_qa.json", "temporal_qa.json", "consistency_qa.json"
# What the judge weighs, and the file whose answers it reads.
ASPECTS: dict[str, tuple[str, str]] = {
    "correctness": (GENERIC, "Is what the answer says true, with nothing misread or made up?"),
    "detail": (
        GENERIC,
        "Does the answer cover the major points of the reference, and is it specific rather than general?",
    ),
    "context": (GENERIC, "Does the answer fit the overall theme and context of the video as the reference gives them?"),
    "temporal": (TEMPORAL, "Does the answer have the order of events right, and when things happen?"),
    "consistency": (
        CONSISTENCY,
        "Do both answers agree with each other and with the reference, though the question is put in two ways?",
    ),
}
MAX_MARK = 5
MAX_ANSWER_TOKENS = 256
JUDGE_INSTRUCTION = (
    "You mark answers about a video. You do not see the video: compare with the reference answer; a paraphrase is as "
    "good as the same "
    f"words. CRITERION Give a whole number from 0 (not at all) to {MAX_MARK} (fully), as JSON and nothing else: "
    '{"score": 3}'
)
_RETRIES = 5
# Rows of the files in a run's folder.
ANSWERS: Columns = {"key": "string", "video": "string", "answers": "list<string>", "error": "string"}
MARKS: Columns = {
    "key": "string",
    "aspect": "string",
    "judge": "string",
    "answers": "string",
    "mark": "int64",
    "said": "string",
    "error": "string",
}


class JudgeError(LmmVqaError, RuntimeError):
    """The judge can't be asked. The message names the endpoint and the remedy."""


@dataclass(frozen=True)
class Question:
    """One entry of a question file; `questions` holds one, or two for consistency."""

    key: str
    file: str
    video: str
    questions: tuple[str, ...]
    reference: str


@dataclass(frozen=True)
class Judge:
    """A chat model behind `url` (such as https://host/v1), with `api_key` if it wants one."""

    url: str
    model: str
    api_key: str | None = None
    timeout_s: float = 60

    def mark(self, aspect: str, question: Question, answers: list[str]) -> tuple[int, str]:
        """The mark (0 to 5) and what the judge said.

        Raises:
            JudgeError: the endpoint does not answer, or refuses.
            ValueError: what it says holds no mark.
        """
        asked = "\n".join(
            f"Question: {text}\nAnswer: {answer}" for text, answer in zip(question.questions, answers, strict=True)
        )
        body = {
            "model": self.model,
            "temperature": 0,
            "messages": [
                {"role": "system", "content": judge_instruction(aspect)},
                {"role": "user", "content": f"{asked}\nReference answer: {question.reference}"},
            ],
        }
        said = self._post(body)["choices"][0]["message"]["content"]
        return read_mark(said), said

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        )
        address = f"{self.url.rstrip('/')}/chat/completions"
        for attempt in range(_RETRIES):
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(address, json.dumps(body).encode(), headers), timeout=self.timeout_s
                ) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in (408, 429, 500, 502, 503, 504):
                    raise JudgeError(
                        f"The judge at {address} refuses with {error.code} ({error.reason}): check --judge, "
                        "--judge-model and the key."
                    ) from error
                reason = f"{error.code} {error.reason}"
                wait = float(error.headers.get("Retry-After") or 2**attempt)
            except OSError as error:
                reason, wait = str(error), 2.0**attempt
            if attempt < _RETRIES - 1:
                time.sleep(wait)
        raise JudgeError(
            f"The judge at {address} does not answer ({reason}): start it and run the command again, it goes on where "
            "it was."
        )


def judge_instruction(aspect: str) -> str:
    return JUDGE_INSTRUCTION.replace("CRITERION", ASPECTS[aspect][1])


def read_mark(said: str) -> int:
    """
    Raises:
        ValueError: there is no whole number from 0 to 5 under "score".
    """
    found = re.search(r"['\"]score['\"]\s*:\s*['\"]?(\d+(?:\.\d+)?)", said)
    if found is None or not float(found[1]).is_integer() or float(found[1]) > MAX_MARK:
        raise InputError(f"The judge said {said!r}, which holds no mark from 0 to {MAX_MARK}.")
    return int(float(found[1]))


def read_questions(folder: Path) -> list[Question]:
    """The entries of the question files that are in a folder.

    Raises:
        FileNotFoundError: none of them is there.
        ValueError: a file has another form.
    """
    questions = []
    for name in (GENERIC, TEMPORAL, CONSISTENCY):
        path = folder / name
        if not path.is_file():
            logger.warning("%s is not there: its aspects are left out.", path)
            continue
        fields = ("Q1", "Q2") if name == CONSISTENCY else ("Q",)
        for number, entry in enumerate(json.loads(path.read_text(encoding="utf-8"))):
            if missing := {*fields, "A", "video_name"} - set(entry):
                raise InputError(
                    f"{path}: entry {number} has no {', '.join(sorted(missing))}: is this the benchmark's own file?"
                )
            texts = tuple(str(entry[field]) for field in fields)
            questions.append(Question(f"{name}/{number}", name, str(entry["video_name"]), texts, str(entry["A"])))
    if not questions:
        raise FileNotFoundError(
            f"{folder} holds none of {GENERIC}, {TEMPORAL} and {CONSISTENCY}: give the folder of the benchmark's "
            "question files."
        )
    return questions


def run_vcgbench(
    questions: list[Question], videos: Path, model: str | None, judge: Judge, output: Path, device: str | None = None
) -> dict[str, Any]:
    """Answer, have the answers marked, and average; each step goes on where it was stopped, and tries failed videos
    again.

    Returns:
        {aspect: mean mark}, "mean" over the aspects, with counts, the judge, and its instructions; also in
        `scores.json`.
    """
    output.mkdir(parents=True, exist_ok=True)
    with ResultFile(output / "answers.jsonl", ANSWERS) as answers:
        answers.drop(lambda row: row["error"] is not None)
        missing = [question for question in questions if question.key not in answers]
        if missing:
            for answered in _answers(missing, videos, model, device):
                answers.append(answered)
        given = {row["key"]: row for row in answers.rows()}
    instructions = {aspect: judge_instruction(aspect) for aspect in ASPECTS}
    # Marks of another judge, or by other instructions, are other marks.
    mark_version = hashlib.sha256(json.dumps([judge.model, instructions], sort_keys=True).encode()).hexdigest()[:12]
    with ResultFile(output / f"marks-{mark_version}.jsonl", MARKS) as marks:
        for aspect, (file, _) in ASPECTS.items():
            for question in questions:
                key = f"{aspect}/{question.key}"
                answer = given.get(question.key, {})
                if question.file != file or key in marks or answer.get("error"):
                    continue
                try:
                    mark, said = judge.mark(aspect, question, answer["answers"])
                    row: dict[str, Any] = {"mark": mark, "said": said, "error": None}
                except ValueError as error:
                    row = {"mark": None, "said": None, "error": str(error)}
                answers_hash = hashlib.sha256(json.dumps(answer["answers"]).encode()).hexdigest()[:12]
                marks.append({"key": key, "aspect": aspect, "judge": judge.model, "answers": answers_hash, **row})
        rows = list(marks.rows())
    scores: dict[str, Any] = {
        "judge": judge.model,
        "judge_url": judge.url,
        "instructions": instructions,
        "model": model or "default",
        "aspects": {},
    }
    for aspect in ASPECTS:
        known = [row["mark"] for row in rows if row["aspect"] == aspect and row["mark"] is not None]
        unread = sum(row["aspect"] == aspect and row["mark"] is None for row in rows)
        scores["aspects"][aspect] = {"mean": fmean(known) if known else None, "n": len(known), "unreadable": unread}
    means = [entry["mean"] for entry in scores["aspects"].values()]
    scores["mean"] = fmean(means) if None not in means else None
    scores["unanswered"] = sum(bool(row.get("error")) for row in given.values())
    (output / SCORES).write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores


def _answers(questions: list[Question], folder: Path, name: str | None, device: str | None) -> Iterator[dict[str, Any]]:
    from lmmvqa.checkpoints.loading import load_checkpoint

    files = {
        without_video_suffix(file).rpartition("/")[2]: folder / file for file in filter(is_video, files_below(folder))
    }
    model, processor = load_checkpoint(name, device)
    for question in questions:
        row: dict[str, Any] = {"key": question.key, "video": question.video, "answers": None, "error": None}
        try:
            if question.video not in files:
                raise FileNotFoundError(f"No video {question.video} below {folder}.")
            row["answers"] = [
                _answer(model, processor, str(files[question.video]), text) for text in question.questions
            ]
        # Of one bad video; anything else is a fault of ours, and ends the run with its trace.
        except (FileNotFoundError, VideoError) as error:
            logger.warning("%s: %s", question.key, error)
            row["error"] = str(error)
        yield row


def _answer(model: Any, processor: Any, video: str, question: str) -> str:
    import torch

    # Without the system prompt: that one speaks of quality, which these questions are not about.
    text = processor.apply_chat_template(conversation(question)[1:], tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], videos=[video], return_tensors="pt").to(model.device)
    with torch.no_grad():
        generated = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_ANSWER_TOKENS)
    return processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()
