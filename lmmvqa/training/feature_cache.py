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
import secrets
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import PreTrainedModel

from lmmvqa.checkpoints.training_record import video_digests
from lmmvqa.file_locks import left_behind, open_locked
from modeling_lmmvqa.spatial_tower import map_shape
from modeling_lmmvqa.tower_features import Features, tower_features
from processing.errors import LmmVqaError
from processing.video_reader import CHUNKING_VERSION, VideoError, open_video

logger = logging.getLogger(__name__)

# Videos whose length is looked up for an estimate of the cache's size.
PROBED = 64
# How the names of entries end that are being written.
_PARTIAL = ".partial"
# Bytes; that of an entry names two tensors.
_LONGEST_HEAD = 1_000_000


class FeatureCacheError(LmmVqaError, OSError):
    """The cache can't be read or written. The message names the file or folder and the remedy."""


class FeatureCache:
    """A folder of safetensors files, one a video: `spatial_features` (chunks, tokens, channels) and, with a temporal
    tower, `temporal_features` (chunks, tokens, channels), in half precision; read through a memory map.

    A video is a path, or a mapping with "path" and "bytes" as a row of a data set has it.
    """

    def __init__(self, folder: str | os.PathLike, model: PreTrainedModel, processor: Any):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        for partial in left_behind(self.folder.glob(f"*{_PARTIAL}")):
            partial.unlink(missing_ok=True)
        self.model = model.base_model
        self.processor = processor
        self._fingerprint = _fingerprint(self.model, processor)

    def keys(self, videos: Iterable[Any], workers: int = 1) -> list[str]:
        """The name of each video's entry: a hash of what it holds and of all that its features depend on. Files are
        hashed `workers` at once, each once."""
        return [self.entry_name(digest) for digest in video_digests(videos, workers)]

    def key(self, video: Any) -> str:
        """The name of a video's entry. A file that can't be read has one too; encoding it will say why it can't."""
        return self.keys([video])[0]

    def entry_name(self, digest: str) -> str:
        """The name of the entry of a video that has this SHA-256."""
        return hashlib.sha256(f"{digest}/{self._fingerprint}".encode()).hexdigest()[:32]

    def fill(self, videos: Iterable[tuple[str, Any]], workers: int = 1) -> Iterator[tuple[str, str | None]]:
        """Encode every video that has no entry yet, decoding `workers` at once. Stopped and started again, it goes on.

        Args:
            videos: with their keys.

        Yields:
            Each key with the reason why the video has no features, or None, as soon as that is known.

        Raises:
            FeatureCacheError: the disk is full, or the folder can't be written.
        """
        with ThreadPoolExecutor(workers) as pool:
            jobs = ((key, pool.submit(self._read, key, video)) for key, video in videos)
            # Decoded frames are large: no more of them than are being worked on.
            waiting = deque(islice(jobs, workers))
            while waiting:
                key, job = waiting.popleft()
                error = features = None
                try:
                    if (inputs := job.result()) is not None:
                        features = tower_features(self.model, inputs)
                except (VideoError, OSError) as fault:
                    error = str(fault)
                # Not a fault of the video.
                if features is not None:
                    self._write(key, features)
                yield key, error
                waiting.extend(islice(jobs, 1))

    def load(self, key: str) -> Features:
        """Features of an entry, in float32.

        Raises:
            FeatureCacheError: the entry is gone or damaged.
        """
        try:
            return {name: features.float() for name, features in load_file(self._entry(key)).items()}
        except (OSError, SafetensorError) as error:
            raise FeatureCacheError(
                f"{self._entry(key)}, the features of a video, can't be read ({error}): delete the file if it is "
                "there, and run the command again, which encodes that video anew."
            ) from error

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those without a whole entry."""
        return [key for key in keys if not self._has(key)]

    def check_space(self, sample: list[Any], count: int) -> int:
        """Bytes that the features of `count` videos will take, if they are as long as those of the sample.

        Raises:
            OSError: the disk has less room.
        """
        config = self.model.config
        size = self.processor.video_processor.size
        channels, height, width = map_shape(
            self.model.vision_tower, config.vision_feature_layer, (size["height"], size["width"])
        )
        # A Perceiver reads every place of the tower's map.
        spatial_tokens = height * width if config.spatial_projector_type == "perceiver" else config.num_spatial_tokens
        values = spatial_tokens * channels
        if config.num_temporal_tokens:
            values += config.num_temporal_tokens * config.temporal_config.feature_size
        needed = round(2 * values * count * fmean(map(self._num_chunks, sample)))
        free = shutil.disk_usage(self.folder).free
        logger.info(
            "The features of %d videos that are not encoded yet will take about %s in %s.",
            count,
            _size(needed),
            self.folder,
        )
        if needed > free:
            raise OSError(
                f"The features of {count} videos need about {_size(needed)}, but {self.folder} has {_size(free)} "
                "left: name another feature_cache, or set cache_features=false (each epoch then encodes)."
            )
        return needed

    def _num_chunks(self, video: Any) -> int:
        limit = self.processor.video_processor.max_chunks
        try:
            with open_video(video) as reader:
                return min(reader.info.num_chunks, limit)
        # Not a video at all: an image, or a file that will be reported when it is encoded.
        except (VideoError, OSError):
            return 1

    def _read(self, key: str, video: Any) -> dict[str, torch.Tensor] | None:
        return None if self._has(key) else decode(self.processor.video_processor, video)

    def _write(self, key: str, features: Features) -> None:
        tensors = {name: stream.half().contiguous() for name, stream in features.items()}
        # A run that is killed must not leave half a file under the final name.
        partial = self.folder / f"{key}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}"
        try:
            file, _ = open_locked(partial)
            try:
                with os.fdopen(file, "wb", closefd=False) as stream:
                    stream.write(save(tensors))
                partial.replace(self._entry(key))
            finally:
                partial.unlink(missing_ok=True)
                os.close(file)
        except OSError as error:
            raise self._unwritable(error) from error

    def _has(self, key: str) -> bool:
        """Whether there is an entry that is whole: as long as its head says."""
        try:
            with self._entry(key).open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                head = json.loads(file.read(min(size, _LONGEST_HEAD)))
                ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
                return os.fstat(file.fileno()).st_size == 8 + size + max(ends)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
            logger.warning("%s is damaged: that video is encoded anew.", self._entry(key))
            return False

    def _unwritable(self, error: OSError) -> FeatureCacheError:
        return FeatureCacheError(
            f"{self.folder}, the cache of features, can't be written ({error.strerror or error}): make room or make "
            "it writable, or name another feature_cache."
        )

    def _entry(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def decode(video_processor: Any, video: Any) -> dict[str, torch.Tensor]:
    """What the towers take, for one video or photograph.

    Raises:
        VideoError: it can't be read.
    """
    return video_processor(video, return_tensors="pt")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(count, 1) / 2**20:.1f} MiB"


# Fields of the model's config that the features don't depend on. Every other one counts, also one that is added later:
# at worst a video is encoded again.
_BEHIND_THE_TOWERS = (
    "text_config",
    "video_token_id",
    "spatial_projector_type",
    "frame_fusion",
    "projector_hidden_size",
    "projector_num_heads",
    "levels",
    "calibration",
    "tie_word_embeddings",
)
# How a checkpoint was saved and where it is kept changes nothing.
_BOOKKEEPING = ("_name_or_path", "architectures", "auto_map", "custom_pipelines", "dtype", "transformers_version")


def _fingerprint(model: PreTrainedModel, processor: Any) -> str:
    """A hash of all that the features of a video depend on: configs and weights of the towers, the processor's
    settings."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _BEHIND_THE_TOWERS}
    # A Perceiver reads every place of the tower's map; the other projectors read it pooled.
    config["pooled"] = model.config.spatial_projector_type != "perceiver"
    towers = ["vision_tower", "temporal_tower"]
    if not model.config.num_temporal_tokens:
        towers.remove("temporal_tower")
        del config["temporal_config"]
    seen = [_settings(config), _settings(processor.video_processor.to_dict()), CHUNKING_VERSION]
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode())
    for tower in towers:
        for name, tensor in sorted(getattr(model, tower).state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _settings(value: Any) -> Any:
    """A config without its bookkeeping, at every depth."""
    if isinstance(value, Mapping):
        return {name: _settings(item) for name, item in value.items() if name not in _BOOKKEEPING}
    return [_settings(item) for item in value] if isinstance(value, list | tuple) else value
