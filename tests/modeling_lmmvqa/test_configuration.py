from dataclasses import fields

import pytest
import torch
from tiny_models import make_tiny

from lmmvqa.checkpoints.composing import describe
from modeling_lmmvqa import LmmVqaConfig, LmmVqaForConditionalGeneration, LmmVqaTemporalConfig


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("num_temporal_tokens", 5, "0 or one of 1, 4, 16, 64, 256"),
        ("num_spatial_tokens", 5, "square"),
        ("num_spatial_tokens", 0, "square"),
        ("levels", ["good"], "at least two"),
        ("levels", ["good", "good"], "different"),
        ("frame_fusion", "sum", "concat"),
        ("spatial_projector_type", "linear", "vit"),
        ("calibration", {"score_map": [[0.0, 0.0], [50.0, 0.0]]}, "rising"),
        ("calibration", {"score_map": [[0.0, 0.0]]}, "two pairs"),
        ("calibration", {"interval_scale": 0.0}, "above 0"),
        ("calibration", {"level_temperature": 0.0}, "above 0"),
        ("calibration", {"score_calibration": 1.0}, "no entry 'score_calibration'"),
        ("calibration", {"flaw": {"temperature": 0.0}}, "flaw: temperature=0.0 must be above 0"),
        ("calibration", {"flaw": {"heat": 1.0}}, "flaw has no entry 'heat'"),
    ],
)
def test_a_bad_value_is_shown_with_what_is_allowed(field, value, allowed):
    with pytest.raises(Exception) as error:
        LmmVqaConfig(**{field: value})
    assert allowed in str(error.value) and field in str(error.value)


def test_a_core_that_any_checkpoint_needs():
    """The house rule: what one checkpoint needs belongs into its tower or its training."""
    own = [field.name for field in fields(LmmVqaConfig) if field.name in LmmVqaConfig.__annotations__]
    assert 10 < len(own) <= 14, own


@pytest.mark.parametrize("kind", ["vit", "perceiver"])
def test_heads_that_do_not_divide_the_width_are_refused(kind):
    with pytest.raises(ValueError, match="projector_num_heads=7 does not divide the width 32"):
        make_tiny(projector_num_heads=7, spatial_projector_type=kind)


@pytest.mark.parametrize(
    "fields", [dict(slow_stride=5), dict(depth=34), dict(fast_channels=7), dict(image_size=16)], ids=str
)
def test_temporal_config_refuses_what_slowfast_cannot_be(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        LmmVqaTemporalConfig(**fields)


def test_five_levels():
    levels = ["bad", "poor", "fair", "good", "excellent"]
    assert LmmVqaConfig(levels=levels).levels == levels


def test_round_trip(tmp_path):
    config = LmmVqaConfig(num_temporal_tokens=16, frame_fusion="mean", levels=["worse", "better"])
    config.save_pretrained(tmp_path)
    assert LmmVqaConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_papers_model():
    """Counts that can be derived by hand from the published architectures.

    CLIP ViT-L/14 (vision side): 303,179,776. SlowFast R50 is 34,566,488 with its head of 2304 x 400 + 400.
    Llama 3 8B: 8,030,261,248 with its head of 128,256 x 4096. One CLIP layer: 12,596,224; linear to 4096 and LayerNorm.
    """
    description = describe(LmmVqaConfig())
    head = 2304 * 400 + 400
    linear, norm = 1024 * 4096 + 4096, 2 * 4096
    assert description.parameters == {
        "vision_tower": 303_179_776,
        "temporal_tower": 34_566_488 - head,
        "spatial_projector": 12_596_224 + linear + norm,
        "temporal_projector": (2304 * 4096 + 4096) + (4096 * 4096 + 4096) + norm,
        "language_model": 8_030_261_248 - 128_256 * 4096,
        "lm_head": 128_256 * 4096,
    }
    assert description.tokens_per_second == 256 + 256
    assert description.weight_bytes == 2 * sum(description.parameters.values())
    # 32 layers, 8 key-value heads of 128, keys and values, 2 bytes.
    assert description.cache_bytes_per_second == 512 * 32 * 8 * 128 * 2 * 2


def test_the_papers_model_runs_on_the_meta_device():
    """Real shapes through the whole network, without its 17 GB."""
    with torch.device("meta"):
        model = LmmVqaForConditionalGeneration(LmmVqaConfig())
        spatial = model.model.encode_key_frames(torch.empty(2, 3, 224, 224))
        temporal = model.model.encode_chunks(torch.empty(2, 32, 3, 224, 224))
        assert spatial.shape == (2, 256, 1024) and temporal.shape == (2, 256, 2304)
        assert model.model.spatial_projector(spatial).shape == (2, 256, 4096)
        assert model.model.temporal_projector(temporal).shape == (2, 256, 4096)
