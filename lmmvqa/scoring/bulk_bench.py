"""Speed and memory of bulk scoring, measured on the machine at hand: for `lmmvqa bench` and the benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import psutil

from lmmvqa.scoring.bulk import StageTimes, default_workers, score_in_bulk


class MemoryWatch:
    """Samples the memory of this process and all below it, in the background.

    `samples` are (seconds since the start, MB); pages that processes share count once where the system can tell
    (Linux).
    """

    def __init__(self, every_s: float = 0.5):
        self.samples: list[tuple[float, float]] = []
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopped.wait(self._every_s):
            ours = psutil.Process()
            total = sum(_megabytes(process) for process in (ours, *ours.children(recursive=True)))
            self.samples.append((time.monotonic() - began, total))


@dataclass
class BulkFigures:
    """What `measure_bulk` found: wall time in seconds, memory in MB, and the stages in `StageTimes`."""

    seconds: float
    times: StageTimes
    failed: int
    cores: int
    memory: list[tuple[float, float]] = field(repr=False)

    @property
    def peak_mb(self) -> float:
        return max(megabytes for _, megabytes in self.memory)


def measure_bulk(
    videos: Sequence[Any], model: Any, processor: Any, *, count: int, batch_size: int = 8, workers: int | None = None
) -> BulkFigures:
    """Score `count` videos, taken in turn from those given, after one that warms up; starting the readers does not
    count."""
    times, failed = StageTimes(), 0
    settings = {"batch_size": batch_size, "workers": workers}
    for _ in score_in_bulk(videos[:1], model, processor, **settings):
        pass
    with MemoryWatch() as watch:
        began = time.perf_counter()
        for score in score_in_bulk(islice(cycle(videos), count), model, processor, times=times, **settings):
            failed += score.error is not None
        seconds = time.perf_counter() - began
        time.sleep(2 * watch._every_s if not watch.samples else 0)
    return BulkFigures(seconds, times, failed, default_workers(), watch.samples)


def _megabytes(process: psutil.Process) -> float:
    try:
        memory = process.memory_full_info()
        return getattr(memory, "pss", memory.rss) / 2**20
    except psutil.Error:  # it ended meanwhile, or belongs to the system
        return 0.0
