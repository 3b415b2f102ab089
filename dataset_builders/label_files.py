"""Files as the owners of video sets release them: what lies in a folder, and label tables in all their forms.

Paths below a folder are handled here and as plain text: inside the modules of builders the library replaces `Path` and
`os.path` by versions that also know URLs, which takes seconds for the 38,815 files of LSVQ.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from processing.errors import LmmVqaError
from processing.video_names import is_video

_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".xlsx", ".mat")


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
    """`A001` of `A001.mp4`; names may hold other dots, so only a video's suffix is taken off."""
    return os.path.splitext(name)[0] if is_video(name) else name


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


def read_table(path: Path, sheet: str | None = None) -> pd.DataFrame:
    """A label file as a table. Cells of text formats are text, so that names made of digits stay names.

    Args:
        path: CSV or TSV (UTF-8 with or without BOM, GBK; any line end), JSONL, Parquet, XLSX, or MATLAB file
            (version 7 or older) whose columns are its (n, 1) arrays and cells.
        sheet: the sheet of an XLSX file.

    Raises:
        LabelError: the file can't be read in the form that its suffix promises.
    """
    suffix = path.suffix.lower()
    try:
        match suffix:
            case ".csv" | ".tsv":
                text = _decoded(path.read_bytes())
                separator = "\t" if suffix == ".tsv" else ","
                return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
            case ".jsonl":
                return pd.read_json(path, lines=True, dtype=False)
            case ".parquet":
                return pd.read_parquet(path)
            case ".xlsx":
                return pd.read_excel(path, sheet_name=sheet or 0)
            case ".mat":
                return _read_mat(path)
            case _:
                raise ValueError("a label file is a CSV, TSV, JSONL, Parquet, XLSX or MATLAB file")
    except (ValueError, UnicodeDecodeError, NotImplementedError, ImportError) as error:
        raise LabelError(f"{path} can't be read as a {suffix[1:]} file: {error}") from error


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
    """The ratings in a column; an empty cell gives NaN.

    Raises:
        LabelError: there is no such column, or a cell holds something else than a number.
    """
    cells = column(table, path, name)
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    bad = cells[numbers.isna() & cells.notna() & (cells.astype(str).str.strip() != "")]
    if len(bad):
        raise LabelError(f"{path}: {bad.iloc[0]!r} in row {bad.index[0] + 1} of column {cells.name} is not a rating.")
    return numbers.tolist()


def names_and_ratings(
    table: pd.DataFrame, path: Path, names: str | tuple[str, ...], mos: str = "mos"
) -> list[tuple[str, float]]:
    """Names and ratings of a table, in its order; rows without a name are blank rows.

    Raises:
        LabelError: a column is missing, or a rating is no number.
    """
    cells = column(table, path, *([names] if isinstance(names, str) else names))
    rows = zip(cells, ratings_of(table, path, mos), strict=True)
    return [(str(name).strip(), rating) for name, rating in rows if not (pd.isna(name) or not str(name).strip())]


def _decoded(data: bytes) -> str:
    # GB18030 holds GBK; copies of LSVQ's labels went through spreadsheets of Chinese systems.
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("its text is neither UTF-8 nor GBK")


def _read_mat(path: Path) -> pd.DataFrame:
    from scipy.io import loadmat

    columns = {
        name: value.ravel().tolist()
        for name, value in loadmat(path, chars_as_strings=True, squeeze_me=True).items()
        if not name.startswith("__") and getattr(value, "ndim", 2) < 2
    }
    return pd.DataFrame(columns)
