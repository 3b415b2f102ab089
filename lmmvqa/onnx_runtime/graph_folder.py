"""A folder of ONNX graphs: what is in it, and what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmmvqa.checkpoints.default_files import GRAPHS, RECIPE
from processing.errors import LmmVqaError
from processing.quality_prompts import question_of
from processing.questions import Question

MODEL_TYPE = "lmmvqa_onnx"
CONFIG = "config.json"
SPATIAL_TOWER, TEMPORAL_TOWER, READ_OUT = "spatial_tower.onnx", "temporal_tower.onnx", "read_out.onnx"
# All weights of all graphs, each where the graphs expect it.
WEIGHTS = "weights.bin"
# Which weight lies where in that file.
LAYOUT = "weights.json"


class GraphError(LmmVqaError, RuntimeError):
    """A folder of graphs can't be used. The message names it and the remedy."""


def is_graph_folder(name: str | None) -> bool:
    """Whether a checkpoint's name is that of a folder of graphs."""
    file = Path(name or "") / CONFIG
    if name is None or not file.is_file():
        return False
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False


def default_questions() -> list[Question]:
    """The questions that the default checkpoint was taught."""
    recipe = json.loads(RECIPE.read_text(encoding="utf-8"))
    return [question_of(entry) for entry in recipe["questions"]]


def default_graphs_are_current() -> bool:
    """Whether the default checkpoint's graphs know all that it was taught; not while a new one is being made."""
    known = {question["name"] for question in read_config(GRAPHS)["questions"]}
    return known >= {question.name for question in default_questions()}


def read_config(folder: Path) -> dict[str, Any]:
    """
    Raises:
        GraphError: the folder's config can't be read, or is of another release.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GraphError(f"{folder / CONFIG} can't be read ({error}): export the checkpoint again.") from error
    if config.get("format") != FORMAT:
        raise GraphError(f"{folder} was exported by another release: export the checkpoint again.")
    return config


# Of the graphs' inputs and of `config.json`.
FORMAT = 1
