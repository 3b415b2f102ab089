import pytest
import torch
from tiny_models import make_tiny

from lmmvqa.checkpoints.loading import ModelError, load_checkpoint


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "part", ["model.spatial_projector.linear.weight", "model.temporal_projector.standardizer.mean"]
)
def test_weights_that_are_not_finite_are_refused(part, value, tmp_path):
    """Every score would be none, with the level "poor"."""
    model, processor = make_tiny()
    with torch.no_grad():
        model.state_dict()[part].view(-1)[0] = value
    for saved in (model, processor):
        saved.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"not finite \({part}\)"):
        load_checkpoint(str(tmp_path))


def test_half_precision_scores_as_full_precision_does(tmp_path):
    """A silent channel has a scale of a million, which half precision can't hold."""
    model, processor = make_tiny()
    spatial = model.model.spatial_projector.standardizer
    features = torch.randn(100, len(spatial.mean))
    features[:, 0] = 1.0
    spatial.fit(features, limit=2.0)
    assert spatial.scale.max() > torch.finfo(torch.float16).max
    inputs = processor(videos=[torch.zeros(50, 32, 32, 3, dtype=torch.uint8)], fps=25)
    expected = model.assess(**inputs).score
    for saved in (model, processor):
        saved.save_pretrained(tmp_path)
    loaded = load_checkpoint(str(tmp_path), "cpu", "float16")[0]
    assert torch.equal(loaded.model.spatial_projector.standardizer.scale, spatial.scale)
    half = model.half()
    assert half.model.spatial_projector.standardizer.scale.dtype == torch.float32
    torch.testing.assert_close(half.assess(**inputs).score, expected, atol=2.0, rtol=0)
