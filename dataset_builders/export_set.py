"""A rated set as Parquet files that `load_dataset` reads without our packages, from a folder or a Hub repository."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow.parquet as pq
from datasets.table import embed_table_storage

from dataset_builders import register
from dataset_builders.label_files import LabelError
from dataset_builders.rated_set_builder import RatedSetBuilder
from dataset_builders.set_specs import SetSpec
from processing.quality_prompts import TASKS

_FILE_BYTES = 500_000_000
# Rows in a group, the least that a reader takes into memory at once: few where each holds a whole video.
_GROUP_ROWS = 1000
_GROUP_ROWS_WITH_VIDEOS = 8

# The configuration of a set that asks more than score and level: every question.
ALL = "all"


def configurations(further: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The questions of each configuration; one of several holds no files of its own and reads those of each."""
    names = (*TASKS, *further)
    found = {name: (name,) for name in names} | {"_and_".join(TASKS): TASKS}
    return found | {ALL: names} if further else found


class Export(NamedTuple):
    """What was written: a builder that says what the set is, and the description of each configuration.

    `data_files` is {configuration: {split: path patterns}}.
    """

    builder: RatedSetBuilder
    infos: dict[str, datasets.DatasetInfo]
    data_files: dict[str, dict[str, list[str]]]


def export_set(
    spec: SetSpec, out: Path, *, embed_videos: bool = False, num_proc: int | None = None, **options: Any
) -> Export:
    """Write `out/<question>/<split>-00000-of-0000N.parquet`.

    Args:
        spec: one of `RATED_SETS` with its folder.
        out: a folder that is new or empty.
        embed_videos: put the bytes of the videos into the files, once for each question; otherwise rows hold the
            absolute paths of the videos on this machine.
        num_proc: worker processes.
        options: fields of the builder's configuration, such as levels="authors".

    Raises:
        FileExistsError: `out` holds something.
        LabelError: the folder is not the set, or no video has an answer to one of the questions.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not an empty folder: name a new one, so that no old files get into the set.")
    register()
    with tempfile.TemporaryDirectory() as cache:
        builder = datasets.load_dataset_builder(**spec.source, cache_dir=cache, **options)
        builder.download_and_prepare(num_proc=num_proc)
        parts = configurations([question.name for question in builder.config.further])
        splits = {
            (task, split): rows.filter(_is_task, input_columns="task", fn_kwargs={"wanted": task}, keep_in_memory=True)
            for split, rows in builder.as_dataset().items()
            for task in parts[ALL if ALL in parts else builder.DEFAULT_CONFIG_NAME]
        }
        # Some splits may lack a label that others have.
        splits = {key: rows for key, rows in splits.items() if len(rows)}
        if silent := sorted(set(parts) - {ALL, builder.DEFAULT_CONFIG_NAME} - {task for task, _ in splits}):
            raise LabelError(
                f"{spec} has no answer to the question {silent[0]}: give it a column {silent[0]}, or leave it out."
            )
        written = {key: _write(rows, out, *key, embed_videos) for key, rows in splits.items()}

    infos, data_files = {}, dict[str, dict[str, list[str]]]()
    for configuration, tasks in parts.items():
        split_infos, data_files[configuration] = datasets.SplitDict(), {}
        for split in dict.fromkeys(split for task, split in splits if task in tasks):
            there = [task for task in tasks if (task, split) in splits]
            split_infos[split] = datasets.SplitInfo(
                split,
                num_examples=sum(len(splits[task, split]) for task in there),
                num_bytes=sum(written[task, split] for task in there),
            )
            data_files[configuration][split] = [f"{task}/{split}-*.parquet" for task in there]
        size = sum(info.num_bytes for info in split_infos.values())
        infos[configuration] = datasets.DatasetInfo(
            features=builder.info.features, splits=split_infos, download_size=size, dataset_size=size
        )
    return Export(builder, infos, data_files)


def _is_task(task: str, wanted: str) -> bool:
    return task == wanted


def _write(rows: datasets.Dataset, out: Path, task: str, split: str, embed_videos: bool) -> int:
    size = rows.data.nbytes
    if embed_videos:
        size += sum(Path(video["path"]).stat().st_size for video in rows["video"])
    files = min(len(rows), math.ceil(size / _FILE_BYTES))
    written = 0
    for number in range(files):
        path = out / task / f"{split}-{number:05d}-of-{files:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        shard = rows.shard(files, number, contiguous=True).with_format("arrow")
        with pq.ParquetWriter(path, rows.features.arrow_schema) as writer:
            for table in shard.iter(_GROUP_ROWS_WITH_VIDEOS if embed_videos else _GROUP_ROWS):
                writer.write_table(embed_table_storage(table) if embed_videos else table)
        written += path.stat().st_size
    return written
