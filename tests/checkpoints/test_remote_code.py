"""A saved checkpoint in a process that has the public dependencies and not our package."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from loopback_hub import LoopbackHub
from strangers import SCORE, SCORE_DIRECTLY, Stranger
from tiny_models import make_decoder, make_tokenizer, make_vision_tower
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.checkpoints.composing import compose, load_decoder, load_vision_tower
from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.checkpoints.merging import merge
from lmmvqa.checkpoints.remote_code import add_remote_code
from lmmvqa.checkpoints.training_record import SeenVideos, TrainingRecord, read_record
from lmmvqa.release.pushing import staged_model
from lmmvqa.training.adapters import make_trainable


@pytest.fixture(scope="module")
def shared_hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def stranger(shared_hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    with Stranger(folder, **shared_hub.environment(folder / "home")) as stranger:
        yield stranger


def link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        Path(target).symlink_to(source)
    else:
        shutil.copy(source, target)


def test_a_folder_works_without_our_package(default_model, clip, stranger, tmp_path):
    """The default checkpoint, as it is assembled."""
    model, processor = default_model
    folder = tmp_path / "checkpoint"
    # The cache may have been assembled by an older release.
    shutil.copytree(default_checkpoint(), folder, copy_function=link_weights)
    add_remote_code(folder)
    found = stranger.ask(SCORE, folder, clip)
    ours = model.assess(**processor(videos=str(clip)))
    assert found["scores"] == pytest.approx(ours.score.tolist(), abs=1e-3)
    assert found["levels"] == ours.level
    pipe = pipeline("video-quality-assessment", model=model, processor=processor)
    assert found["rows"] == json.loads(json.dumps([pipe(str(clip), timeline=True)]))


def test_a_repository_works_without_our_package(taught, clip, shared_hub, stranger):
    """Also what it was taught beside score and level."""
    model, processor, checkpoint, _ = taught
    shared_hub.upload("user/taught", checkpoint)
    found = stranger.ask(SCORE, "user/taught", clip, clip)
    ours = model.assess(**processor(videos=[str(clip)] * 2))
    assert found["scores"] == pytest.approx(ours.score.tolist(), abs=1e-5)
    assert [row["score"] for row in found["rows"]] == pytest.approx(ours.score.tolist(), abs=1e-3)
    assert "missing.mp4 does not exist" in found["broken"]["error"] and found["broken"]["flaws"] is None
    for row, flaw in zip(found["rows"], ours.answers["flaw"].value, strict=True):
        assert next(iter(row["flaws"])) == flaw and row["dimension_sharpness"] > 50
    assert found["sentence"].startswith(f"{ours.level[0].capitalize()} ({ours.score[0]:.0f}, ")
    assert "can't be told which" in found["verdict"]


def test_an_adapter_works_as_its_card_says(tiny_checkpoint, clip, shared_hub, stranger, tmp_path):
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
    shared_hub.upload("user/tiny", tiny_checkpoint)
    with staged_model(tmp_path / "adapter", "user/adapter", base_model="user/tiny") as stage:
        shared_hub.upload("user/adapter", stage)
    found = stranger.ask(code, clip)
    assert found["score"] == pytest.approx(expected.score.item(), abs=1e-3)


# What a user may do with a checkpoint and save it again.
SAVE_AGAIN = """
import sys
from transformers import AutoModelForImageTextToText, AutoProcessor
AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=True).save_pretrained(sys.argv[2])
AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True).save_pretrained(sys.argv[2])
print("true")
"""


def save_plainly(source: Path, target: Path, stranger: Stranger) -> None:
    """By the library's own methods, after loading."""
    AutoModelForImageTextToText.from_pretrained(source).save_pretrained(target)
    AutoProcessor.from_pretrained(source).save_pretrained(target)


def save_as_a_stranger(source: Path, target: Path, stranger: Stranger) -> None:
    stranger.ask(SAVE_AGAIN, source, target)


def save_by_merging(source: Path, target: Path, stranger: Stranger) -> None:
    model, processor = load_checkpoint(str(source))
    adapter = target.with_name("adapter")
    make_trainable(model, "projectors").save_pretrained(adapter)
    processor.save_pretrained(adapter)
    merge(adapter, target)


@pytest.mark.parametrize("save", [save_plainly, save_as_a_stranger, save_by_merging])
def test_a_folder_works_elsewhere_however_it_was_saved(save, tiny, tiny_checkpoint, clip, stranger, tmp_path):
    model, processor = tiny
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    TrainingRecord((SeenVideos("mine", "train", frozenset({"0" * 64})),)).write(source)
    save(source, tmp_path / "saved", stranger)
    # Whoever has our code from a checkpoint has of it what they used, and that is not the pipeline.
    code = SCORE_DIRECTLY if save is save_as_a_stranger else SCORE
    found = stranger.ask(code, tmp_path / "saved", clip)
    assert found["scores"] == pytest.approx(model.assess(**processor(videos=str(clip))).score.tolist(), abs=1e-3)
    assert read_record(str(tmp_path / "saved")) == read_record(str(source))


def test_no_path_of_this_machine_is_saved(tmp_path):
    """The parts of a composed checkpoint know where they were loaded from."""
    make_vision_tower().save_pretrained(tmp_path / "tower")
    tokenizer = make_tokenizer(1)
    tokenizer.save_pretrained(tmp_path / "decoder")
    make_decoder(tokenizer).save_pretrained(tmp_path / "decoder")
    decoder, tokenizer = load_decoder(str(tmp_path / "decoder"))
    model, processor = compose(
        vision_tower=load_vision_tower(str(tmp_path / "tower")),
        decoder=decoder,
        tokenizer=tokenizer,
        config=dict(num_spatial_tokens=4, projector_num_heads=4),
    )
    for part in (model, processor):
        part.save_pretrained(tmp_path / "saved")
    save_plainly(tmp_path / "saved", tmp_path / "again", tmp_path)
    # A folder of an older release, which is mended on its way to the Hub.
    old = json.loads((tmp_path / "saved" / "config.json").read_text())
    old["vision_config"]["_name_or_path"] = str(tmp_path / "tower")
    (tmp_path / "saved" / "config.json").write_text(json.dumps(old))
    add_remote_code(tmp_path / "saved")
    for folder in ("saved", "again"):
        for file in (tmp_path / folder).iterdir():
            assert str(tmp_path).encode() not in file.read_bytes(), file


def test_our_own_classes_win_where_they_are_registered(tiny_checkpoint):
    import modeling_lmmvqa
    from processing.processing_lmmvqa import LmmVqaProcessor

    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint)
    assert type(model) is modeling_lmmvqa.LmmVqaForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(tiny_checkpoint)) is LmmVqaProcessor


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        add_remote_code(tmp_path)
