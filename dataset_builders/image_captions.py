"""Image-caption pairs in the layout of LLaVA's pretraining set (LAION, Conceptual Captions, SBU).

General data for the paper's section IV-D.
"""

from __future__ import annotations

from typing import Any, ClassVar

import datasets

from dataset_builders.label_files import LabelError, files_below, find_label_file, read_entries
from dataset_builders.release_builder import MESSAGES, ReleaseBuilder, ReleaseConfig

_ROLES = {"human": "user", "gpt": "assistant"}
_PLACEHOLDER = "<image>"


class ImageCaptions(ReleaseBuilder):
    """A JSON file `[{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}, ...]` and the images,
    whose paths are relative to the folder or to its subfolder `images`."""

    BUILDER_CONFIGS: ClassVar = [ReleaseConfig(name="default")]

    def items(self) -> dict[str, list[dict[str, Any]]]:
        root = self.root()
        files = files_below(root)
        there = set(files)
        path = find_label_file(root, files, "blip_laion_cc_sbu_558k.json", "chat.json", "*.json")
        entries = read_entries(path, "image", "conversations")
        items, missing = [], []
        for number, entry in enumerate(entries):
            try:
                turns = [(_ROLES[turn["from"]], str(turn["value"])) for turn in entry["conversations"]]
            except (KeyError, TypeError) as error:
                raise LabelError(
                    f"{path}: the conversations of entry {number} are not a list of {{from: human or gpt, value}}."
                ) from error
            image = str(entry["image"])
            file = next((file for file in (image, f"images/{image}") if file in there), None)
            if file is None:
                missing.append(image)
            else:
                items.append({"id": str(entry.get("id", number)), "path": f"{root}/{file}", "turns": turns})
        self.report(missing, [], len(entries))
        return {"train": items}

    def rows(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        messages = [{"role": role, "content": _content(text)} for role, text in item["turns"]]
        return [{"id": item["id"], "image": {"path": item["path"], "bytes": None}, "messages": messages}]

    def _info(self) -> datasets.DatasetInfo:
        features = {"id": datasets.Value("string"), "image": datasets.Image(decode=False), "messages": MESSAGES}
        return datasets.DatasetInfo(features=datasets.Features(features))


def _content(text: str) -> list[dict[str, str]]:
    """Blocks of a turn; the image stands before or after the text, where the file has its placeholder."""
    blocks: list[dict[str, str]] = []
    for number, part in enumerate(text.split(_PLACEHOLDER)):
        if number:
            blocks.append({"type": "image"})
        if part.strip():
            blocks.append({"type": "text", "text": part.strip()})
    return blocks
