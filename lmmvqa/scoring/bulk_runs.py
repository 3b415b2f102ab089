"""Runs over many videos into one result file: resumed where they stopped, on one machine, several GPUs or a Ray
cluster."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.scoring.bulk import StageTimes, default_workers, score_in_bulk
from lmmvqa.scoring.reading_workers import ReadingLimits
from lmmvqa.scoring.result_files import ResultFile
from modeling_lmmvqa.video_score import VideoScore

logger = logging.getLogger(__name__)

# How long processes that are done wait for the others.
LONGEST_RUN = timedelta(days=30)
# Given the videos that are left to score, their scores in any order.
Engine = Callable[[Sequence[str]], Iterator[VideoScore]]
Watch = Callable[[Iterator[VideoScore], int], Iterator[VideoScore]]


def score_to_file(
    videos: Sequence[str], output: str | os.PathLike, engine: Engine, watch: Watch = lambda scores, _: scores
) -> int:
    """Score the videos that a result file does not hold yet, and add each as soon as it is done.

    Under `accelerate launch`, the processes share the videos; each writes a file of its own beside the result file, and
    the first one gathers them at the end, or at the beginning of the next run.

    Args:
        videos: paths or URLs; each is scored once, also over several runs.
        output: a file that `ResultFile` writes, with the columns of `video_score.COLUMNS` and of the levels.
        engine: scores videos, for example `local_engine`.
        watch: wraps the scores as they come, to show progress.

    Returns:
        How many rows of the file have an error in place of a score.

    Raises:
        ValueError, OSError: the result file can't be used.
    """
    rank, share = _share(output, videos)
    with ResultFile(_rank_file(output, rank)) as results:
        for score in watch(engine(share), len(share)):
            results.append(score.as_row())
    if rank is not None:
        _state().wait_for_everyone()
        if rank:
            return 0
    with ResultFile(output) as results:
        _gather(output, results)
        return sum(bool(row["error"]) for row in results.rows())


def local_engine(
    model: str | None,
    device: str | None = None,
    *,
    dtype: str = "auto",
    batch_size: int = 8,
    decoder: str = "auto",
    workers: int | None = None,
    limits: ReadingLimits | None = None,
    times: StageTimes | None = None,
) -> Engine:
    """Scores on this machine; the arguments are those of `load_checkpoint` and `score_in_bulk`."""

    def run(videos: Sequence[str]) -> Iterator[VideoScore]:
        if not videos:
            return
        here, readers = device, workers or default_workers()
        if _is_shared():
            state = _state()
            here = device or str(state.device)
            readers = workers or max(1, readers // state.num_processes)
        network, processor = load_checkpoint(model, here, dtype)
        settings = {"batch_size": batch_size, "decoder": decoder, "workers": readers, "limits": limits, "times": times}
        yield from score_in_bulk(videos, network, processor, **settings)

    return run


def ray_engine(
    model: str | None,
    address: str | None = None,
    *,
    dtype: str = "auto",
    batch_size: int = 8,
    decoder: str = "auto",
    workers: int | None = None,
    limits: ReadingLimits | None = None,
) -> Engine:
    """Scores on a Ray cluster; the arguments are those of `score_on_ray`."""

    def run(videos: Sequence[str]) -> Iterator[VideoScore]:
        from lmmvqa.scoring.ray_engine import score_on_ray

        if not videos:
            return
        settings = {"batch_size": batch_size, "decoder": decoder, "workers": workers, "limits": limits}
        yield from score_on_ray(videos, model, address, dtype=dtype, **settings)

    return run


def _is_shared() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _state() -> Any:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_RUN)


def _share(output: str | os.PathLike, videos: Sequence[str]) -> tuple[int | None, list[str]]:
    """The number of this process, None where it is the only one, and the videos that it has to score."""
    if not _is_shared():
        return None, _left_over(output, videos)
    from accelerate.utils import broadcast_object_list

    state = _state()
    left = [_left_over(output, videos) if state.is_main_process else None]
    return state.process_index, broadcast_object_list(left)[0][state.process_index :: state.num_processes]


def _left_over(output: str | os.PathLike, videos: Sequence[str]) -> list[str]:
    with ResultFile(output) as results:
        _gather(output, results)
        left = [video for video in videos if video not in results]
    if len(left) < len(videos):
        logger.info("%d of %d videos are in %s already.", len(videos) - len(left), len(videos), output)
    return left


def _rank_file(output: str | os.PathLike, rank: int | None) -> str:
    return os.fspath(output) if rank is None else f"{os.fspath(output)}.process{rank}.jsonl"


def _gather(output: str | os.PathLike, results: ResultFile) -> None:
    for part in sorted(glob.glob(f"{glob.escape(os.fspath(output))}.process*.jsonl")):
        with ResultFile(part) as rows:
            for row in rows.rows():
                if row[results.key] not in results:
                    results.append(row)
        os.unlink(part)
