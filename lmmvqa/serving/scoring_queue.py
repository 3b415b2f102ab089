"""Videos that come at any time: several are read at once, and the language model takes what is ready together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from lmmvqa.scoring.reading_workers import ReadingLimits
from lmmvqa.scoring.scorer import WorkerReader
from modeling_lmmvqa.video_score import VideoScore
from processing.video_names import name_of
from processing.video_reader import VideoError


@dataclass
class Job:
    """A video that someone waits for.

    Args:
        future: of its `VideoScore`.
        given_up: nobody waits any more, so no more work is done for it.
    """

    video: Any
    future: Future[VideoScore] = field(default_factory=Future)
    given_up: bool = False

    def give_up(self) -> None:
        self.given_up = True
        self.future.cancel()

    def finish(self, result: VideoScore | BaseException) -> None:
        # Who waited may give up at this very moment.
        with suppress(InvalidStateError):
            if isinstance(result, BaseException):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)


class ScoringQueue:
    """A `Scorer` for many clients.

    Each of some threads has a process that reads a video for it. One thread at a time uses the towers, with all cores,
    as the command does; the others decode meanwhile. Another thread gives the language model all videos that are ready.

    Args:
        scorer: of one of the runtimes.
        workers: videos that are read at once.
        limits: of reading one video.
        watch_batch: is told how many videos the language model gets at once.
    """

    def __init__(self, scorer: Any, workers: int, limits: ReadingLimits):
        self.scorer = scorer
        self.watch_batch: Callable[[int], None] = lambda count: None
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._read: queue.SimpleQueue[tuple[Job, Any] | None] = queue.SimpleQueue()
        # Whoever holds it uses the model.
        self.model_lock = threading.Lock()
        self._readers = [WorkerReader(scorer.processor.video_processor, limits=limits) for _ in range(workers)]
        self._threads = [threading.Thread(target=self._read_videos, args=(reader,)) for reader in self._readers]
        self._threads.append(threading.Thread(target=self._assess_videos))
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def submit(self, video: Any) -> Job:
        """Score a video when it is its turn."""
        job = Job(video)
        self._waiting.put(job)
        return job

    @property
    def readers_lost(self) -> int:
        """How many reading processes have ended in the middle of a video."""
        return sum(reader.lost for reader in self._readers)

    def close(self) -> None:
        """Finish what is there, and end."""
        for _ in self._readers:
            self._waiting.put(None)
        for thread in self._threads[:-1]:
            thread.join()
        self._read.put(None)
        self._threads[-1].join()
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> ScoringQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_videos(self, reader: WorkerReader) -> None:
        seconds = self.scorer.processor.video_processor.max_chunks
        while (job := self._waiting.get()) is not None:
            if job.given_up:
                continue
            try:
                found = self.scorer.features(job.video, max_chunks=seconds, reader=_Turn(reader, self.model_lock, job))
            # The thread goes on for the others.
            except BaseException as error:
                found = error
            if isinstance(found, VideoScore | BaseException):
                job.finish(found)
            else:
                self._read.put((job, found))

    def _assess_videos(self) -> None:
        with self.model_lock:
            template = self.scorer.read_template()
        while (first := self._read.get()) is not None:
            batch = [first]
            while len(batch) < self.scorer.batch_size and not self._read.empty():
                batch.append(self._read.get())
            batch = [(job, features) for job, features in batch if not job.given_up]
            self.watch_batch(len(batch))
            try:
                with self.model_lock:
                    results = self.scorer.assess([features for _, features in batch], template)
            except BaseException as error:
                results = [error] * len(batch)
            for (job, _), result in zip(batch, results, strict=True):
                job.finish(result)


class _Turn:
    """A reader whose seconds are encoded while nobody else uses the model."""

    def __init__(self, reader: WorkerReader, model: threading.Lock, job: Job):
        self._reader, self._model, self._job = reader, model, job

    @property
    def lost(self) -> int:
        return self._reader.lost

    def read(self, video: Any, max_chunks: int | None = None, fps: float | None = None) -> Iterator[Any]:
        with closing(self._reader.read(video, max_chunks, fps)) as chunks:
            for chunk in chunks:
                if self._job.given_up:
                    raise VideoError(f"{name_of(video)} is not waited for any more.")
                # Whoever encodes comes back here for the next second.
                with self._model:
                    yield chunk
