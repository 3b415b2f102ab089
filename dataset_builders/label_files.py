"""Files as the owners of video sets release them: what lies in a folder, and label tables in all their forms.

Paths below a folder are handled here and as plain text: inside the modules of builders the library replaces `Path` and
`os.path` by versions that also know URLs, which takes seconds for the 38,815 files of LSVQ.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import logging
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from processing.errors import InputError, LmmVqaError
from processing.video_names import is_picture, is_video

logger = logging.getLogger(__name__)

_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".xlsx", ".mat", ".txt")
_LINED_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
_SEPARATORS = ",;\t"


class LabelError(LmmVqaError, ValueError):
    """A folder or a label file is not what a builder reads. The message says what was looked for, where, and the
    remedy."""


def files_below(root: Path) -> list[str]:
    """All files below a folder, as sorted paths relative to it with forward slashes; hidden ones are left out.

    Linked folders are followed (sets are often linked together from several disks), each only once.

    Raises:
        LabelError: there is no such folder.
    """
    if not root.is_dir():
        raise LabelError(f"{root} is not a folder: give the folder of the downloaded set as data_dir.")
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) not in seen
        ]
        prefix = Path(folder).relative_to(root).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        # Archives packed on macOS hold a "._A001.mp4" beside each "A001.mp4".
        found += [prefix + name for name in names if not name.startswith(".")]
    return sorted(found)


def is_table(path: str) -> bool:
    return path.lower().endswith(_TABLE_SUFFIXES)


def without_video_suffix(name: str) -> str:
    """`A001` of `A001.mp4` or `A001.jpg`; names may hold other dots, so only the suffix of a video or photograph is
    taken off."""
    return os.path.splitext(name)[0] if is_video(name) or is_picture(name) else name


def find_label_file(root: Path, files: list[str], *patterns: str) -> Path:
    """The label file below `root` whose name matches the first pattern that matches anything (case doesn't matter).

    Of several, the one nearest to the root is taken.

    Raises:
        LabelError: nothing matches.
    """
    for pattern in patterns:
        matches = [file for file in files if fnmatch.fnmatch(file.rpartition("/")[2].lower(), pattern.lower())]
        if matches:
            return root / min(matches, key=lambda file: (file.count("/"), file))
    raise LabelError(
        f"{root} doesn't hold the label file: looked for {' or '.join(patterns)} in it and in its subfolders "
        f"({len(files)} files). Give the folder that holds the labels and the videos of the downloaded set as data_dir."
    )


def composed(name: str) -> str:
    """A name with each accented letter as one character (NFC). macOS stores file names with the accents apart (NFD)."""
    return unicodedata.normalize("NFC", name)


def is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and not cell.strip())


def place(path: Path, number: int) -> str:
    """Where an error is: the line of a text file, the row of another."""
    return f"{path}, {'line' if path.suffix.lower() in _LINED_SUFFIXES else 'row'} {number}"


def read_table(path: Path, sheet: str | None = None) -> pd.DataFrame:
    """A label file as a table. Cells of text formats are text, so that names made of digits stay names.

    Args:
        path: CSV or TSV (UTF-8 with or without BOM, GBK, Windows-1252; commas, semicolons or tabs; any line end),
            JSONL, Parquet, XLSX, or MATLAB file (version 7 or older) whose columns are its (n, 1) arrays and cells.
        sheet: the sheet of an XLSX file.

    Returns:
        The rows that hold anything. The index counts the lines of a text file (the first line is 1), otherwise the
        rows; `place` says it in words.

    Raises:
        LabelError: the file can't be read in the form that its suffix promises.
    """
    suffix = path.suffix.lower()
    try:
        match suffix:
            case ".csv" | ".tsv":
                table = _separated(path, _decoded(path), "\t" if suffix == ".tsv" else None)
            case ".jsonl":
                table = _read_jsonl(path)
            case ".parquet":
                table = pd.read_parquet(path).reset_index(drop=True)
                table.index += 1
            case ".xlsx":
                table = pd.read_excel(path, sheet_name=sheet or 0)
                # The first row of a sheet is its head.
                table.index += 2
            case ".mat":
                table = _read_mat(path)
                table.index += 1
            case _:
                raise InputError("a label file is a CSV, TSV, JSONL, Parquet, XLSX or MATLAB file")
    except LabelError:
        raise
    # A broken file is an error of another kind in each of the readers below.
    except Exception as error:
        raise LabelError(f"{path} can't be read as a {suffix[1:]} file: {error}") from error
    if suffix in (".csv", ".tsv"):
        return table
    blank = table.map(is_blank).all(axis=1)
    return table[~blank] if blank.any() else table


def read_benchmark_labels(path: Path) -> list[tuple[str, float]]:
    """The form in which benchmarks pass ratings on, `labels.txt`: path in the release, length, frame rate, rating.

    Raises:
        LabelError: a line is not of that form.
    """
    return [(name, rating) for name, _, rating, _ in read_benchmark_rows(path)]


def read_benchmark_rows(path: Path) -> list[tuple[str, list[str], float, str]]:
    """The same with the two cells between path and rating, which some sets put to a use of their own, and with the
    place of the line.

    Raises:
        LabelError: a line is not of that form.
    """
    rows = []
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.rsplit(",", 3)]
        try:
            rows.append((composed(cells[0]), cells[1:3], float(cells[3]), place(path, number)))
        except (IndexError, ValueError):
            raise LabelError(
                f"{place(path, number)} is not `path, length, frame rate, rating`: {line.strip()[:80]!r}."
            ) from None
    return rows


def read_entries(path: Path, *keys: str) -> list[dict[str, Any]]:
    """The objects of a JSON file that holds a list of them.

    Raises:
        LabelError: the file is no such list, or an object lacks one of `keys`.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabelError(f"{path} can't be read as a json file: {error}") from error
    if not isinstance(entries, list):
        raise LabelError(f"{path} holds a {type(entries).__name__}, not a list of objects with {', '.join(keys)}.")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise LabelError(f"{path}: entry {number} is not an object with {', '.join(keys)}: {str(entry)[:80]}")
    return entries


def column(table: pd.DataFrame, path: Path, *names: str) -> pd.Series:
    """The column with the first of several names that the table has; case and outer blanks don't matter.

    Raises:
        LabelError: the table has none of them.
    """
    present = {str(name).strip().lower(): name for name in table.columns}
    for name in names:
        if name.lower() in present:
            return table[present[name.lower()]]
    raise LabelError(
        f"{path} has no column {' or '.join(names)}: its columns are {', '.join(map(str, table.columns))}. "
        "Is it the label file of another set or release?"
    )


def ratings_of(table: pd.DataFrame, path: Path, name: str) -> list[float]:
    """The ratings in a column, with a decimal point or comma; an empty cell gives NaN.

    Raises:
        LabelError: there is no such column, or a cell holds something else than a number.
    """
    cells = column(table, path, name)
    if cells.dtype == object or pd.api.types.is_string_dtype(cells):
        cells = cells.map(
            lambda cell: re.sub(r"^(\s*-?\d*),(\d+\s*)$", r"\1.\2", cell) if isinstance(cell, str) else cell
        )
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    bad = cells[numbers.isna() & ~cells.map(is_blank)]
    if len(bad):
        raise LabelError(f"{place(path, bad.index[0])}: {bad.iloc[0]!r} in column {cells.name} is not a rating.")
    return numbers.tolist()


def names_and_ratings(
    table: pd.DataFrame, path: Path, names: str | tuple[str, ...], mos: str = "mos"
) -> list[tuple[str, float]]:
    """Names and ratings of a table, in its order.

    Raises:
        LabelError: a column is missing, a row has no name, or a rating is no number.
    """
    cells = column(table, path, *([names] if isinstance(names, str) else names))
    if (blank := cells.map(is_blank)).any():
        raise LabelError(f"{place(path, cells.index[blank.argmax()])} names no video.")
    ratings = ratings_of(table, path, mos)
    return [(composed(str(name).strip()), rating) for name, rating in zip(cells, ratings, strict=True)]


def _decoded(path: Path) -> str:
    """The text of a file. Of encodings, only UTF-8 can be told for certain."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    # A Chinese character takes two bytes, most often both of them above 127 (copies of LSVQ's labels went through
    # spreadsheets of Chinese systems); an accented letter of a Western language is one such byte among letters.
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    chinese = sum(run for run in runs if run % 2 == 0) > sum(runs) / 2
    for encoding in ("gb18030", "cp1252") if chinese else ("cp1252", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        logger.warning(
            "%s is not UTF-8 and was read as %s: save it as UTF-8 if names in it look wrong.", path, encoding
        )
        return text
    line = next(n for n, content in enumerate(data.splitlines(), start=1) if not _is_utf8(content))
    raise LabelError(f"{place(path, line)} is neither UTF-8 nor GBK nor Windows-1252: save the file as UTF-8.")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _separated(path: Path, text: str, separator: str | None) -> pd.DataFrame:
    """Rows of a CSV or TSV file. Without a separator, it is the commonest one of the head."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator or _separator(text), strict=True)
    head: list[str] = []
    numbers, rows = [], []
    end = 0
    for cells in lines:
        # A row begins behind the end of the one before it; quotes may hold line ends.
        start, end = end + 1, lines.line_num
        if not "".join(cells).strip():
            continue
        if not head:
            head = _head(path, start, cells)
            continue
        # Spreadsheets leave out empty cells at the end of a row, or add some.
        if len(cells) > len(head) and any(cell.strip() for cell in cells[len(head) :]):
            raise LabelError(
                f"{place(path, start)} has {len(cells)} cells, the head has {len(head)}: put a name that holds the "
                "separator into quotes."
            )
        numbers.append(start)
        rows.append(cells if len(cells) == len(head) else (cells + [""] * len(head))[: len(head)])
    if not head:
        raise LabelError(f"{path} is empty: its first line names the columns.")
    return pd.DataFrame(rows, columns=head, index=numbers, dtype=object)


def _separator(text: str) -> str:
    head = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    return max(_SEPARATORS, key=head.count)


def _head(path: Path, number: int, cells: Sequence[str]) -> list[str]:
    named = [cell.strip() for cell in cells]
    while named and not named[-1]:
        named.pop()
    twice = {name for name in named if name and named.count(name) > 1}
    if twice:
        raise LabelError(f"{place(path, number)} names the column {twice.pop()} twice: which of the two is meant?")
    return named


def _read_jsonl(path: Path) -> pd.DataFrame:
    numbers, rows = [], []
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LabelError(f"{place(path, number)} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise LabelError(f'{place(path, number)} is not a JSON object such as {{"video": "a.mp4", "mos": 50}}.')
        numbers.append(number)
        rows.append(row)
    return pd.DataFrame(rows, index=numbers, dtype=object)


def _read_mat(path: Path) -> pd.DataFrame:
    from scipy.io import loadmat

    columns = {
        name: value.ravel().tolist()
        for name, value in loadmat(path, chars_as_strings=True, squeeze_me=True).items()
        if not name.startswith("__") and getattr(value, "ndim", 2) < 2
    }
    return pd.DataFrame(columns)
