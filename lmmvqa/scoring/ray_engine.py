"""Scoring on a Ray cluster: Ray Data deals the videos out to workers, each with a model of its own."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from lmmvqa.scoring.reading_workers import ReadingLimits
from modeling_lmmvqa.video_score import VideoScore
from processing.errors import SetupError


class _Worker:
    """Loads the model once and scores batches of videos; Ray replaces it, and repeats its batch, when it is lost."""

    def __init__(self, model: str | None, dtype: str, settings: dict[str, Any]):
        from lmmvqa.checkpoints.loading import load_checkpoint

        self._network, self._processor = load_checkpoint(model, dtype=dtype)
        self._settings = settings

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from lmmvqa.scoring.bulk import score_in_bulk

        videos = [os.fsdecode(path) for path in batch["path"]]
        scores = score_in_bulk(videos, self._network, self._processor, **self._settings)
        return {"score": [pickle.dumps(score) for score in scores]}


def score_on_ray(
    videos: Sequence[str],
    model: str | None,
    address: str | None,
    *,
    dtype: str,
    batch_size: int,
    decoder: str,
    workers: int | None,
    limits: ReadingLimits | None,
) -> Iterator[VideoScore]:
    """Score videos on the cluster at `address`, or on a Ray of this machine alone.

    Every node must be able to read the videos: give URLs, or paths of a shared file system. A node without a GPU gives
    each worker one core, a node with GPUs one of them.

    Args:
        dtype: as `load_checkpoint` takes it.
        workers: at least one; by default as many as the cluster has room for.
        batch_size: videos of one batch, which is also what is repeated when a worker is lost.

    Raises:
        RuntimeError: Ray is not installed, or the cluster can't be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise SetupError("Ray is not installed: pip install 'lmmvqa[bulk]'.") from error

    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address, log_to_driver=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        gpus = ray.cluster_resources().get("GPU", 0)
        room = int(gpus or ray.cluster_resources()["CPU"])
        settings = {"batch_size": batch_size, "decoder": decoder, "workers": None if gpus else 1, "limits": limits}
        # As bytes: a file name need not be text.
        jobs = ray.data.from_items(
            [{"path": os.fsencode(video)} for video in videos], override_num_blocks=-(-len(videos) // batch_size)
        )
        scored = jobs.map_batches(
            _Worker,
            fn_constructor_args=(model, dtype, settings),
            batch_size=batch_size,
            concurrency=(1, max(1, min(room, workers or room))),
            num_gpus=1 if gpus else 0,
            num_cpus=0 if gpus else 1,
        )
        for row in scored.iter_rows():
            yield pickle.loads(row["score"])
    finally:
        if ours:
            ray.shutdown()
