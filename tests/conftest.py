"""Fixtures that tests of several rooms share."""

from pathlib import Path

import pytest
import torch
from inputs import DATA
from tiny_models import make_tiny

from lmmvqa.checkpoints.loading import load_checkpoint


@pytest.fixture(scope="session")
def clip() -> Path:
    """A real clip: 5 s, 960 x 540, 29.97 frames/s, CC0."""
    return DATA / "flower.mp4"


@pytest.fixture(scope="session")
def default_model():
    return load_checkpoint()


@pytest.fixture(scope="session")
def tiny():
    model, processor = make_tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield model, processor
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert not changed, f"A test has changed the model that all share: {changed}"


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """A tiny model that was taught the questions flaw and sharpness."""
    from taught_models import make_taught

    return make_taught(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="session")
def tiny_inputs(tiny, clip):
    """Inputs of `assess` for two videos of different length: 4 chunks and 2."""
    import numpy as np

    frames = np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), dtype=np.uint8)
    _, processor = tiny
    long = processor.video_processor(str(clip), return_tensors="pt")
    short = processor.video_processor(frames, fps=25, return_tensors="pt")
    assert (long["chunk_counts"].item(), short["chunk_counts"].item()) == (4, 2)
    return processor(videos=[str(clip), frames], fps=25)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny, tmp_path_factory):
    """A checkpoint as training leaves it: with what is nobody's business."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    for part in tiny:
        part.save_pretrained(folder)
    (folder / "training_args.bin").write_bytes(b"secret")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"old")
    (folder / "card.yaml").write_text("title: Tiny\npredicts: nothing\nlicence: apache-2.0\n")
    return folder
