"""Results that outlive the program: rows appended to a CSV, JSONL or Parquet file, each key exactly once.

A row is handed to the operating system before `append` returns, so a program that is killed loses nothing that it
appended; what it was writing at that moment is dropped when the file is opened again. Parquet can't be appended to: its
rows go to a journal (JSONL) beside the file, which is folded into it on closing, or, after a kill, on the next closing.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from processing.errors import InputError

try:
    import fcntl
except ImportError:  # no such locks on Windows: there, two runs at once are the user's to avoid
    fcntl = None

# Rows of a Parquet row group, and rows in memory while a journal is folded.
ROWS_AT_ONCE = 10_000


class ResultFile:
    """Appends rows to a file and knows which keys it holds.

    >>> with ResultFile("results.parquet", key="path") as results:
    ...     for path in paths:
    ...         if path not in results:
    ...             results.append({"path": path, "score": 71.3})

    One program at a time may have a file open. Values may be nested: JSONL and Parquet keep them so, CSV gets a column
    `outer_inner` for each entry of a mapping, and lists as JSON. Bytes of a file name that are not UTF-8 are written as
    `\\xff`: they would make the whole file unreadable to others.

    Args:
        path: ends with .csv, .jsonl or .parquet; folders are made.
        key: the field that tells rows apart.
        columns: of a new CSV file, where the first row does not show all of them.

    Raises:
        ValueError: the suffix is another, or the file that is there does not hold such rows.
        OSError: the file can't be written, or another program is writing it.
    """

    def __init__(self, path: str | os.PathLike, key: str = "path", columns: Sequence[str] | None = None):
        self.path = Path(path)
        self.key = key
        suffix = self.path.suffix.lower()
        if suffix not in (".csv", ".jsonl", ".parquet"):
            raise InputError(f"{self.path} is no result file: let its name end with .csv, .jsonl or .parquet.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns = list(columns) if columns is not None else None
        self._is_csv, self._is_parquet = suffix == ".csv", suffix == ".parquet"
        self._growing = self.path.with_name(f"{self.path.name}.journal.jsonl") if self._is_parquet else self.path
        self._file: BinaryIO = self._growing.open("ab")
        try:
            _lock(self._file, self.path)
            self._file.truncate(_complete_length(self._growing, quoted_lines=self._is_csv))
            if self._is_csv:
                self._columns = _header(self._growing) or self._columns
            self._done = {str(row[key]) for row in self._checked_rows()}
        except BaseException:
            self._file.close()
            raise

    def __contains__(self, key: object) -> bool:
        return _printable(str(key)) in self._done

    def __len__(self) -> int:
        return len(self._done)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; it survives whatever happens to this program from here on.

        Raises:
            ValueError: its key is there already, or a CSV file has no column for a value.
        """
        row = _printable(row)
        key = str(row[self.key])
        if key in self._done:
            raise InputError(f"{self.path} already has a row for {self.key} {key!r}.")
        line = self._csv_line(row) if self._is_csv else json.dumps(row) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        self._done.add(key)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, of this run and of earlier ones, in the order in which they came; all values of a CSV file are
        text."""
        if self._is_parquet and self.path.exists():
            folded = set()
            for row in _parquet_rows(self.path):
                folded.add(row[self.key])
                yield row
            # A kill between folding and deleting the journal leaves rows in both.
            yield from (row for row in _jsonl_rows(self._growing) if row.get(self.key) not in folded)
        else:
            yield from _csv_rows(self._growing) if self._is_csv else _jsonl_rows(self._growing)

    def close(self) -> None:
        """Finish the file: fold the journal of a Parquet file into it."""
        if self._file.closed:
            return
        if self._is_parquet:
            if self._growing.stat().st_size:
                _write_parquet(self.rows, self.path)
            self._growing.unlink()
        self._file.close()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked_rows(self) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self.rows(), 1):
            if self.key not in row:
                raise InputError(
                    f"{self.path} is there already, and its row {number} has no {self.key!r}: name another file, or "
                    "delete this one."
                )
            yield row

    def _csv_line(self, row: Mapping[str, Any]) -> str:
        flat = dict(_flattened(row))
        self._columns = self._columns or list(flat)
        line = io.StringIO()
        writer = csv.DictWriter(line, self._columns, lineterminator="\n")
        if self._growing.stat().st_size == 0:
            writer.writeheader()
        if unknown := flat.keys() - set(self._columns):
            raise InputError(f"{self.path} has no column for {', '.join(sorted(unknown))}: name another file.")
        writer.writerow(flat)
        return line.getvalue()


def _lock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"{path} is being written by another program: wait for it, or name another file.") from error
    except OSError:  # a file system without locks
        pass


def _complete_length(path: Path, quoted_lines: bool) -> int:
    """Bytes up to the end of the last row that is whole. In CSV a line may end inside quotes."""
    complete = position = quotes = 0
    with path.open("rb") as file:
        for line in file:
            position += len(line)
            quotes += line.count(b'"') if quoted_lines else 0
            if line.endswith(b"\n") and quotes % 2 == 0:
                complete = position
    return complete


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"Line {number} of {path} is not JSON: repair it, or delete that line.") from error
            if not isinstance(row, dict):
                raise InputError(f"Line {number} of {path} is not a JSON object: repair it, or delete that line.")
            yield row


def _header(path: Path) -> list[str] | None:
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), None)


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield from batch.to_pylist()


def _write_parquet(rows: Callable[[], Iterator[dict[str, Any]]], path: Path) -> None:
    """Two passes over the rows: one to learn the types of the columns (a column may begin with many nulls), one to
    write."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    def tables(schema: Any = None) -> Iterator[Any]:
        remaining = rows()
        while batch := list(islice(remaining, ROWS_AT_ONCE)):
            names = schema.names if schema else dict.fromkeys(chain.from_iterable(batch))
            yield arrow.table({name: [row.get(name) for row in batch] for name in names}, schema=schema)

    temporary = path.with_name(f"{path.name}.new")
    try:
        schema = arrow.unify_schemas([table.schema for table in tables()], promote_options="permissive")
        with parquet.ParquetWriter(temporary, schema) as writer:
            for table in tables(schema):
                writer.write_table(table)
    except arrow.ArrowException as error:
        raise InputError(
            f"The rows of {path} don't fit one table ({error}); they are all in its journal beside it."
        ) from error
    temporary.replace(path)


def _flattened(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}_")
        else:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, list | tuple) else value


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if isinstance(value, Mapping):
        return {_printable(name): _printable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(inner) for inner in value]
    return value


__all__ = ["ResultFile"]
