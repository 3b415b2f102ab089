"""Results that outlive the program: rows appended to a CSV, JSONL or Parquet file, each key exactly once.

A row is handed to the operating system before `append` returns, so a program that is killed loses nothing that it
appended; what it was writing at that moment is dropped when the file is opened again. Parquet can't be appended to: its
rows go to a journal (JSONL) beside the file, which is folded into it on closing, or, after a kill, on the next closing.

All columns and their types are declared. This is how a file is known to be ours before anything in it is changed, and
why files of runs with and without errors have the same types.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape, glob
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from lmmvqa.file_locks import is_open_as, open_locked
from processing.errors import InputError, LmmVqaError

logger = logging.getLogger(__name__)

# Name and type of each column: "string", "float64", "int64", "bool", a list of such, as "list<string>", or a mapping
# from text to such, as "map<float64>"; None stands for "not known" in all of them. A name with a star, such as
# "probability_*" or "*s", stands for any number of columns that have no entry of their own, which the first row names.
Columns = Mapping[str, str]
_PLAIN: dict[str, type] = {"string": str, "float64": float, "int64": int, "bool": bool}
SUFFIXES = (".csv", ".jsonl", ".parquet")
# Rows of a Parquet row group, and rows in memory while a journal is folded.
ROWS_AT_ONCE = 10_000
# Spreadsheets run a cell that begins so as a formula. An apostrophe in front is what they take for "this is text".
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class ResultFileError(LmmVqaError, OSError, ValueError):
    """A result file can't be used. The message names it and the remedy."""


