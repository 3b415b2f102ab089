"""Videos to scores: the one code path under the command line, the pipeline, bulk scoring and the demo."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import lmmvqa.registration  # noqa: F401 - makes the Auto classes know ours
from lmmvqa.default_checkpoint import default_checkpoint
from modeling_lmmvqa.feature_batches import Features, assessment_inputs, encode_video
from modeling_lmmvqa.pipeline_lmmvqa import LmmVqaPipeline
from processing.video_names import is_video
from processing.video_reader import VideoError, VideoInfo

logger = logging.getLogger(__name__)

# Scores of one file by PyAV and by decord differ by no more than this, where decord delivers all frames: both give the same
# key frames, but small frames for the temporal tower are scaled before the colour conversion by one and after it by the other.
DECODER_TOLERANCE = 1.0


class ModelError(RuntimeError):
    """A checkpoint can't be used. The message names it and the remedy."""


@dataclass(frozen=True)
class VideoScore:
    """The quality of one video, or why it has none.

    Args:
        path: as it was given.
        score: 0 to 100, higher is better.
        score_std: standard deviation of the score, in points.
        interval: the central 90 % of the score's distribution.
        level: the most probable level word.
        level_probabilities: by level word, worst first.
        duration_s: length of the video in seconds.
        error: what is wrong and the remedy; all else is then None.
        timeline: quality over time, as `assess_timeline` gives it, where it was asked for.
    """

    path: str
    score: float | None = None
    score_std: float | None = None
    interval: tuple[float, float] | None = None
    level: str | None = None
    level_probabilities: dict[str, float] | None = None
    duration_s: float | None = None
    error: str | None = None
    timeline: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        row = asdict(self)
        return row if self.timeline else {key: value for key, value in row.items() if key != "timeline"}


def load_checkpoint(name_or_path: str | None = None, device: str | None = None) -> tuple[Any, Any]:
    """Model (in eval mode) and processor of a folder or Hub id; of the default checkpoint without one.

    Raises:
        ModelError: it is not a checkpoint of ours, or weights are missing or broken.
    """
    source = name_or_path or str(default_checkpoint())
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(source, output_loading_info=True)
        processor = AutoProcessor.from_pretrained(source)
    # The readers under the library raise errors of many kinds for a broken file.
    except Exception as error:
        remedy = "remove the folder and run the command again" if name_or_path is None else "check its name, or fetch it again"
        raise ModelError(f"The checkpoint {source} can't be loaded ({_first_line(error)}): {remedy}.") from error
    if not hasattr(model, "assess"):
        raise ModelError(f"{source} is a {type(model).__name__} and not an LMM-VQA checkpoint: name another one.")
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"The checkpoint {source} lacks {len(missing)} weights ({missing[0]}, ...): fetch it again.")
    return model.to(device or _best_device()).eval(), processor


def score_videos(
    videos: Iterable[Any], model: Any, processor: Any, *, batch_size: int = 8, decoder: str = "auto"
) -> Iterator[VideoScore]:
    """Score videos one after the other, in their order.

    The towers see one video at a time, so memory does not grow with the batch; the language model sees `batch_size` at
    once. A video that fails becomes a result with an `error`, and the others go on.

    Args:
        videos: paths, or whatever else the processor reads.
        decoder: "pyav", "decord" or "auto".
    """
    batch: list[VideoScore | tuple[str, Features, VideoInfo]] = []
    for video in videos:
        batch.append(_encode(video, model, processor, decoder))
        if len(batch) == batch_size:
            yield from _assess(batch, model, processor)
            batch = []
    yield from _assess(batch, model, processor)


def score_over_time(videos: Iterable[Any], model: Any, processor: Any, *, decoder: str = "auto") -> Iterator[VideoScore]:
    """`score_videos` with the quality over time of each video: every second of it is read."""
    pipe = LmmVqaPipeline(model=model, processor=processor, device=model.device)
    for video in videos:
        yield VideoScore(**pipe(video, timeline=True, decoder=decoder))


def find_videos(paths: Sequence[str]) -> list[str]:
    """Files, folders (all videos in them, at any depth) and glob patterns as one list of files, in the order in which a person
    counts. A path that leads to nothing stays in the list, so that it gets its error."""
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = (str(file) for file in Path(path).rglob("*") if is_video(file.suffix) and file.is_file())
            found += sorted(inside, key=_natural) or [path]
        elif os.path.exists(path) or not glob.has_magic(path):
            found.append(path)
        else:
            found += sorted(filter(os.path.isfile, glob.iglob(path, recursive=True)), key=_natural) or [path]
    return list(dict.fromkeys(found))


def _encode(video: Any, model: Any, processor: Any, decoder: str) -> VideoScore | tuple[str, Features, VideoInfo]:
    name = video if isinstance(video, str) else str(getattr(video, "name", f"<{type(video).__name__}>"))
    try:
        inputs = processor.video_processor(video, decoder=decoder, return_metadata=True, return_tensors="pt")
        info: VideoInfo = inputs.pop("video_metadata")[0]
        return name, encode_video(model.base_model, inputs), info
    except VideoError as error:
        return VideoScore(name, error=str(error))
    # One bad file among a million must not end the run, whatever is wrong with it.
    except Exception as error:
        logger.debug("Unexpected error on %s", name, exc_info=True)
        return VideoScore(name, error=f"{name}: {type(error).__name__}: {_first_line(error)}. Please report this file.")


def _assess(
    batch: Sequence[VideoScore | tuple[str, Features, VideoInfo]], model: Any, processor: Any
) -> Iterator[VideoScore]:
    encoded = [item for item in batch if not isinstance(item, VideoScore)]
    scores = iter(())
    if encoded:
        inputs = assessment_inputs(processor, [features for _, features, _ in encoded])
        quality = model.assess(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
        scores = iter(_as_scores(encoded, quality, processor.levels))
    for item in batch:
        yield item if isinstance(item, VideoScore) else next(scores)


def _as_scores(encoded: Sequence[tuple[str, Features, VideoInfo]], quality: Any, levels: Sequence[str]) -> list[VideoScore]:
    return [
        VideoScore(path=name, duration_s=round(info.duration_s, 3), **row)
        for (name, _, info), row in zip(encoded, quality.as_dicts(levels), strict=True)
    ]


def _natural(path: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path)]


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
