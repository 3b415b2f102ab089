"""One line from a checkpoint's name to scores."""

from __future__ import annotations

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.scoring.reading_workers import ReadingLimits
from lmmvqa.scoring.scorer import Scorer


def load(
    model: str | None = None,
    *,
    device: str | None = None,
    dtype: str = "auto",
    batch_size: int = 8,
    decoder: str = "auto",
    limits: ReadingLimits | None = None,
) -> Scorer:
    """A checkpoint, ready to score videos.

    >>> scorer = lmmvqa.load()
    >>> scorer("clip.mp4").score
    71.3
    >>> [result.level for result in scorer(["a.mp4", "b.mp4"])]
    ['good', 'poor']

    Args:
        model: folder or Hub id; the default checkpoint without it.
        device: for example "cpu" or "cuda:1"; a GPU if there is one.
        dtype: "float32", "bfloat16", "float16" or "auto": as the checkpoint was saved.
        batch_size: videos that the language model sees at once.
        decoder: "pyav", "decord" or "auto".
        limits: of reading one video.

    Raises:
        ModelError: the checkpoint can't be loaded.
    """
    network, processor = load_checkpoint(model, device, dtype)
    return Scorer(network, processor, batch_size=batch_size, decoder=decoder, limits=limits)
