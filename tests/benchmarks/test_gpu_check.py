"""The script for a GPU, with a tiny network on a processor."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from modeling_lmmvqa import LmmVqaConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


@pytest.fixture
def script():
    if not SCRIPT.is_file():
        pytest.skip("benchmarks are no part of the wheel")
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_model_has_the_shapes_of_a_configuration(script, clip):
    """As the paper's is made, with fewer and narrower layers."""
    config = LmmVqaConfig()
    for part, values in (
        (config.vision_config, {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64}),
        (config.text_config, {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 2000}),
    ):
        for name, value in values.items():
            setattr(part, name, value)
    config.text_config.head_dim, config.temporal_config.image_size = 2, 64
    model, processor = script.random_model(config, "cpu")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    # Of frames of 64 pixels, the temporal tower has 2 x 2 places.
    assert model.config.tokens_per_chunk == 256 + 4 and model.lm_head.weight.shape == (2000, 64)
    quality = model.assess(**processor(videos=[str(clip)]))
    assert quality.score.isfinite().all()


def test_it_measures_all_that_it_promises(script, tiny_checkpoint, tmp_path, capsys):
    words = ["--tiny", "--device", "cpu", "--rounds", "1", "--batch", "2", "--checkpoint", str(tiny_checkpoint)]
    script.main([*words, "--json", str(tmp_path / "figures.json")])
    found, said = json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out
    ways = [(row["temporal_tokens"], row["way"]) for row in found["inference"]]
    assert ways == [(tokens, way) for tokens in (4, 16, 64, 256) for way in ("read-out", "generate")]
    assert all(row["seconds"] > 0 and row["peak_gib"] is None for row in found["inference"])
    feeding = [row["feeding"] for row in found["training"]]
    assert feeding == ["from videos", "from videos, recomputed", "cached features"]
    assert all(row["videos_per_second"] > 0 for row in found["training"])
    assert found["scores"]["agrees"] and found["scores"]["difference"] < 1e-3
    assert "no GPU" in said and "256 | generate" in said
    with pytest.raises(SystemExit):
        script.main(["--device", "cpu"])
