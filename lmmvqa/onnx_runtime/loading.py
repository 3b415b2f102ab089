"""A folder of graphs by its name, or that of the default checkpoint, made on first use."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lmmvqa.checkpoints.cache import cache_folder, remove_leftovers, scratch_folder
from lmmvqa.checkpoints.default_files import CALIBRATION, GRAPHS, default_version
from lmmvqa.onnx_runtime.graph_folder import CONFIG, LAYOUT, WEIGHTS, GraphError, default_questions
from lmmvqa.onnx_runtime.network import GraphProcessor, OnnxNetwork
from modeling_lmmvqa.answers import calibration_by_question

logger = logging.getLogger(__name__)


def load_graphs(name: str | None = None) -> tuple[OnnxNetwork, GraphProcessor]:
    """Network and processor of a folder of graphs; of the default checkpoint without a name.

    Raises:
        GraphError: the folder can't be read.
        PartError: the decoder of the default checkpoint can't be fetched.
    """
    folder = Path(name) if name is not None else default_graphs()
    try:
        network = OnnxNetwork(folder)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GraphError(f"{folder / CONFIG} is damaged ({error!r}): export the checkpoint again.") from error
    return network, network.processor


def default_graphs() -> Path:
    """The folder of the default checkpoint's graphs and weights, made now if it is not there: seconds and 600 MB, once.

    Raises:
        PartError: the decoder can't be fetched, or is not the file that it should be.
        CacheError: the cache can't be written.
    """
    folder = cache_folder() / f"default-graphs-{default_version(of_graphs=True)}"
    if (folder / CONFIG).is_file():
        remove_leftovers()
        return folder
    from lmmvqa.onnx_runtime.default_weights import default_weights

    logger.info("Assembling the default checkpoint in %s (once).", folder)
    with scratch_folder() as assembling:
        made = assembling / "graphs"
        shutil.copytree(GRAPHS, made)
        write_weights(made, default_weights())
        config = json.loads((made / CONFIG).read_text(encoding="utf-8"))
        stated = json.loads(CALIBRATION.read_text(encoding="utf-8"))
        config["calibration"] = calibration_by_question(stated)
        in_tokens = {question["name"]: question for question in config["questions"]}
        config["questions"] = [
            in_tokens[question.name] | {"bounds": list(question.bounds)} for question in default_questions()
        ]
        (made / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        try:
            made.rename(folder)
        except OSError:
            if not (folder / CONFIG).is_file():
                raise
    return folder


def write_weights(folder: Path, weights: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write the weights where the layout of the folder's graphs wants them; those that it does not name are left out.

    Raises:
        GraphError: one is missing, or is of another size than the graphs were made for.
    """
    layout = json.loads((folder / LAYOUT).read_text(encoding="utf-8"))
    places: dict[str, list[dict[str, Any]]] = {}
    for place in layout["tensors"]:
        places.setdefault(place["name"], []).append(place)
    with (folder / WEIGHTS).open("wb") as file:
        file.truncate(layout["size"])
        for name, value in weights:
            for place in places.pop(name, ()):
                if value.nbytes != place["bytes"]:
                    raise GraphError(
                        f"{name} has {value.nbytes} bytes, and the graphs in {folder} were made for {place['bytes']}: "
                        "make the graphs anew (lmmvqa export)."
                    )
                file.seek(place["offset"])
                file.write(np.ascontiguousarray(value.T if place["transposed"] else value).data)
    if places:
        raise GraphError(
            f"The graphs in {folder} want weights that there are none of: {', '.join(sorted(places))}. Make the graphs "
            "anew (lmmvqa export)."
        )
