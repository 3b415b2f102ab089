"""Video instructions in the layout of Video-ChatGPT: a JSON file of `q`, `a`, `video_id`, and the videos.

General data for the paper's section IV-D.
"""

from __future__ import annotations

from typing import Any, ClassVar

import datasets

from dataset_builders.label_files import files_below, find_label_file, read_entries, without_video_suffix
from dataset_builders.release_builder import MESSAGES, ReleaseBuilder, ReleaseConfig
from processing.quality_prompts import conversation
from processing.video_names import is_video


class VideoInstructions(ReleaseBuilder):
    """A JSON file `[{"q", "a", "video_id"}, ...]` and, anywhere below the folder, videos `<video_id>.<suffix>`."""

    BUILDER_CONFIGS: ClassVar = [ReleaseConfig(name="default")]

    def items(self) -> dict[str, list[dict[str, Any]]]:
        root = self.root()
        files = files_below(root)
        videos = {without_video_suffix(file).rpartition("/")[2]: file for file in filter(is_video, reversed(files))}
        path = find_label_file(root, files, "VideoInstruct*.json", "*.json")
        entries = read_entries(path, "q", "a", "video_id")
        items, missing, named = [], [], set()
        for number, entry in enumerate(entries):
            name = str(entry["video_id"])
            named.add(name)
            if name in videos:
                video = f"{root}/{videos[name]}"
                items.append({"id": f"{name}/{number}", "path": video, "q": str(entry["q"]), "a": str(entry["a"])})
            else:
                missing.append(name)
        self.report(missing, [file for name, file in videos.items() if name not in named], len(entries))
        return {"train": items}

    def rows(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        # Without the system prompt: that one speaks of quality, which these questions are not about.
        messages = conversation(item["q"], answer=item["a"])[1:]
        return [{"id": item["id"], "video": {"path": item["path"], "bytes": None}, "messages": messages}]

    def _info(self) -> datasets.DatasetInfo:
        features = {"id": datasets.Value("string"), "video": datasets.Video(decode=False), "messages": MESSAGES}
        return datasets.DatasetInfo(features=datasets.Features(features))
