"""`lmmvqa export --to onnx`: a checkpoint as a folder that `lmmvqa.onnx_runtime` scores with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmmvqa.checkpoints.default_files import CHECKPOINT_FOLDER, REFERENCE
from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.onnx_export.graphs import make_graphs, save_graphs
from lmmvqa.onnx_export.quantising import quantise
from lmmvqa.onnx_runtime.graph_folder import CONFIG, FORMAT, MODEL_TYPE
from lmmvqa.onnx_runtime.loading import write_weights
from processing.errors import LmmVqaError
from processing.quality_prompts import QUESTIONS

# What one would still run on a processor.
MOST_PARAMETERS = 1_000_000_000
# Points by which 8 bits may move a score (measured in docs/light.md).
INT8_TOLERANCE = 3.0


class ExportError(LmmVqaError, RuntimeError):
    """A checkpoint can't be exported. The message names it and the remedy."""


def export(model: str | None, output: Path, *, int8: bool = False, with_weights: bool = True) -> None:
    """Write a checkpoint (the default one without a name) as graphs.

    Args:
        output: a new or empty folder.
        int8: weights of matrix products as whole numbers of 8 bits.
        with_weights: False writes graphs alone, as they lie beside the files of the default checkpoint, and all
            questions that come with words of their own.

    Raises:
        ExportError: the checkpoint is too large.
        FileExistsError: `output` holds something.
    """
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not an empty folder: name a new one.")
    network, processor = load_checkpoint(model, "cpu", "float32")
    check_size(network, model or "The default checkpoint")
    output.mkdir(parents=True, exist_ok=True)
    save_graphs(make_graphs(network, processor), network, output)
    if not with_weights:
        # Whatever weights of this architecture may be taught.
        processor.questions = tuple(QUESTIONS.values())
    write_config(output, network, processor, "int8" if int8 else "float32")
    if not with_weights:
        return
    write_weights(output, weights_of(network))
    if int8:
        quantise(output)
    reference = (CHECKPOINT_FOLDER if model is None else Path(model)) / REFERENCE.name
    if reference.is_dir():
        copy_reference(reference, output / REFERENCE.name, int8)


def copy_reference(reference: Path, output: Path, int8: bool) -> None:
    """The clips and scores that `lmmvqa verify` compares with; 8 bits may be further from them."""
    shutil.copytree(reference, output)
    if int8:
        scores = output / "scores.json"
        content = json.loads(scores.read_text(encoding="utf-8")) | {"tolerance": INT8_TOLERANCE}
        scores.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_size(network: Any, name: str) -> None:
    """
    Raises:
        ExportError: it is too large for a processor.
    """
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > MOST_PARAMETERS:
        raise ExportError(
            f"{name} has {count / 1e9:.1f} billion parameters, and graphs for a processor are made of checkpoints with "
            f"at most {MOST_PARAMETERS / 1e9:.0f} billion: run it with torch on a GPU, or export a smaller one."
        )


def weights_of(network: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter and buffer as an array, by its name; one that has two names under both."""
    for name, tensor in network.state_dict().items():
        yield name, (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().numpy()


def graph_config(network: Any, processor: Any) -> dict[str, Any]:
    """What the runtime must know beside the graphs: how frames are prepared, and prompts and questions in tokens."""
    config = network.config
    first, second = processor.assessment_prefix_ids(1), processor.assessment_prefix_ids(2)
    count = processor.tokens_per_chunk
    is_concat = config.frame_fusion == "concat"
    return {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "video_processor": processor.video_processor.preparation.as_settings(),
        "tower": _tower_config(network.base_model.vision_tower),
        "has_motion": config.num_temporal_tokens > 0,
        "frame_fusion": config.frame_fusion,
        "prompt": {
            "before": first[: len(first) - count],
            "video_token_id": config.video_token_id,
            "tokens_per_chunk": count,
            # What stands between the tokens of two seconds.
            "separator": second[len(first) : len(second) - count] if is_concat else [],
        },
        "questions": [asdict(question) for question in processor.ask()],
        "calibration": config.calibration or {},
    }


def _tower_config(tower: Any) -> Mapping[str, Any] | None:
    if not hasattr(tower, "look"):
        return None
    views = [
        {"side": view.side, "patch": getattr(backbone.config, "patch_size", 1), "tile_size": view.tile_size}
        for view, backbone in zip(tower.views, tower.backbones, strict=True)
    ]
    return {"views": views, "grid": tower.config.grid, "frame_statistics": tower.config.frame_statistics}


def write_config(folder: Path, network: Any, processor: Any, precision: str) -> None:
    """Write `CONFIG`. Of the default checkpoint it alone changes with what it is taught and how it is calibrated."""
    content = graph_config(network, processor) | {"precision": precision}
    (folder / CONFIG).write_text(json.dumps(content) + "\n", encoding="utf-8")
