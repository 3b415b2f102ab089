"""What all builders share: a folder as its owners release it, rows matched with files, and tables of chat messages.

The builders make Arrow tables, not single rows: with `GeneratorBasedBuilder` the library's encoding of each row takes
several times as long (benchmarks/build_lsvq.py).
"""

from __future__ import annotations

import abc
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from dataset_builders.label_files import LabelError, files_below, is_table
from processing import quality_prompts, questions, video_names

logger = logging.getLogger(__name__)

# The chat form that processors take. A block is {"type": "text", "text": ...} or the bare placeholder {"type": "video"}
# (or "image"), whose text is null and whose file stands in the column of that name.
_TEXT = datasets.Value("string")
MESSAGES = [{"role": _TEXT, "content": [{"type": _TEXT, "text": _TEXT}]}]

# Items in a shard: the unit that worker processes and streams share out.
_SHARD = 100


@cache
def code_fingerprint() -> str:
    """A hash of all code that decides what the rows are, so that no cache outlives a change of it."""
    sources = [
        *sorted(Path(__file__).parent.glob("*.py")),
        *(Path(str(module.__file__)) for module in (quality_prompts, questions, video_names)),
    ]
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()


@dataclass
class ReleaseConfig(datasets.BuilderConfig):
    """Options of every builder.

    Args:
        data_dir: the folder of the downloaded set.
        strict: make rows without a file, and files without a row, an error.
    """

    version: datasets.Version | str | None = "1.0.0"
    strict: bool = False

    def root(self) -> Path | None:
        """The folder to read: `data_dir`, or that of the given label files; None if neither is given.

        Raises:
            LabelError: the label files lie in several folders.
        """
        if self.data_dir is not None:
            return Path(self.data_dir).expanduser().absolute()
        folders = {Path(file).parent for files in (self.data_files or {}).values() for file in files}
        if len(folders) > 1:
            raise LabelError(f"The label files lie in {len(folders)} folders: put them beside the videos, into one.")
        return folders.pop() if folders else None

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """The key of the cache: the options, our code, and the state of the folder.

        A label file that changed or a video that came or went gives another key.
        """
        state = hashlib.sha256(code_fingerprint().encode())
        root = self.root()
        if root is not None:
            files = files_below(root)
            stats = [(root / file).stat() for file in files if is_table(file)]
            state.update(repr((str(root), files, [(stat.st_size, stat.st_mtime_ns) for stat in stats])).encode())
        return super().create_config_id({**config_kwargs, "state": state.hexdigest()}, custom_features)


class ReleaseBuilder(datasets.ArrowBasedBuilder, abc.ABC):
    """Base of the builders. A subclass says what its items are and which rows an item gives."""

    BUILDER_CONFIG_CLASS = ReleaseConfig

    def root(self) -> Path:
        """The folder that is read, absolute.

        Raises:
            LabelError: none is given.
        """
        root = self.config.root()
        if root is None:
            raise LabelError(f"{self.dataset_name} reads a downloaded set: give its folder as data_dir.")
        return root

    @abc.abstractmethod
    def items(self) -> dict[str, list[Any]]:
        """The items of each split, of those that have a file, in the order of the label file."""

    @abc.abstractmethod
    def rows(self, item: Any) -> list[dict[str, Any]]:
        """The rows that an item gives."""

    def report(self, without_file: Sequence[str], without_row: Sequence[str], counted: int) -> None:
        """Say, or with `strict` refuse, that labels and files don't match.

        Raises:
            LabelError: none of the `counted` rows has a file, or the option strict is set and anything doesn't match.
        """
        where = self.root()
        if counted and len(without_file) == counted:
            raise LabelError(
                f"{self.dataset_name}: none of the {counted} files of the labels was found below {where}; looked for "
                f"{_some(without_file)}. Give the folder that holds labels and files of the downloaded set as data_dir."
            )
        findings = [
            f"{len(names)} {what} ({_some(names)})"
            for names, what in (
                (without_file, f"of {counted} rows have no file and are left out"),
                (without_row, "files have no row and are left out"),
            )
            if names
        ]
        if findings and self.config.strict:
            raise LabelError(f"{self.dataset_name} in {where}, strict: {'; '.join(findings)}.")
        for finding in findings:
            logger.warning("%s in %s: %s.", self.dataset_name, where, finding)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name, {"shards": [items[at : at + _SHARD] for at in range(0, len(items), _SHARD)]})
            for name, items in self.items().items()
            if items
        ]

    def _generate_tables(self, shards: list[list[Any]]) -> Iterator[tuple[int, pa.Table]]:
        for index, items in enumerate(shards):
            rows = [row for item in items for row in self.rows(item)]
            yield index, pa.Table.from_pylist(rows, schema=self.info.features.arrow_schema)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
