"""What the OpenAPI description says of answers, made of the columns of a row."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from modeling_lmmvqa.video_score import CHECKPOINT_COLUMNS, COLUMNS, VideoScore, column_type

_TYPES = {
    "string": str | None,
    "float64": float | None,
    "list<string>": list[str],
    "map<float64>": dict[str, float] | None,
}
_UNREADABLE = "clip.mp4 is not a video that FFmpeg can open. Download or export it again."

TITLE = "LMM-VQA"
SUMMARY = "How good does a video look? POST it to /score."
FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary", "description": "A video or a photograph."}},
    }
}
URL = {
    "schema": {
        "type": "object",
        "required": ["url"],
        "properties": {"url": {"type": "string", "format": "uri", "description": "http or https, of a public host."}},
    },
    "example": {"url": "https://example.org/clip.mp4"},
}


class Refusal(BaseModel):
    """Why there is no row, and the remedy."""

    model_config = ConfigDict(json_schema_extra={"example": {"error": "The file is larger than 500 MB."}})
    error: str


def row_model(questions: Sequence[Any]) -> type[BaseModel]:
    """The model of a row, for a checkpoint that was taught these questions."""
    fields: dict[str, Any] = {}
    for column in scored_example(questions):
        pattern = next((name for name in CHECKPOINT_COLUMNS if fnmatch(column, name)), None)
        meaning = COLUMNS[column][1].partition(";")[0] if column in COLUMNS else CHECKPOINT_COLUMNS[pattern][1]
        fields[column] = (_TYPES[column_type(column)], Field(description=meaning))
    return create_model("Row", __doc__="A video's quality, or why it has none: then `error` says so.", **fields)


def scored_example(questions: Sequence[Any]) -> dict[str, Any]:
    """A row as a video gets it."""
    answers = {
        question.name: {"value": 71.0, "interval": (58.0, 81.0)}
        if question.kind == "number"
        else {"probabilities": dict.fromkeys(question.answers, round(1 / len(question.answers), 3))}
        for question in questions
    }
    score, level = answers.pop("score"), answers.pop("level", {"probabilities": None})["probabilities"]
    word = level and list(level)[-1]
    return VideoScore("clip.mp4", score["value"], 7.0, score["interval"], word, level, 4.97, answers=answers).as_row()


def unreadable_example(questions: Sequence[Any]) -> dict[str, Any]:
    """A row as a file gets it that is no video."""
    nothing = dict.fromkeys(scored_example(questions))
    return nothing | {"path": "clip.mp4", "warnings": [], "error": _UNREADABLE}
