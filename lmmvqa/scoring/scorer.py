"""Videos to scores, each read in a process of its own with limits of time and memory."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from lmmvqa.scoring.reading_workers import ReadingLimits, ReadingWorker
from modeling_lmmvqa.video_features import VideoFeatures
from modeling_lmmvqa.video_score import VideoScore
from modeling_lmmvqa.video_scorer import InProcessReader, VideoScorer
from processing.frame_preparation import PreparedChunk
from processing.video_names import name_of

logger = logging.getLogger(__name__)

# Scores of one file by PyAV and by decord differ by no more than this, where decord delivers all frames: both give the
# same key frames, but small frames for the temporal tower are scaled before the colour conversion by one and after it
# by the other, which shows where next to nothing moves.
DECODER_TOLERANCE = 2.0


class WorkerReader:
    """Reads videos in a `ReadingWorker`, which starts with the first video and stays for the next ones."""

    def __init__(self, video_processor: Any, decoder: str = "auto", limits: ReadingLimits | None = None):
        self._video_processor, self._decoder, self._limits = video_processor, decoder, limits or ReadingLimits()
        self._here = InProcessReader(video_processor, decoder)
        self._lock = threading.Lock()
        self._end: weakref.finalize | None = None

    def read(self, video: Any, max_chunks: int | None = None, fps: float | None = None) -> Iterator[PreparedChunk]:
        """As `Reader.read`. Frames that are given as an array are decoded already, so they are not sent around."""
        if hasattr(video, "ndim"):
            yield from self._here.read(video, max_chunks, fps)
            return
        if hasattr(video, "read"):
            video = {"path": name_of(video), "bytes": video.read()}
        with self._lock:
            if self._end is None or not self._end.alive:
                self._worker = ReadingWorker(self._video_processor, self._decoder, self._limits, threads=0)
                self._end = weakref.finalize(self, self._worker.close)
            yield from self._worker.read(video, max_chunks)

    @property
    def lost(self) -> int:
        """How many processes have ended in the middle of a video."""
        return 0 if self._end is None else self._worker.lost

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end()


class Scorer(VideoScorer):
    """`VideoScorer` that reads in a process of its own: a bad file may hang, fill or crash it without harm to anything
    else.

    Args:
        model, processor: as `load_checkpoint` gives them.
        batch_size: videos that the language model sees at once.
        decoder: "pyav", "decord" or "auto".
        limits: of reading one video.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        batch_size: int = 8,
        decoder: str = "auto",
        limits: ReadingLimits | None = None,
    ):
        reader = WorkerReader(processor.video_processor, decoder, limits)
        super().__init__(model, processor, batch_size=batch_size, reader=reader)

    def features(self, video: Any, *, reader: Any = None, **settings: Any) -> VideoFeatures | VideoScore:
        """As `VideoScorer.features`. A video whose process ends, perhaps by the system for want of memory and not by
        the file, gets a second one."""
        if hasattr(video, "read"):
            video = {"path": name_of(video), "bytes": video.read()}
        reader = reader or self.reader
        lost = reader.lost
        found = super().features(video, reader=reader, **settings)
        if isinstance(found, VideoScore) and reader.lost > lost:
            logger.info("%s is read once more, because the process that was reading it ended.", found.path)
            found = super().features(video, reader=reader, **settings)
        return found
