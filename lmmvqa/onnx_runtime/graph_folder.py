"""A folder of ONNX graphs: what is in it, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmvqa.checkpoints.default_files import GRAPHS, RECIPE
from processing.errors import LmmVqaError

MODEL_TYPE = "lmmvqa_onnx"
CONFIG = "config.json"
SPATIAL_TOWER, TEMPORAL_TOWER, READ_OUT = "spatial_tower.onnx", "temporal_tower.onnx", "read_out.onnx"
# All weights of all graphs, each where the graphs expect it.
WEIGHTS = "weights.bin"
# Which weight lies where in that file.
LAYOUT = "weights.json"


class GraphError(LmmVqaError, RuntimeError):
    """A folder of graphs can't be used. The message names it and the remedy."""


@dataclass(frozen=True)
class AskedQuestion:
    """A question in tokens, as the processor of the checkpoint made it."""

    name: str
    kind: str
    answers: tuple[str, ...]
    token_ids: tuple[int, ...]
    answer_ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> AskedQuestion:
        return cls(
            fields["name"],
            fields["kind"],
            tuple(fields["answers"]),
            tuple(fields["token_ids"]),
            tuple(map(tuple, fields["answer_ids"])),
        )


def is_graph_folder(name: str | None) -> bool:
    """Whether a checkpoint's name is that of a folder of graphs."""
    file = Path(name or "") / CONFIG
    if name is None or not file.is_file():
        return False
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False


def default_questions() -> list[str]:
    """The names of the questions that the default checkpoint was taught."""
    recipe = json.loads(RECIPE.read_text(encoding="utf-8"))
    further = [entry if isinstance(entry, str) else entry["name"] for entry in recipe.get("questions", ())]
    return ["score", "level", *further]


def default_graphs_are_current() -> bool:
    """Whether the default checkpoint's graphs know all that it was taught; not while a new one is being made."""
    known = {question["name"] for question in read_config(GRAPHS)["questions"]}
    return known >= set(default_questions())


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
