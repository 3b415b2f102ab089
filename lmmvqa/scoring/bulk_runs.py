"""Runs over many videos into one result file: resumed where they stopped, on one machine, several GPUs or a Ray
cluster.

Nothing heavy is imported before it is known that a video is left to score.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lmmvqa.scoring.result_files import Columns, ResultFile, ResultFileError, as_written
from modeling_lmmvqa.video_score import CHECKPOINT_COLUMNS, COLUMNS, VideoScore

if TYPE_CHECKING:
    from lmmvqa.scoring.bulk import StageTimes
    from lmmvqa.scoring.reading_workers import ReadingLimits

logger = logging.getLogger(__name__)

# How long processes that are done wait for the others.
LONGEST_RUN = timedelta(days=30)
# Given the videos that are left to score, their scores in any order.
Engine = Callable[[Sequence[str]], Iterator[VideoScore]]
Watch = Callable[[Iterator[VideoScore], int], Iterator[VideoScore]]


def result_columns() -> Columns:
    """The columns of a file of scores; some get their names from the checkpoint."""
    columns = {}
    for name, (kind, _) in COLUMNS.items():
        columns[name] = kind
        if name == "level":
            columns |= {starred: kind for starred, (kind, _) in CHECKPOINT_COLUMNS.items()}
    return columns


def score_to_file(
    videos: Sequence[str],
    output: str | os.PathLike,
    engine: Engine,
    watch: Watch = lambda scores, _: scores,
    *,
    retry_errors: bool = False,
) -> int:
    """Score the videos that a result file does not hold yet, and add each as soon as it is done.

    Under `accelerate launch`, the processes share the videos; each but the first writes a file of its own beside the
    result file, which the first one gathers at the end, or at the beginning of the next run.

    Args:
        videos: paths or URLs; each is scored once, also over several runs.
        output: a file that `ResultFile` writes, with the columns of `result_columns`.
        engine: scores videos, for example `local_engine`; not called where nothing is left.
        watch: wraps the scores as they come, to show progress.
        retry_errors: score again those of the videos that have an error.

    Returns:
        How many of the videos have an error in place of a score.

    Raises:
        ResultFileError: the result file can't be used, or was taken away in mid-run.
    """
    rank, count = (_state().process_index, _state().num_processes) if _is_shared() else (0, 1)
    if rank:
        share = _from_first(None)[rank::count]
        with ResultFile(f"{os.fspath(output)}.process{rank}.jsonl", result_columns()) as results:
            _score(share, results, engine, watch)
        _state().wait_for_everyone()
        return 0
    try:
        results = ResultFile(output, result_columns())
    except ResultFileError as error:
        # The other processes wait for their videos.
        _from_first(error)
        raise
    with results:
        left = _from_first(_left_over(videos, results, retry_errors))
        _score(left[::count], results, engine, watch)
        if count > 1:
            _state().wait_for_everyone()
            _gather(results)
        return _count_errors(videos, results)


def _score(videos: Sequence[str], results: ResultFile, engine: Engine, watch: Watch) -> None:
    if not videos:
        return
    scores = engine(videos)
    try:
        for score in watch(scores, len(videos)):
            results.append(score.as_row())
    except KeyboardInterrupt:
        logger.info("%d rows are in %s: the same command goes on there.", len(results), results.path)
        raise
    finally:
        # A run that can't go on must not leave threads and processes that do.
        if hasattr(scores, "close"):
            scores.close()


def _left_over(videos: Sequence[str], results: ResultFile, retry_errors: bool) -> list[str]:
    _gather(results)
    asked = {as_written(video) for video in videos}
    if retry_errors and (dropped := results.drop(lambda row: row["error"] is not None and row["path"] in asked)):
        logger.info("%d videos that had an error are scored again.", dropped)
    left = [video for video in dict.fromkeys(videos) if video not in results]
    if len(left) < len(videos):
        logger.info(
            "%d of %d videos are in %s already, and their rows stay, whichever checkpoint they are from.",
            len(videos) - len(left),
            len(videos),
            results.path,
        )
    return left


def _count_errors(videos: Sequence[str], results: ResultFile) -> int:
    if missing := [video for video in videos if video not in results]:
        raise ResultFileError(
            f"{results.path} lacks {len(missing):,} of {len(videos):,} videos, {missing[0]} for one: run the "
            "command again."
        )
    asked = {as_written(video) for video in videos}
    return sum(row["error"] is not None and row["path"] in asked for row in results.rows())


def _gather(results: ResultFile) -> None:
    """Take the rows of other processes, of this run or of one that was killed."""
    for part in sorted(glob.glob(f"{glob.escape(str(results.path))}.process*.jsonl")):
        with ResultFile(part, result_columns()) as rows:
            results.take_over(rows)
        os.unlink(part)


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
    """Scores on this machine; the arguments are those of `load_network` and `score_in_bulk`."""

    def run(videos: Sequence[str]) -> Iterator[VideoScore]:
        from lmmvqa.scoring.bulk import default_workers, score_in_bulk
        from lmmvqa.scoring.loading import load_network

        here, readers = device, workers or default_workers()
        if _is_shared():
            state = _state()
            here = device or str(state.device)
            readers = workers or max(1, readers // state.num_processes)
        network, processor = load_network(model, here, dtype)
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

        settings = {"batch_size": batch_size, "decoder": decoder, "workers": workers, "limits": limits}
        yield from score_on_ray(videos, model, address, dtype=dtype, **settings)

    return run


def _is_shared() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _state() -> Any:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_RUN)


def _from_first(content: Any) -> Any:
    """What the first process gives, in all; an error is raised in all."""
    if not _is_shared():
        return content
    from accelerate.utils import broadcast_object_list

    _state()
    (given,) = broadcast_object_list([content])
    if isinstance(given, BaseException):
        raise given
    return given
