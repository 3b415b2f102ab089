"""Build the question-and-answer set of all of LSVQ, without copying videos, and load it again.

The label files have LSVQ's 38 columns and its numbers of rows (38,815 in all, 28,056 of them for training), with
made-up ratings; empty files stand in for the videos, which a build doesn't open. The target is 10 s to build and 1 s to
load again, on two cores. What `GeneratorBasedBuilder` takes for the same rows is printed beside it.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from pathlib import Path

import datasets

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import dataset_layouts  # noqa: E402

import dataset_builders  # noqa: E402
from dataset_builders.lsvq import Lsvq  # noqa: E402

REPEATS = 3
ROWS = {"yfcc-batch{}/{}": 28056, "ia-batch{}/{}": 7186, "backup{}/{}": 3573}


class RowByRow(datasets.GeneratorBasedBuilder):
    """The same rows of the largest split, encoded one by one by the library."""

    def __init__(self, builder: Lsvq, **options: str) -> None:
        self.source = builder
        super().__init__(**options)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=self.source.info.features)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        items = [item for split in self.source.items().values() for item in split]
        return [datasets.SplitGenerator("train", {"items": tuple(items)})]

    def _generate_examples(self, items):
        yield from enumerate(row for item in items for row in self.source.rows(item))


def lay_out(root: Path) -> None:
    ratings = []
    for pattern, count in ROWS.items():
        numbered = dataset_layouts.numbered(count, "{}")
        ratings.append([(pattern.format(int(number) // 800, number), mos) for number, mos in numbered])
    dataset_layouts.lsvq(root, *ratings)


def seconds(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    datasets.disable_progress_bars()
    dataset_builders.register()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "LSVQ"
        lay_out(root)
        with (root / "labels_train_test.csv").open() as file:
            columns = len(next(csv.reader(file)))
        builds, loads, row_by_row = [], [], []
        for repeat in range(REPEATS):
            cache = f"{folder}/cache{repeat}"
            options = {"data_dir": str(root), "cache_dir": cache}
            builds.append(seconds(lambda options=options: datasets.load_dataset("lsvq", "score_and_level", **options)))
            loads.append(seconds(lambda options=options: datasets.load_dataset("lsvq", "score_and_level", **options)))
            builder = RowByRow(Lsvq(config_name="score_and_level", **options), cache_dir=f"{cache}/rows")
            row_by_row.append(seconds(builder.download_and_prepare))
        data = datasets.load_dataset("lsvq", "score_and_level", **options)
    rows = {name: len(split) for name, split in data.items()}
    print(f"labels of {columns} columns; rows: {rows}, {sum(rows.values())} in all")
    print(f"build:      {min(builds):6.2f} s, best of {REPEATS} (target 10 s)")
    print(f"load again: {min(loads):6.2f} s, best of {REPEATS} (target 1 s)")
    print(f"row by row: {min(row_by_row):6.2f} s, {min(row_by_row) / min(builds):.1f} times the build")


if __name__ == "__main__":
    main()
