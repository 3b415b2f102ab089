"""Many videos at once: reading in worker processes, encoding in threads, the language model behind them, all at the
same time.

Each reader thread owns a worker process. While the thread encodes one second of a video, its worker decodes the next;
features of finished videos, which are small, wait for the language model until a batch is full. What is in memory is a
few seconds of video for each thread, however many videos there are and however long and large they are.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lmmvqa.scoring.reading_workers import ReadingLimits, ReadingWorker
from lmmvqa.scoring.scorer import Scorer
from modeling_lmmvqa.video_features import VideoFeatures
from modeling_lmmvqa.video_score import VideoScore


@dataclass
class StageTimes:
    """Where the time went, in seconds: of one core where the model runs on a CPU; on a GPU, what the CPU spent to drive
    it.

    Args:
        reading: fetching is waiting and does not count; decoding and preprocessing do.
        encoding: the towers.
        answering: projectors and language model.
        videos: how many were scored, without those that failed.
        video_seconds: their length together.
    """

    reading: float = 0.0
    encoding: float = 0.0
    answering: float = 0.0
    videos: int = 0
    video_seconds: float = 0.0


def default_workers() -> int:
    """As many videos are read at once as this process has cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def score_in_bulk(
    videos: Iterable[Any],
    model: Any,
    processor: Any,
    *,
    batch_size: int = 8,
    decoder: str = "auto",
    workers: int | None = None,
    limits: ReadingLimits | None = None,
    times: StageTimes | None = None,
) -> Iterator[VideoScore]:
    """Score videos, each as soon as it is done: not in their order.

    A video that can't be read within the limits, or that takes the process that reads it down with it, becomes a result
    with an `error`, and the others go on.

    Args:
        videos: paths, URLs, bytes or mappings; taken from an iterator as they are needed.
        batch_size: videos that the language model sees at once.
        workers: videos that are read and encoded at once; by default as many as there are cores.
        times: is filled as the run goes on.
    """
    times = times or StageTimes()
    scorer = Scorer(model, processor)
    count = workers or default_workers()
    jobs, jobs_lock, stopped = iter(videos), threading.Lock(), threading.Event()
    found: queue.Queue[VideoScore | VideoFeatures | BaseException | None] = queue.Queue(maxsize=2 * batch_size)
    readers = [ReadingWorker(processor.video_processor, decoder, limits or ReadingLimits()) for _ in range(count)]

    def run(reader: ReadingWorker) -> None:
        # As many threads encode as there are cores: threads inside each operation would only get in each other's way.
        scorer.network.use_threads(1)
        try:
            while not stopped.is_set():
                with jobs_lock:
                    video = next(jobs, _END)
                if video is _END:
                    break
                _put(found, _features(video, reader, scorer, times), stopped)
            _put(found, None, stopped)
        # The iterable of videos may raise too, and the caller must hear of it.
        except BaseException as error:
            _put(found, error, stopped)
        finally:
            reader.close()

    threads = [
        threading.Thread(target=run, args=(reader,), name=f"reader-{i}", daemon=True)
        for i, reader in enumerate(readers)
    ]
    threads_before = scorer.network.threads
    scorer.network.use_threads(1)
    template = scorer.read_template()
    try:
        for thread in threads:
            thread.start()
        batch: list[VideoFeatures] = []
        running = len(threads)
        while running:
            item = found.get()
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, VideoScore):
                yield item
            elif item is None:
                running -= 1
            else:
                batch.append(item)
            if len(batch) == batch_size or (batch and not running):
                began = time.thread_time()
                scores = scorer.assess(batch, template)
                times.answering += time.thread_time() - began
                times.videos += sum(score.error is None for score in scores)
                times.video_seconds += sum(score.duration_s or 0.0 for score in scores)
                batch = []
                yield from scores
    finally:
        stopped.set()
        for reader in readers:
            reader.close()
        for thread in threads:
            thread.join()
        scorer.network.use_threads(threads_before)


_END = object()


def _features(video: Any, reader: ReadingWorker, scorer: Scorer, times: StageTimes) -> VideoScore | VideoFeatures:
    there, here, began = reader.seconds_there, reader.seconds_here, time.thread_time()
    features = scorer.features(video, max_chunks=scorer.processor.video_processor.max_chunks, reader=reader)
    if isinstance(features, VideoFeatures):
        # Several threads add to these; a lost update now and then does no harm to a sum that is shown to people.
        preparing = reader.seconds_here - here
        times.reading += reader.seconds_there - there + preparing
        times.encoding += time.thread_time() - began - preparing
    return features


def _put(into: queue.Queue[Any], item: Any, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            into.put(item, timeout=0.2)
            return
        except queue.Full:
            continue
