"""A checkpoint as graphs gives the scores of the checkpoint."""

import gc
import json
import shutil

import numpy as np
import pytest
import torch
from tiny_models import make_spatial_tower

from lmmvqa.checkpoints.default_files import GRAPHS, REFERENCE
from lmmvqa.onnx_export import exporting
from lmmvqa.onnx_export.exporting import (
    INT8_TOLERANCE,
    ExportError,
    check_size,
    copy_reference,
    export,
    graph_config,
    weights_of,
)
from lmmvqa.onnx_export.quantising import quantise
from lmmvqa.onnx_runtime.frame_arrays import look
from lmmvqa.onnx_runtime.graph_folder import LAYOUT, GraphError
from lmmvqa.onnx_runtime.loading import load_graphs, write_weights
from lmmvqa.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def tiny_graphs(tiny_checkpoint, tmp_path_factory):
    """Of a model that keeps the tokens of every second: the longest prompts, and as many as there are seconds."""
    folder = tmp_path_factory.mktemp("graphs") / "graphs"
    # Tracing makes millions of objects; looking through those that other tests have left, too, would take seconds.
    gc.disable()
    try:
        export(str(tiny_checkpoint), folder)
    finally:
        gc.enable()
    return folder


def test_scores_are_those_of_torch(tiny, tiny_graphs, clip):
    """Of videos of different length in one batch, whole and second by second."""
    frames = np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), dtype=np.uint8)
    rows = [
        [
            next(scorer.scores([frames], timeline=True, fps=25)),
            *scorer([str(clip), str(clip)]),
            scorer(frames, fps=25),
        ]
        for scorer in (Scorer(*tiny), Scorer(*load_graphs(str(tiny_graphs))))
    ]
    for expected, found in zip(*rows, strict=True):
        assert found.error is None and found.score == pytest.approx(expected.score, abs=0.05)
        assert found.interval == pytest.approx(expected.interval, abs=0.05)
        assert found.level == expected.level
        assert found.level_probabilities == pytest.approx(expected.level_probabilities, abs=1e-3)
    seconds = [[second["score"] for second in scores[0].timeline["seconds"]] for scores in rows]
    assert seconds[1] == pytest.approx(seconds[0], abs=0.05)


def test_a_tower_of_views_sees_arrays_as_tensors():
    """Frames of every shape: larger and smaller than what the backbones see."""
    tower = make_spatial_tower({"layers": [1], "side": 56}, {"layers": [2], "tile_size": 56})
    config = exporting._tower_config(tower)
    for height, width in ((240, 426), (90, 50), (40, 64)):
        frame = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        found = look(config, frame[0].numpy())
        for name, expected in zip(("seen_0", "seen_1"), tower.look(frame), strict=True):
            np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5)


def test_a_large_checkpoint_is_refused():
    with torch.device("meta"):
        large = torch.nn.Linear(40_000, 40_000)
    with pytest.raises(ExportError, match=r"big has 1\.6 billion parameters.*with torch"):
        check_size(large, "big")


def test_the_graphs_of_the_default_checkpoint_ask_what_it_was_taught(default_model):
    """Where this fails, run `make graphs`."""
    found = json.loads((GRAPHS / "config.json").read_text(encoding="utf-8"))
    expected = json.loads(json.dumps(graph_config(*default_model)))
    known = {question["name"]: question for question in found.pop("questions")}
    for question in expected.pop("questions"):
        # The bounds of levels are those of the recipe.
        assert known[question["name"]] == question | {"bounds": []}
    assert {**found, "calibration": None} == {**expected, "calibration": None, "precision": "float32"}


def test_the_graphs_of_the_default_checkpoint_are_of_its_architecture(default_model):
    """Every weight has the size that the layout has room for. Where this fails, run `make graphs`."""
    weights = default_model[0].state_dict()
    places = json.loads((GRAPHS / LAYOUT).read_text(encoding="utf-8"))["tensors"]
    assert {place["name"]: place["bytes"] for place in places} == {
        place["name"]: 4 * weights[place["name"]].numel() for place in places
    }
    # Of what is learned nothing lies in the graphs themselves.
    assert sum(path.stat().st_size for path in GRAPHS.glob("*.onnx")) < 2_000_000


def test_eight_bits_may_be_further_from_the_reference(tmp_path):
    for int8, tolerance in ((False, 0.5), (True, INT8_TOLERANCE)):
        copy_reference(REFERENCE, tmp_path / str(int8), int8)
        (found, expected) = (
            json.loads((folder / "scores.json").read_text()) for folder in (tmp_path / str(int8), REFERENCE)
        )
        assert found == expected | {"tolerance": tolerance}


def test_weights_of_another_architecture_are_refused(tiny, tiny_graphs, tmp_path):
    """They would overwrite their neighbours."""
    graphs = tmp_path / "graphs"
    shutil.copytree(tiny_graphs, graphs)
    name, value = next(iter(weights_of(tiny[0])))
    with pytest.raises(GraphError, match="make the graphs anew"):
        write_weights(graphs, [(name, value[:1])])


def test_a_damaged_config_is_told(tmp_path):
    for content in ('{"format": 1}', '{"format": 1, "video_processor": 3}', '{"format"'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(GraphError, match="export the checkpoint again"):
            load_graphs(str(tmp_path))


def test_eight_bits_keep_what_a_graph_computes(tiny, tiny_graphs, tmp_path, clip):
    small = tmp_path / "small"
    shutil.copytree(tiny_graphs, small)
    quantise(small)
    expected, found = Scorer(*tiny)(str(clip)), Scorer(*load_graphs(str(small)))(str(clip))
    # Random weights have no scores that mean something; what 8 bits do to trained ones is measured in docs/light.md.
    assert found.error is None and abs(found.score - expected.score) < 15
    assert not (small / "weights.bin").exists()
