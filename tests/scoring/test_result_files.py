"""Result files against what readers of their formats make of them, and against being killed at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from lmmvqa.scoring.result_files import ResultFile

SUFFIXES = (".csv", ".jsonl", ".parquet")
READERS = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}


def read(path):
    return READERS[path.suffix](path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_back_as_other_readers_see_them(suffix, tmp_path):
    path = tmp_path / "deep" / f"results{suffix}"
    rows = [
        {"path": 'a\n"b", c.mp4', "score": None, "interval": None, "error": "broken,\nvery"},
        {"path": "ümlaut.mp4", "score": 71.25, "interval": [60, 80.5], "error": None},
    ]
    with ResultFile(path) as results:
        for row in rows:
            results.append(row)
        assert "ümlaut.mp4" in results and "other.mp4" not in results and len(results) == 2
    table = read(path)
    assert list(table["path"]) == [row["path"] for row in rows]
    assert pd.isna(table["score"][0]) and table["score"][1] == 71.25
    interval = table["interval"][1]
    assert list(json.loads(interval) if suffix == ".csv" else interval) == [60, 80.5]
    # Nothing but the file is left.
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_run_goes_on_and_keeps_every_key_once(suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    for run in range(3):
        with ResultFile(path, key="id") as results:
            assert [int(row["id"]) for row in results.rows()] == list(range(run * 10))
            for number in range((run + 1) * 10):
                if number not in results:
                    results.append({"id": number, "value": {"low": number / 4, "word": None if run == 0 else "w"}})
            with pytest.raises(ValueError, match="already has a row"):
                results.append({"id": 3, "value": {"low": 0.0, "word": None}})
    table = read(path)
    assert list(table["id"]) == list(range(30))
    low = table["value_low"] if suffix == ".csv" else table["value"].map(lambda value: value["low"])
    assert list(low) == [number / 4 for number in range(30)]


def test_a_name_that_is_not_utf_8_leaves_the_file_readable(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    for suffix in SUFFIXES:
        path = tmp_path / f"results{suffix}"
        for _ in range(2):
            with ResultFile(path) as results:
                if name not in results:
                    results.append({"path": name, "error": f"{name} is empty"})
        assert list(read(path)["path"]) == ["caf\\xe9.mp4"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_row_torn_at_any_byte_is_dropped_and_no_other(suffix, tmp_path):
    rows = [{"path": f'clip "{number}",\nsecond line ü.mp4', "score": number / 3} for number in range(3)]
    results = ResultFile(tmp_path / f"whole{suffix}")
    for row in rows:
        results.append(row)
    growing = results._growing.read_bytes()
    results.close()
    for length in range(len(growing)):
        path = tmp_path / f"torn{suffix}"
        path.unlink(missing_ok=True)
        torn = path.with_name(path.name + ".journal.jsonl") if suffix == ".parquet" else path
        torn.write_bytes(growing[:length])
        with ResultFile(path) as again:
            kept = len(again)
            for row in rows:
                if row["path"] not in again:
                    again.append(row)
        assert kept == max(n for n in range(4) if _length(rows[:n], suffix) <= length)
        assert list(read(path)["path"]) == [row["path"] for row in rows]


def _length(rows, suffix):
    """Bytes of these rows as the library of the format writes them."""
    if not rows:
        return 0
    frame = pd.DataFrame(rows)
    if suffix == ".csv":
        return len(frame.to_csv(index=False).encode())
    return sum(len(json.dumps(row)) + 1 for row in rows)


def test_columns_that_come_late_and_types_that_part(tmp_path):
    path = tmp_path / "results.parquet"
    with ResultFile(path, key="id") as results:
        results.append({"id": "a", "level": None, "count": 1})
        results.append({"id": "b", "level": {"good": 0.5}, "count": 2.5, "note": "late"})
    assert read(path)["note"].isna().tolist() == [True, False]
    results = ResultFile(path, key="id")
    results.append({"id": "c", "count": "many"})
    with pytest.raises(ValueError, match=r"results\.parquet.*journal"):
        results.close()
    assert (tmp_path / "results.parquet.journal.jsonl").read_text().startswith('{"id": "c"')
    with (
        ResultFile(tmp_path / "results.csv", columns=["path", "score"]) as results,
        pytest.raises(ValueError, match="no column for level"),
    ):
        results.append({"path": "a", "level": "good"})


def test_files_that_are_not_ours_are_left_alone(tmp_path):
    with pytest.raises(ValueError, match=r"\.csv, \.jsonl or \.parquet"):
        ResultFile(tmp_path / "results.xlsx")
    foreign = tmp_path / "notes.csv"
    foreign.write_text("title,text\na,b\n")
    with pytest.raises(ValueError, match="no 'path'"):
        ResultFile(foreign)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"path": "a"}\nnonsense\n')
    with pytest.raises(ValueError, match=r"Line 2 of .*broken\.jsonl"):
        ResultFile(broken)
    assert foreign.read_text() == "title,text\na,b\n" and broken.read_text().endswith("nonsense\n")


def test_two_programs_cannot_write_one_file(tmp_path):
    path = tmp_path / "results.parquet"
    with ResultFile(path), pytest.raises(OSError, match="another program"):
        ResultFile(path)
    ResultFile(path).close()


# It calls itself by the name of the command, which imports no torch.
WRITER = """
import sys
_, path, count = sys.argv
sys.argv[0] = "lmmvqa"
from lmmvqa.scoring.result_files import ResultFile
with ResultFile(path, key="id") as results:
    print("open", flush=True)
    for number in range(int(count)):
        if number not in results:
            results.append({"id": number, "text": "line\\n" * (number % 50), "value": {"x": number}})
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sigkill_at_random_moments_loses_nothing(suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    count, seen, partial = 20_000, 0, 0
    command = [sys.executable, "-c", WRITER, str(path), str(count)]
    draw = random.Random(0)
    for _ in range(8):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(draw.uniform(0, 0.03))
            writer.send_signal(signal.SIGKILL)
        with ResultFile(path, key="id") as results:
            found = [int(row["id"]) for row in results.rows()]
        assert found == list(range(len(found))) and len(found) >= seen
        seen = len(found)
        partial += 0 < seen < count
    assert partial, "no kill came in the middle"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert list(read(path)["id"]) == list(range(count))
