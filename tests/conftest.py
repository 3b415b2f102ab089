"""Fixtures that tests of several rooms share."""

import os
from pathlib import Path

# Tiny networks are faster on one thread, and so are tests that run beside others; for processes that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on the loopback interface that the client in this process takes for the Hub, without pauses between its
    attempts."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http
    from loopback_hub import TOKEN, LoopbackHub
    from transformers.utils import hub as transformers_hub

    with LoopbackHub() as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # The client that transformers keeps is made anew, and with this address.
        monkeypatch.setattr(transformers_hub, "_hf_api", None)
        monkeypatch.setattr(_http.time, "sleep", lambda _: None)
        yield hub
