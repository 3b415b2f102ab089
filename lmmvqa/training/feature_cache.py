"""Features of the frozen towers, encoded once and kept on disk.

The towers never change while projectors train, so every epoch after the first would compute the same features again. An
entry is named by a hash of the video's bytes, of the towers' weights and of the processor's settings: a stale one can't
be found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils.logging import tqdm

from modeling_lmmvqa.feature_batches import Features, encode_video

logger = logging.getLogger(__name__)


class FeatureCache:
    """A folder of safetensors files, one a video: `spatial_features` (chunks, tokens, channels) and, with a temporal tower,
    `temporal_features` (chunks, tokens, channels), in half precision."""

    def __init__(self, folder: str | os.PathLike, model: PreTrainedModel, processor: Any):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = model.base_model
        self.processor = processor
        self._fingerprint = _fingerprint(self.model, processor)
        self._entries: dict[str, Path] = {}

    def fill(self, videos: Iterable[str]) -> None:
        """Encode every video that has no entry yet. Stopped and started again, it goes on where it was.

        Raises:
            VideoError: a video can't be read.
        """
        missing = [video for video in dict.fromkeys(videos) if not self._entry(video).exists()]
        for video in tqdm(missing, desc="Encoding videos", disable=not missing):
            self._encode(video)

    def load(self, video: str) -> Features:
        """Features of a video in float32, encoded now if need be."""
        entry = self._entry(video)
        if not entry.exists():
            self._encode(video)
        return {name: features.float() for name, features in load_file(entry).items()}

    def _encode(self, video: str) -> None:
        features = encode_video(self.model, self.processor.video_processor(video, return_tensors="pt"))
        tensors = {name: stream.half().contiguous() for name, stream in features.items()}
        entry = self._entry(video)
        # A run that is killed must not leave half a file under the final name.
        partial = entry.with_suffix(f".{os.getpid()}.partial")
        save_file(tensors, partial)
        partial.replace(entry)

    def _entry(self, video: str) -> Path:
        # Hashed once a run: an epoch must not read all videos again.
        if video not in self._entries:
            with open(video, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            name = hashlib.sha256(f"{content}/{self._fingerprint}".encode()).hexdigest()[:32]
            self._entries[video] = self.folder / f"{name}.safetensors"
        return self._entries[video]


def _fingerprint(model: PreTrainedModel, processor: Any) -> str:
    digest = hashlib.sha256(json.dumps(processor.video_processor.to_dict(), sort_keys=True, default=str).encode())
    config = model.config
    shape = (config.vision_feature_layer, config.num_temporal_tokens, config.spatial_projector_type == "perceiver")
    digest.update(json.dumps([*shape, config.num_spatial_tokens]).encode())
    for tower in ("vision_tower", "temporal_tower"):
        for name, tensor in sorted(getattr(model, tower, torch.nn.Module()).state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
