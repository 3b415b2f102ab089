"""Videos to scores: the one code path under the command line, the pipeline, bulk scoring and the demo."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch

from lmmvqa.scoring.reading_workers import ReadingLimits, ReadingWorker
from lmmvqa.scoring.remote_videos import find_remote_videos, is_remote
from modeling_lmmvqa.feature_batches import assessment_inputs
from modeling_lmmvqa.modeling_lmmvqa import TemplateCache
from modeling_lmmvqa.quality_timeline import EncodedVideo, assess_timeline, encode_stream
from processing.video_names import is_video, name_of
from processing.video_reader import VideoError

logger = logging.getLogger(__name__)

# Scores of one file by PyAV and by decord differ by no more than this, where decord delivers all frames: both give the
# same key frames, but small frames for the temporal tower are scaled before the colour conversion by one and after it
# by the other, which shows where next to nothing moves.
DECODER_TOLERANCE = 2.0


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

    def as_flat_dict(self) -> dict[str, Any]:
        """For tables: the ends of the interval and the probability of the level that was chosen, as columns."""
        low, high = self.interval or (None, None)
        return {
            "path": self.path,
            "score": self.score,
            "score_std": self.score_std,
            "interval_low": low,
            "interval_high": high,
            "level": self.level,
            "level_probability": self.level_probabilities[self.level] if self.level_probabilities else None,
            "duration_s": self.duration_s,
            "error": self.error,
        }


def score_videos(
    videos: Iterable[Any],
    model: Any,
    processor: Any,
    *,
    batch_size: int = 8,
    decoder: str = "auto",
    limits: ReadingLimits | None = None,
) -> Iterator[VideoScore]:
    """Score videos one after the other, in their order. For many, `lmmvqa.scoring.bulk` does it faster.

    The towers see one video at a time, so memory does not grow with the batch; the language model sees `batch_size` at
    once. A video that fails, or takes the process that reads it down with it, becomes a result with an `error`, and the
    others go on.

    Args:
        videos: paths, URLs, bytes or mappings.
        decoder: "pyav", "decord" or "auto".
        limits: of reading one video.
    """
    max_chunks = processor.video_processor.max_chunks
    with ReadingWorker(processor.video_processor, decoder, limits or ReadingLimits(), threads=0) as reader:
        template = read_template(model, processor)
        remaining = iter(videos)
        while chosen := list(islice(remaining, batch_size)):
            batch = [(name_of(video), encode(video, reader, model, max_chunks)) for video in chosen]
            encoded = [(name, item) for name, item in batch if isinstance(item, EncodedVideo)]
            scores = iter(assess_batch(encoded, model, processor, template))
            yield from (item if isinstance(item, VideoScore) else next(scores) for _, item in batch)


def score_over_time(
    videos: Iterable[Any], model: Any, processor: Any, *, decoder: str = "auto", limits: ReadingLimits | None = None
) -> Iterator[VideoScore]:
    """`score_videos` with the quality over time of each video: every second of it is read."""
    with ReadingWorker(processor.video_processor, decoder, limits or ReadingLimits(), threads=0) as reader:
        template = read_template(model, processor)
        for video in videos:
            encoded = encode(video, reader, model, None)
            if isinstance(encoded, VideoScore):
                yield encoded
                continue
            chosen = replace(encoded, features=encoded.part(processor.video_processor.choose(len(encoded.starts_s))))
            (score,) = assess_batch([(name_of(video), chosen)], model, processor, template)
            yield replace(score, timeline=assess_timeline(model, processor, encoded))


def encode(video: Any, reader: ReadingWorker, model: Any, max_chunks: int | None) -> EncodedVideo | VideoScore:
    """The features of a video, or a result that says what is wrong with it."""
    name = name_of(video)
    try:
        with closing(reader.read(video, max_chunks)) as stream:
            return encode_stream(model, stream)
    except VideoError as error:
        return VideoScore(name, error=str(error))
    # One bad file among a million must not end the run, whatever is wrong with it.
    except Exception as error:
        logger.debug("Unexpected error on %s", name, exc_info=True)
        return VideoScore(name, error=f"{name}: {type(error).__name__}: {_first_line(error)}. Please report this file.")


def read_template(model: Any, processor: Any) -> TemplateCache:
    """The text in front of every video, read once for many calls of `assess_batch`."""
    return model.cache_template(torch.tensor(processor.assessment_prefix_ids(1)))


def assess_batch(
    batch: Sequence[tuple[str, EncodedVideo]], model: Any, processor: Any, template: TemplateCache
) -> list[VideoScore]:
    """One pass of the language model over several encoded videos, each with its name."""
    if not batch:
        return []
    inputs = assessment_inputs(processor, [video.features for _, video in batch])
    quality = model.assess(
        **{name: tensor.to(model.device) for name, tensor in inputs.items()}, template_cache=template
    )
    return [
        VideoScore(path=name, duration_s=round(video.info.duration_s, 3), **row)
        for (name, video), row in zip(batch, quality.as_dicts(processor.levels), strict=True)
    ]


def find_videos(paths: Sequence[str]) -> list[str]:
    """Files, folders (all videos in them, at any depth), glob patterns and URLs of these as one list of files, in the
    order in which a person counts. A path that leads to nothing, or a folder that can't be listed, stays in the list,
    so that it gets its error. Links to folders are followed, each folder once."""
    found: list[str] = []
    for path in paths:
        if is_remote(path):
            found += sorted(find_remote_videos(path), key=_natural)
        elif os.path.isdir(path):
            found += sorted(_videos_in(path), key=_natural) or [path]
        elif os.path.lexists(path) or not glob.has_magic(path):
            found.append(path)
        else:
            found += sorted(filter(os.path.isfile, glob.iglob(path, recursive=True)), key=_natural) or [path]
    return list(dict.fromkeys(found))


def _videos_in(folder: str) -> Iterator[str]:
    seen = {_identity(folder)}
    closed: list[str] = []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=lambda error: closed.append(error.filename)):
        # A link may lead back to a folder above it.
        new = {_identity(os.path.join(place, name)): name for name in folders}
        folders[:] = [name for identity, name in new.items() if identity not in seen]
        seen.update(new)
        yield from (os.path.join(place, name) for name in files if is_video(name))
    yield from closed


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _natural(path: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
