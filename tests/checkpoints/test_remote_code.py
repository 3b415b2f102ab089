"""A saved checkpoint in a process that has the public dependencies and not our package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loopback_hub import LoopbackHub
from transformers import pipeline

from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.checkpoints.remote_code import add_remote_code
from lmmvqa.release.pushing import staged_model
from lmmvqa.training.adapters import make_trainable

STRANGER = """
import json, sys
import importlib.util
for name in ("lmmvqa", "modeling_lmmvqa", "processing", "dataset_builders", "hub_cards"):
    assert importlib.util.find_spec(name) is None, name
from transformers import AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, pipeline

repo, *videos = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(repo, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
quality = model.assess(**processor(videos=videos, return_tensors="pt"))
pipe = pipeline(model=repo, trust_remote_code=True)
assert pipe.task == "video-quality-assessment"
rows = pipe(videos, batch_size=len(videos), timeline=True)
for auto in (AutoModel, AutoModelForMultimodalLM):
    assert auto.from_pretrained(repo, trust_remote_code=True).config.model_type == "lmmvqa"
broken = pipe("missing.mp4")
print(json.dumps({"scores": quality.score.tolist(), "levels": quality.level, "rows": rows, "broken": broken}))
"""


@pytest.fixture(scope="session")
def bare_packages(tmp_path_factory) -> Path:
    """Every installed package but ours, as links in a folder: what a clean environment with the dependencies holds."""
    folder = tmp_path_factory.mktemp("bare")
    ours = ("lmmvqa", "__editable__", "modeling_lmmvqa", "processing", "dataset_builders", "hub_cards")
    # The packages may be those of several environments, one on top of the other.
    for site in (Path(place) for place in sys.path if Path(place).name == "site-packages"):
        for entry in site.iterdir():
            if not entry.name.startswith(ours) and entry.suffix != ".pth" and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


def ask_a_stranger(code, arguments, packages, folder, **environment):
    # -S leaves out the installed packages, so that only `packages` are there.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "home"), **environment, "PYTHONPATH": str(packages)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        Path(target).symlink_to(source)
    else:
        shutil.copy(source, target)


def test_a_folder_works_without_our_package(default_model, clip, bare_packages, tmp_path):
    """The default checkpoint, as it is assembled."""
    model, processor = default_model
    folder = tmp_path / "checkpoint"
    # The cache may have been assembled by an older release.
    shutil.copytree(default_checkpoint(), folder, copy_function=link_weights)
    add_remote_code(folder)
    found = ask_a_stranger(STRANGER, [folder, clip], bare_packages, tmp_path)
    ours = model.assess(**processor(videos=str(clip)))
    assert found["scores"] == pytest.approx(ours.score.tolist(), abs=1e-3)
    assert found["levels"] == ours.level
    pipe = pipeline("video-quality-assessment", model=model, processor=processor)
    assert found["rows"] == json.loads(json.dumps([pipe(str(clip), timeline=True)]))


def test_a_repository_works_without_our_package(tiny, tiny_checkpoint, clip, bare_packages, tmp_path):
    model, processor = tiny
    with LoopbackHub() as hub:
        hub.upload("user/tiny", tiny_checkpoint)
        found = ask_a_stranger(
            STRANGER, ["user/tiny", clip, clip], bare_packages, tmp_path, **hub.environment(tmp_path / "home")
        )
    ours = model.assess(**processor(videos=[str(clip)] * 2))
    assert found["scores"] == pytest.approx(ours.score.tolist(), abs=1e-5)
    assert [row["score"] for row in found["rows"]] == pytest.approx(ours.score.tolist(), abs=1e-3)
    assert "missing.mp4 does not exist" in found["broken"]["error"]


def test_an_adapter_works_as_its_card_says(tiny_checkpoint, clip, bare_packages, tmp_path):
    model, processor = load_checkpoint(str(tiny_checkpoint))
    with torch.no_grad():
        trained = make_trainable(model, "projectors")
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    trained.save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    expected = trained.base_model.model.assess(**processor(videos=str(clip)))
    code = (
        "import json, sys; from transformers import pipeline\n"
        "print(json.dumps(pipeline(model='user/adapter', trust_remote_code=True)(sys.argv[1])))"
    )
    with LoopbackHub() as hub:
        hub.upload("user/tiny", tiny_checkpoint)
        with staged_model(tmp_path / "adapter", "user/adapter", base_model="user/tiny") as stage:
            hub.upload("user/adapter", stage)
        found = ask_a_stranger(code, [clip], bare_packages, tmp_path, **hub.environment(tmp_path / "home"))
    assert found["score"] == pytest.approx(expected.score.item(), abs=1e-3)


def test_our_own_classes_win_where_they_are_registered(tiny_checkpoint):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import modeling_lmmvqa
    from processing.processing_lmmvqa import LmmVqaProcessor

    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint)
    assert type(model) is modeling_lmmvqa.LmmVqaForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(tiny_checkpoint)) is LmmVqaProcessor


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        add_remote_code(tmp_path)