class ResultFile:
    """Appends rows to a file and knows which keys it holds.

    >>> with ResultFile("results.parquet", {"path": "string", "score": "float64"}) as results:
    ...     for path in paths:
    ...         if path not in results:
    ...             results.append({"path": path, "score": 71.3})

    One program at a time may have a file open. In CSV, lists and mappings are JSON, and text that a spreadsheet would
    run as a formula has an apostrophe in front. Bytes of a file name that are not UTF-8 are written as `\\xff`: they
    would make the whole file unreadable to others.

    Args:
        path: ends with .csv, .jsonl or .parquet; folders are made.
        columns: name and type of every column; the first is the key, text that tells rows apart.

    Raises:
        ResultFileError: the suffix is another, the file that is there does not hold such rows (it is left as it was),
            it can't be written, or another program is writing it.
    """

    def __init__(self, path: str | os.PathLike, columns: Columns):
        self.path = Path(path)
        self._key = next(iter(columns))
        self._suffix = check_suffix(self.path)
        self._closed, self._writing = True, False
        # A link stays one: what it points to is written.
        self._place = Path(os.path.realpath(self.path))
        with _named(self.path):
            self._place.parent.mkdir(parents=True, exist_ok=True)
        self._growing = _growing(self._place)
        _look_at_parquet(self._place, columns)
        with _named(self.path):
            self._file, self._new = _open_alone(self._growing, self.path)
        self._closed = False
        try:
            # Only who has the lock can know that they are not in use.
            for leftover in glob(escape(str(self._place.parent / f".{self._place.name}.")) + "*.new"):
                os.unlink(leftover)
            is_csv = self._suffix == ".csv"
            look = _look_at_lines(self._growing, _look_at_parquet(self._place, columns), is_csv)
            self._columns, self._length = dict(look.columns), look.length
            self._done: set[str] = set()
            for row in self.rows():
                if row[self._key] in self._done:
                    raise ResultFileError(
                        f"{self.path} has two rows for {self._key} {row[self._key]!r}: delete one of them, or name "
                        "another file."
                    )
                self._done.add(row[self._key])
            os.ftruncate(self._file, self._length)
            if look.lacks_end:
                self._write(b"\n")
        except BaseException:
            self._release()
            raise

    def __contains__(self, key: object) -> bool:
        return as_written(str(key)) in self._done

    def __len__(self) -> int:
        return len(self._done)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; it survives whatever happens to this program from here on. What the row does not mention is
        None.

        Raises:
            ResultFileError: its key is there already, a value has no column or another type, the disk is full, or the
                file was removed, renamed or changed by another program.
        """
        columns = _with_names(self._columns, row)
        self._append(_as_declared(row, columns, self.path), columns)

    def take_over(self, other: ResultFile) -> None:
        """Add the rows of another file that this one lacks.

        Raises:
            ResultFileError: as `append`.
        """
        for row in other.rows():
            if row[self._key] not in self._done:
                self._append(row, other._columns)

    def _append(self, row: Mapping[str, Any], columns: Columns) -> None:
        key = row[self._key]
        if key in self._done:
            raise ResultFileError(f"{self.path} already has a row for {self._key} {key!r}.")
        self._check_in_place()
        self._columns = columns
        self._write(self._lines([row]))
        self._done.add(key)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, of this run and of earlier ones, in the order in which they came."""
        return stored_rows(self.path, self._columns)

    def drop(self, unwanted: Callable[[dict[str, Any]], bool]) -> int:
        """Take rows out of the file, in one step that a kill can't cut in two; how many.

        Raises:
            ResultFileError: as `append`.
        """
        self._check_in_place()
        gone = {row[self._key] for row in self.rows() if unwanted(row)}
        if not gone:
            return 0
        kept = (row for row in self.rows() if row[self._key] not in gone)
        if self._suffix == ".parquet":
            self._fold(kept)
            os.ftruncate(self._file, 0)
            self._length = 0
        else:
            self._rewrite(kept)
        self._done -= gone
        return len(gone)

    def close(self) -> None:
        """Finish the file: fold the journal of a Parquet file into it.

        Raises:
            ResultFileError: the disk is full, or the file was removed, renamed or changed by another program.
        """
        if self._closed:
            return
        try:
            self._check_in_place()
            if self._suffix == ".parquet":
                if self._length:
                    self._fold(self.rows())
                    os.ftruncate(self._file, 0)
                    self._length = 0
            else:
                with _named(self.path):
                    os.fsync(self._file)
            stored = sum(1 for _ in self.rows())
            if stored < len(self._done):
                raise ResultFileError(
                    f"{self.path} has {stored:,} rows of {len(self._done):,}: another program removed or changed it. "
                    "Run the command again."
                )
        finally:
            self._release()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        # What ended the run is what must be heard of; no row is lost.
        except OSError as other:
            logger.warning("%s", other)

    def _release(self) -> None:
        """Give the lock back, and leave no file that has nothing in it."""
        self._closed = True
        with suppress(OSError):
            ours = is_open_as(self._file, self._growing)
            if ours and os.fstat(self._file).st_size == 0 and (self._new or self._suffix == ".parquet"):
                os.unlink(self._growing)
        os.close(self._file)

    def _check_in_place(self) -> None:
        """That the file is still the one that was opened, as it was left; what an interrupt left of a row goes."""
        size = os.fstat(self._file).st_size
        if self._writing and size > self._length and is_open_as(self._file, self._growing):
            os.ftruncate(self._file, self._length)
            self._writing = False
        elif size != self._length or not is_open_as(self._file, self._growing):
            raise ResultFileError(
                f"{self._growing if self._suffix == '.parquet' else self.path} was removed, renamed or changed by "
                "another program while rows were written to it: leave it in its place, and run the command again."
            )

    def _write(self, content: bytes) -> None:
        rest, self._writing = memoryview(content), True
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._length)
            raise _said(error, self.path, f"the {len(self._done):,} rows so far are kept") from error
        self._length += len(content)
        self._writing = False

    def _lines(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        if self._suffix != ".csv":
            return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        head = [] if self._length else [list(self._columns)]
        return b"".join(csv_line(row) for row in (*head, *([*row.values()] for row in rows)))

    def _fold(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write all rows to the Parquet file."""
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        schema, remaining = _arrow_schema(self._columns), iter(rows)
        with _replacing(self._place, self.path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
            while batch := list(islice(remaining, ROWS_AT_ONCE)):
                writer.write_table(arrow.Table.from_pylist(batch, schema=schema))

    def _rewrite(self, rows: Iterable[dict[str, Any]]) -> None:
        """Replace a CSV or JSONL file, without a moment in which another program could take it."""
        before = self._file, self._length
        self._length = 0
        try:
            with _replacing(self._place, self.path) as temporary:
                self._file, _ = _open_alone(temporary, self.path)
                for row in rows:
                    self._write(self._lines([row]))
        except BaseException:
            if self._file != before[0]:
                os.close(self._file)
            self._file, self._length = before
            raise
        os.close(before[0])


def check_suffix(path: str | os.PathLike) -> str:
    """The suffix of a result file, in small letters.

    Raises:
        ResultFileError: it is none of a result file.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ResultFileError(f"{path} is no result file: let its name end with .csv, .jsonl or .parquet.")
    return suffix


def check_replaceable(path: Path, columns: Columns) -> None:
    """That a new CSV file may take the place of what has its name: nothing, an empty file, or earlier rows of its kind.

    Raises:
        ResultFileError: it holds something else; it is left as it was.
    """
    if path.is_file() and path.stat().st_size:
        with _named(path):
            _look_at_lines(path, columns, is_csv=True)


def stored_rows(path: str | os.PathLike, columns: Columns) -> Iterator[dict[str, Any]]:
    """The rows of a result file, also of one that is being written or whose run was killed; nothing is changed.

    Raises:
        ResultFileError: the file holds other rows; the message names the line.
        OSError: it can't be read.
    """
    place, key = Path(os.path.realpath(path)), next(iter(columns))
    growing, folded = _growing(place), set()
    columns = _look_at_parquet(place, columns)
    if growing != place and place.exists() and place.stat().st_size:
        for row in _parquet_rows(place):
            folded.add(row[key])
            yield row
    if growing == place or growing.exists():
        is_csv = place.suffix.lower() == ".csv"
        rows = (_csv_rows if is_csv else _jsonl_rows)(growing, _look_at_lines(growing, columns, is_csv))
        # A kill between folding and emptying the journal leaves rows in both.
        yield from (row for row in rows if row[key] not in folded)


def csv_line(values: Iterable[Any]) -> bytes:
    """A line of a CSV file. Text that a spreadsheet would run has an apostrophe in front."""
    cells = [
        json.dumps(value) if isinstance(value, list | dict) else f"'{value}" if _is_formula(value) else value
        for value in values
    ]
    line = io.StringIO()
    # What ends lines is what gets quotes, and a carriage return ends lines for many.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return f"{line.getvalue()[:-2]}\n".encode()


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and _FORMULA.match(value) is not None


def _growing(place: Path) -> Path:
    """The file to which rows are appended."""
    return place.with_name(f"{place.name}.journal.jsonl") if place.suffix.lower() == ".parquet" else place


def _open_alone(path: Path, shown: Path) -> tuple[int, bool]:
    """A descriptor of a file that no other program is writing, and whether the file is new."""
    if path.exists() and not path.is_file():
        raise ResultFileError(f"{shown} is no file: name another one.")
    try:
        return open_locked(path)
    except BlockingIOError as error:
        raise ResultFileError(
            f"{shown} is being written by another program: wait for it, or name another file."
        ) from error


@contextmanager
def _replacing(place: Path, shown: Path) -> Iterator[Path]:
    """A new file beside another, which takes its place as a whole once it is on the disk."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if place.exists():
            temporary.chmod(place.stat().st_mode & 0o7777)
        temporary.replace(place)
        _sync_folder(place.parent)
    except ResultFileError:
        raise
    except OSError as error:
        raise _said(error, shown, "the rows so far are kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """So that a loss of power can't undo a change of names; some systems can't, and need not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ResultFileError:
        raise
    except OSError as error:
        raise _said(error, path, "name another file, or make this place writable") from error


def _said(error: OSError, path: Path, remedy: str) -> ResultFileError:
    """An error of the system as one that people can act on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResultFileError(
            f"The disk that holds {path} is full: make room and run the command again. No row is lost."
        )
    return ResultFileError(f"{path} can't be written ({os.strerror(error.errno)}): {remedy}.")


@dataclass(frozen=True)
class _Look:
    """What a CSV or JSONL file is found to be: its columns, the bytes up to the end of its last whole row, and whether
    that row lacks the end of its line. What comes behind is an unfinished row of ours."""

    columns: Columns
    length: int
    lacks_end: bool = False


def _look_at_lines(path: Path, columns: Columns, is_csv: bool) -> _Look:
    """
    Raises:
        ResultFileError: the file is not ours, or what comes behind its last whole row is more than an unfinished one.
    """
    whole = position = quotes = 0
    rest: list[bytes] = []
    with path.open("rb") as file:
        for line in file:
            position += len(line)
            rest.append(line)
            quotes += line.count(b'"') if is_csv else 0
            if line.endswith(b"\n") and quotes % 2 == 0:
                whole, rest = position, []
    unfinished = b"".join(rest)
    if is_csv:
        return _look_at_csv(path, columns, whole, unfinished)
    if whole:
        with path.open("rb") as file:
            columns = _names_of(_jsonl_row(file.readline(), path, "line 1"), columns, path, "line 1")
    if not unfinished:
        return _Look(columns, whole)
    try:
        row = json.loads(unfinished)
    except ValueError:
        begin = f"{{{json.dumps(next(iter(columns)))}: ".encode()
        if not (unfinished.startswith(begin) or begin.startswith(unfinished)):
            raise _not_ours(path, columns, f"it ends with {_shown(unfinished)}") from None
        return _Look(columns, whole)
    # The beginning of an object is not an object, so one that can be read is whole.
    return _Look(_names_of(row, columns, path, "the last line"), position, lacks_end=True)


def _look_at_csv(path: Path, columns: Columns, whole: int, unfinished: bytes) -> _Look:
    if whole:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            try:
                names = next(csv.reader(file), [])
            except csv.Error as error:
                raise _not_ours(path, columns, f"it is no table ({error})") from error
        found = _matched(columns, names)
        if found is None:
            raise _not_ours(path, columns, f"its columns are {', '.join(names)}")
        columns = found
    elif unfinished:
        known = ",".join(takewhile(lambda name: "*" not in name, columns)).encode()
        if not (known.startswith(unfinished) or unfinished.startswith(known + b",")) or b"\n" in unfinished:
            raise _not_ours(path, columns, f"it begins with {_shown(unfinished)}")
    if any(_looks_like_a_row(line, columns) for line in unfinished.split(b"\n")[1:]):
        raise ResultFileError(
            f"{path} has a quotation mark without its partner, in the row that begins with {_shown(unfinished)}: "
            "repair it, or name another file."
        )
    return _Look(columns, whole)


def _looks_like_a_row(line: bytes, columns: Columns) -> bool:
    """Whether a line of CSV begins a row. A row may hold ends of lines, but what follows those closes a quotation
    before it opens one."""
    cells = next(csv.reader([line.decode(errors="replace")]), [])
    return len(cells) == len(columns) and re.match(rb'[^"]*[^",]"', line) is None


def _matched(columns: Columns, names: Iterable[str]) -> Columns | None:
    """The columns with the names of a file in place of stars; None where they are others."""
    rest, found = list(names), {}
    for name, kind in columns.items():
        if "*" in name:
            while rest and _stands_for(name, rest[0], columns):
                found[rest.pop(0)] = kind
        elif rest[:1] == [name]:
            found[rest.pop(0)] = kind
        else:
            return None
    return None if rest else found


def _with_names(columns: Columns, row: Mapping[str, Any]) -> Columns:
    """The columns with the names of a row in place of stars."""
    found: dict[str, str] = {}
    for name, kind in columns.items():
        found |= (
            {own: kind for own in row if own not in found and _stands_for(name, own, columns)}
            if "*" in name
            else {name: kind}
        )
    return found


def _stands_for(pattern: str, name: str, columns: Columns) -> bool:
    return name not in columns and fnmatchcase(name, pattern)


def _names_of(row: Any, columns: Columns, path: Path, where: str) -> Columns:
    found = _matched(columns, row) if isinstance(row, dict) else None
    if found is None:
        raise _not_ours(path, columns, f"{where} is {_shown(json.dumps(row).encode())}")
    return found


def _shown(content: bytes) -> str:
    return repr(content[:60].decode(errors="replace"))


def _not_ours(path: Path, columns: Columns, why: str) -> ResultFileError:
    return ResultFileError(
        f"{path} is there already and holds no results of this kind: {why}, and not {', '.join(columns)}. Name "
        "another file, or move this one away."
    )


def _csv_rows(path: Path, look: _Look) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        reader = csv.reader((line.decode() for line in _lines_up_to(file, look.length)), strict=True)
        try:
            next(reader, None)
            for cells in reader:
                if len(cells) != len(look.columns):
                    raise InputError(f"{len(cells)} cells in place of {len(look.columns)}")
                yield {
                    name: _from_cell(cell, kind) for cell, (name, kind) in zip(cells, look.columns.items(), strict=True)
                }
        except (ValueError, csv.Error) as error:
            raise ResultFileError(
                f"Line {reader.line_num} of {path} is damaged ({error}): repair it, or delete that line."
            ) from error


def _lines_up_to(file: Any, length: int) -> Iterator[bytes]:
    position = 0
    while position < length:
        line = file.readline()
        position += len(line)
        yield line


def _from_cell(cell: str, kind: str) -> Any:
    if cell == "":
        return None
    if kind == "string":
        return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell
    if kind == "bool":
        if cell not in ("True", "False"):
            raise InputError(f"{cell!r} is neither True nor False")
        return cell == "True"
    return _PLAIN[kind](cell) if kind in _PLAIN else json.loads(cell)


def _jsonl_rows(path: Path, look: _Look) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(_lines_up_to(file, look.length), 1):
            row = _jsonl_row(line, path, f"line {number}")
            _names_of(row, look.columns, path, f"line {number}")
            yield row


def _jsonl_row(line: bytes, path: Path, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ResultFileError(
            f"{where.capitalize()} of {path} is not JSON: repair it, delete it, or name another file."
        ) from error


def _look_at_parquet(path: Path, columns: Columns) -> Columns:
    """The columns with the names of a Parquet file in place of stars, as they are where there is no such file."""
    if path.suffix.lower() != ".parquet" or not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return columns
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        schema = parquet.read_schema(path)
    except (arrow.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from error
    found = _matched(columns, schema.names)
    if found is None or not schema.equals(_arrow_schema(found)):
        raise _not_ours(
            path, columns, f"its columns are {', '.join(f'{field.name} ({field.type})' for field in schema)}"
        )
    return found


def _no_parquet(path: Path, error: Exception) -> ResultFileError:
    return ResultFileError(
        f"{path} is there already and can't be read as Parquet ({str(error).splitlines()[0]}): name another file, "
        "or move this one away."
    )


def _arrow_schema(columns: Columns) -> Any:
    import pyarrow as arrow

    plain = {"string": arrow.string(), "float64": arrow.float64(), "int64": arrow.int64(), "bool": arrow.bool_()}
    holders = {"list": arrow.list_, "map": lambda item: arrow.map_(arrow.string(), item)}
    return arrow.schema(
        [
            (name, plain[kind] if kind in plain else holders[_holder(kind)](plain[_item_kind(kind)]))
            for name, kind in columns.items()
            if "*" not in name
        ]
    )


def _holder(kind: str) -> str:
    return kind.partition("<")[0]


def _item_kind(kind: str) -> str:
    return kind.partition("<")[2].removesuffix(">")


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        batches = file.iter_batches(ROWS_AT_ONCE)
        while True:
            try:
                rows = next(batches).to_pylist(maps_as_pydicts="strict")
            except StopIteration:
                return
            # Its schema can be read, and its pages can't.
            except (arrow.ArrowException, OSError) as error:
                raise _no_parquet(path, error) from error
            yield from rows


def _as_declared(row: Mapping[str, Any], columns: Columns, path: Path) -> dict[str, Any]:
    """All columns in their order, each value of its type: 5 among numbers is 5.0, also where a file has no types."""
    if unknown := row.keys() - columns.keys():
        raise ResultFileError(f"{path} has no column for {', '.join(sorted(unknown))}.")
    typed = {}
    for name, kind in columns.items():
        try:
            typed[name] = _typed(row.get(name), kind)
        except TypeError as error:
            raise ResultFileError(f"{path}: {name} is {row[name]!r}, {error}.") from None
    return typed


def _typed(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind not in _PLAIN and _holder(kind) == "map":
        if not isinstance(value, Mapping):
            raise TypeError("which is no mapping")
        return {_typed(name, "string"): _typed(item, _item_kind(kind)) for name, item in value.items()}
    if kind not in _PLAIN:
        if not isinstance(value, list | tuple):
            raise TypeError("which is no list")
        return [_typed(item, _item_kind(kind)) for item in value]
    if kind == "float64" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, _PLAIN[kind]) or (kind == "int64" and isinstance(value, bool)):
        raise TypeError(f"which is no {kind}")
    if kind == "float64" and not abs(value) < float("inf"):
        raise TypeError("which is no number that a file can hold")
    return as_written(value) if kind == "string" else value


def as_written(text: str) -> str:
    """Bytes that are not UTF-8 as `\\xff`; backslashes in front of what looks like that are doubled, so that no two
    names become one."""
    if os.sep != "\\":
        text = re.sub(r"\\+(?=x[89a-f][0-9a-f]|[\udc80-\udcff])", lambda found: found[0] * 2, text)
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


__all__ = [
    "SUFFIXES",
    "Columns",
    "ResultFile",
    "ResultFileError",
    "as_written",
    "check_replaceable",
    "check_suffix",
    "csv_line",
    "stored_rows",
]
