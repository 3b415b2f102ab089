"""Image-caption pairs and video instructions have the same `messages` as rated sets."""

from __future__ import annotations

import json
import logging

import dataset_layouts as layouts
import pytest
from datasets import Features, load_dataset

import dataset_builders
from dataset_builders.label_files import LabelError
from dataset_builders.release_builder import MESSAGES


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    dataset_builders.register()
    (tmp_path / "set").mkdir()


def pair(number: int, human: str) -> dict:
    turns = [{"from": "human", "value": human}, {"from": "gpt", "value": f"caption {number}"}]
    return {"id": f"{number:09}", "image": f"00453/{number:09}.jpg", "conversations": turns}


@pytest.mark.parametrize("folder", ["", "images/"])
def test_image_captions(tmp_path, folder, caplog):
    root = tmp_path / "set"
    entries = [pair(1, "Describe it.\n<image>"), pair(2, "<image>\nWhat is this?"), pair(3, "<image>")]
    (root / "blip_laion_cc_sbu_558k.json").write_text(json.dumps(entries))
    layouts.touch(root, [folder + entry["image"] for entry in entries[:2]])
    with caplog.at_level(logging.WARNING, "dataset_builders"):
        data = load_dataset("image_captions", data_dir=str(root))["train"]
    assert "1 of 3 rows have no file" in caplog.text
    assert data.features["messages"] == Features({"messages": MESSAGES})["messages"]
    assert data["id"][:] == ["000000001", "000000002"]
    assert [message["role"] for message in data[0]["messages"]] == ["user", "assistant"]
    image, before = {"type": "image", "text": None}, {"type": "text", "text": "Describe it."}
    assert data[0]["messages"][0]["content"] == [before, image]
    assert data[1]["messages"][0]["content"] == [image, {"type": "text", "text": "What is this?"}]
    assert data[1]["messages"][1]["content"] == [{"type": "text", "text": "caption 2"}]
    assert data[0]["image"]["path"] == str(root / folder / "00453" / "000000001.jpg")
    with pytest.raises(LabelError, match="strict"):
        load_dataset("image_captions", data_dir=str(root), strict=True)


def test_video_instructions(tmp_path, caplog):
    root = tmp_path / "set"
    entries = [
        {"q": "What is done?", "a": "Cooking.", "video_id": "v_1"},
        {"q": "Where?", "a": "Indoors.", "video_id": "v_1"},
    ]
    (root / "VideoInstruct100K.json").write_text(json.dumps([*entries, {"q": "?", "a": "!", "video_id": "v_2"}]))
    layouts.touch(root, ["videos/v_1.mkv", "videos/v_9.mp4"])
    with caplog.at_level(logging.WARNING, "dataset_builders"):
        data = load_dataset("video_instructions", data_dir=str(root))["train"]
    assert "1 of 3 rows have no file" in caplog.text and "videos/v_9.mp4" in caplog.text
    assert data.features["messages"] == Features({"messages": MESSAGES})["messages"]
    assert data["id"][:] == ["v_1/0", "v_1/1"]
    user, assistant = data[1]["messages"]
    assert user["content"] == [{"type": "video", "text": None}, {"type": "text", "text": "Where?"}]
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": "Indoors."}]}
    assert data[1]["video"]["path"] == str(root / "videos" / "v_1.mkv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image_captions", "{", "can't be read as a json file"),
        ("image_captions", "{}", "not a list"),
        ("image_captions", '[{"image": "a.jpg"}]', "entry 0 is not an object with image, conversations"),
        ("image_captions", '[{"image": "a.jpg", "conversations": [{"from": "dog", "value": ""}]}]', "human or gpt"),
        ("video_instructions", '[{"q": "x", "a": "y"}]', "entry 0 is not an object with q, a, video_id"),
    ],
)
def test_malformed_files_are_refused(tmp_path, name, content, message):
    (tmp_path / "set" / "labels.json").write_text(content)
    with pytest.raises(LabelError, match=message):
        load_dataset(name, data_dir=str(tmp_path / "set"))


def test_rows_of_captions_are_chats_for_the_processor(tiny, tmp_path):
    """An image is a video of one frame: it stands where a video would."""
    _, processor = tiny
    layouts.touch(tmp_path, [pair(1, "")["image"]])
    (tmp_path / "chat.json").write_text(json.dumps([pair(1, "Describe it.\n<image>")]))
    row = load_dataset("image_captions", data_dir=str(tmp_path))["train"][0]
    chat = processor.apply_chat_template(row["messages"], tokenize=False)
    assert chat.count(processor.video_token) == 1 and "Describe it." in chat
