"""Many videos at once against a plain loop over `model.assess`, and against the longest of the stages; the memory
curve.

`python benchmarks/bulk.py VIDEO_OR_FOLDER ... [--count 500] [--loop 72]` scores `count` videos in one run, taking those
given in turn, and prints videos per minute, the ratio of wall time to the longest stage, and memory over the run. The
plain loop, of `loop` videos, is what a user would write: processor, then `assess`, one video after the other, with
torch's own threads. Both take the same clips, and each is run in parts that take turns, so that other work on the
machine hits both alike. A stage counts with the time that it needs on one core, so that a stage and the whole are
measured in the same run.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import torch

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.scoring.bulk_bench import BulkFigures, measure_bulk
from lmmvqa.scoring.finding import find_videos
from processing.video_reader import VideoError

ROUNDS = 3
# With 8 a round, most of the time would go into filling the pipeline.
LOOP = 24 * ROUNDS


def plain_loop(videos: Sequence[str], model: Any, processor: Any) -> float:
    """Seconds for a video."""
    began = time.perf_counter()
    for video in videos:
        try:
            model.assess(**processor(videos=[video], return_tensors="pt"))
        except VideoError:
            continue
    return (time.perf_counter() - began) / len(videos)


def compare(
    videos: Sequence[str], model: Any, processor: Any, count: int, loop: int, workers: int | None
) -> tuple[BulkFigures, float, float]:
    """The long run, and the best of the rounds of bulk scoring and of the loop over the same clips, in seconds for a
    video."""
    part = list(islice(cycle(videos[:: max(1, len(videos) // loop)]), max(1, loop // ROUNDS)))
    plain_loop(part[:1], model, processor)
    alone, bulk = [], []
    for _ in range(ROUNDS):
        alone.append(plain_loop(part, model, processor))
        bulk.append(measure_bulk(part, model, processor, count=len(part), workers=workers).seconds / len(part))
    return measure_bulk(videos, model, processor, count=count, workers=workers), min(bulk), min(alone)


def tenths(memory: Sequence[tuple[float, float]]) -> list[float]:
    """The median of each tenth of the samples."""
    parts = [memory[len(memory) * i // 10 : len(memory) * (i + 1) // 10] for i in range(10)]
    return [statistics.median(megabytes for _, megabytes in part) for part in parts if part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--loop", type=int, default=LOOP)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()

    videos = find_videos(arguments.videos)
    model, processor = load_checkpoint(arguments.model)
    figures, bulk, alone = compare(videos, model, processor, arguments.count, arguments.loop, arguments.workers)
    times = figures.times
    stages = {"decode + preprocess": times.reading, "towers": times.encoding, "language model": times.answering}
    print(
        f"{times.videos} videos of {times.video_seconds / times.videos:.1f} s in {figures.seconds:.0f} s: "
        f"{60 * times.videos / figures.seconds:.1f} a minute"
    )
    print(
        f"with an error: {figures.failed}; torch threads of the loop: {torch.get_num_threads()}; cores: {figures.cores}"
    )
    for stage, seconds in stages.items():
        print(f"{stage}: {seconds / times.videos:.3f} s of one core for a video")
    print(f"whole run / longest stage on one core: {figures.seconds / max(stages.values()):.2f}")
    print(
        f"whole run / all stages spread over {figures.cores} cores: "
        f"{figures.seconds * figures.cores / sum(stages.values()):.2f}"
    )
    print(
        f"plain loop {60 / alone:.1f} videos a minute, in bulk {60 / bulk:.1f} on the same clips: {alone / bulk:.2f} x"
    )
    curve = " ".join(f"{megabytes:.0f}" for megabytes in tenths(figures.memory))
    print(f"memory of all processes, MB, at tenths of the run: {curve}, peak {figures.peak_mb:.0f}")


if __name__ == "__main__":
    main()
