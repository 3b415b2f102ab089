"""Result files against what readers of their formats make of them, and against kills, races, moves and full disks."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pandas as pd
import pytest

from lmmvqa.scoring.result_files import SUFFIXES, ResultFile, ResultFileError, stored_rows

READERS = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}
COLUMNS = {
    "path": "string",
    "score": "float64",
    "interval": "list<float64>",
    "warnings": "list<string>",
    "error": "string",
}
# Names that break tables, and how spreadsheets get those that they would run.
NAMES = [
    'a\n"b", c.mp4',
    "ümlaut.mp4",
    "lone\rreturn.mp4",
    "=1+2.mp4",
    "'=quoted.mp4",
    "-o.mp4",
    "@home.mp4",
    "+1.mp4",
    "\ttab.mp4",
    os.fsdecode(b"caf\xe9.mp4"),
    "caf\\xe9.mp4",
    os.fsdecode(b"\\\xe9.mp4"),
    "\\\\xe9.mp4",
]


def read(path):
    return READERS[path.suffix](path)


def good(path, score=71.25):
    return {"path": path, "score": score, "interval": [60, 80.5], "warnings": ["dark"], "error": None}


def bad(path):
    return {"path": path, "error": f"{path} is broken,\nvery"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_back_as_other_readers_see_them(suffix, tmp_path):
    path = tmp_path / "deep" / f"results{suffix}"
    with ResultFile(path, COLUMNS) as results:
        results.append(bad('a\n"b", c.mp4'))
        results.append(good("ümlaut.mp4"))
        assert "ümlaut.mp4" in results and "other.mp4" not in results and len(results) == 2
    table = read(path)
    assert list(table) == list(COLUMNS) and list(table["path"]) == ['a\n"b", c.mp4', "ümlaut.mp4"]
    assert pd.isna(table["score"][0]) and table["score"][1] == 71.25
    for column, expected in (("interval", [60, 80.5]), ("warnings", ["dark"])):
        value = table[column][1]
        assert list(json.loads(value) if suffix == ".csv" else value) == expected
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_names_are_told_apart_over_many_runs(suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    for _ in range(3):
        with ResultFile(path, COLUMNS) as results:
            for name in NAMES:
                if name not in results:
                    results.append(bad(name))
            rows = list(results.rows())
        assert len(rows) == len(NAMES) == len(read(path))
    assert rows[0]["path"] == NAMES[0] and rows[3]["path"] == "=1+2.mp4"
    assert [row["path"] for row in rows[-4:]] == ["caf\\xe9.mp4", "caf\\\\xe9.mp4", "\\\\\\xe9.mp4", "\\\\\\\\xe9.mp4"]
    path.read_text(encoding="utf-8") if suffix != ".parquet" else None


def test_a_spreadsheet_runs_nothing_of_a_csv(tmp_path):
    path = tmp_path / "results.csv"
    with ResultFile(path, COLUMNS) as results:
        for name in NAMES:
            results.append(good(name, -1.5))
    cells = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="score").stack()
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert pd.read_csv(path)["score"].eq(-1.5).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_run_goes_on_and_keeps_every_key_once(suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    columns = {"id": "string", "value": "float64", "word": "string"}
    for run in range(3):
        with ResultFile(path, columns) as results:
            assert [row["id"] for row in results.rows()] == [str(number) for number in range(run * 10)]
            for number in range((run + 1) * 10):
                if str(number) not in results:
                    results.append({"id": str(number), "value": number / 4, "word": None if run == 0 else "w"})
            with pytest.raises(ResultFileError, match="already has a row"):
                results.append({"id": "3"})
    table = read(path)
    assert list(table["id"].astype(str)) == [str(number) for number in range(30)]
    assert list(table["value"]) == [number / 4 for number in range(30)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_row_torn_at_any_byte_is_dropped_and_no_other(suffix, tmp_path):
    columns = {"path": "string", "score": "float64"}
    rows = [{"path": f'clip "{number}",\nsecond line ü.mp4', "score": number / 3} for number in range(3)]
    results = ResultFile(tmp_path / f"whole{suffix}", columns)
    for row in rows:
        results.append(row)
    growing = results._growing.read_bytes()
    results.close()
    for length in range(len(growing)):
        path = tmp_path / f"torn{suffix}"
        path.unlink(missing_ok=True)
        torn = path.with_name(path.name + ".journal.jsonl") if suffix == ".parquet" else path
        torn.write_bytes(growing[:length])
        # Reading alone changes nothing.
        assert len(list(stored_rows(path, columns))) == _whole(rows, suffix, length)
        assert torn.read_bytes() == growing[:length]
        with ResultFile(path, columns) as again:
            kept = len(again)
            for row in rows:
                if row["path"] not in again:
                    again.append(row)
        assert kept == _whole(rows, suffix, length)
        assert list(read(path)["path"]) == [row["path"] for row in rows]


def _whole(rows, suffix, length):
    """How many of these rows are in so many bytes, by the libraries of the formats. What is JSON is whole without the
    end of its line."""
    if suffix == ".csv":
        return max(n for n in range(4) if (n and len(pd.DataFrame(rows[:n]).to_csv(index=False).encode())) <= length)
    return max(n for n in range(4) if sum(len(json.dumps(row)) + 1 for row in rows[:n]) - bool(n) <= length)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_has_the_same_types_whatever_is_in_it(suffix, tmp_path):
    """Of clean videos, of broken ones, and of both."""
    tables = []
    for number, rows in enumerate(([good("a")], [bad("b")], [good("c", 5), bad("d")])):
        path = tmp_path / f"{number}{suffix}"
        with ResultFile(path, COLUMNS) as results:
            for row in rows:
                results.append(row)
            assert [type(row["score"]) for row in results.rows() if row["score"] is not None] in ([float], [])
        tables.append(read(path))
    together = pd.concat(tables)
    assert list(together["path"]) == list("abcd") and list(together["score"].dropna()) == [71.25, 5.0]
    assert together["error"].notna().sum() == 2 and all(list(table) == list(COLUMNS) for table in tables)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_data_sets_read_clean_and_broken_runs_together(suffix, tmp_path):
    """Parquet as it is; CSV and JSONL by pandas, as docs/bulk.md says."""
    from datasets import Dataset, load_dataset

    files = []
    for number, rows in enumerate(([good("a")], [bad("b")], [good("c"), bad("d")])):
        files.append(tmp_path / f"{number}{suffix}")
        with ResultFile(files[-1], COLUMNS) as results:
            for row in rows:
                results.append(row)
    for order in (files, files[::-1]):
        if suffix == ".parquet":
            data = load_dataset("parquet", data_files=[*map(str, order)], cache_dir=str(tmp_path / "cache"))["train"]
        else:
            data = Dataset.from_pandas(pd.concat(map(READERS[suffix], order), ignore_index=True))
        assert sorted(data["path"]) == list("abcd")
        assert (data.features["error"].dtype, data.features["score"].dtype) == ("string", "float64")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_first_row_names_columns_with_a_star(suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    columns = {"path": "string", "level": "string", "probability_*": "float64", "error": "string"}
    for name in "ab":
        with ResultFile(path, columns) as results:
            results.append({"path": name, "level": None, "probability_bad": 0.25, "probability_good": None})
    with ResultFile(path, columns) as results, pytest.raises(ResultFileError, match="no column for probability_other"):
        results.append({"path": "c", "probability_other": 0.5})
    assert list(read(path)) == ["path", "level", "probability_bad", "probability_good", "error"]
    assert [row["probability_bad"] for row in stored_rows(path, columns)] == [0.25, 0.25]
    with pytest.raises(ResultFileError, match="holds no results of this kind"):
        ResultFile(path, {"path": "string", "level": "string", "chance_*": "float64", "error": "string"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "a", "level": "good"}, "no column for level"),
        ({"path": "a", "score": "good"}, "score is 'good', which is no float64"),
        ({"path": "a", "score": float("nan")}, "no number that a file can hold"),
        ({"path": "a", "warnings": "dark"}, "warnings is 'dark', which is no list"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(row, message, tmp_path):
    for suffix in SUFFIXES:
        with (
            ResultFile(tmp_path / f"results{suffix}", COLUMNS) as results,
            pytest.raises(ResultFileError, match=message),
        ):
            results.append(row)
    # Nothing was written, so nothing is there.
    assert os.listdir(tmp_path) == []


LINES = "".join(f"video{number}.mp4,{number}\n" for number in range(1000))
ROW = json.dumps(good("a.mp4"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.csv", "title,text\na,b\n", "its columns are title, text"),
        ("ratings.csv", "path,mos\na.mp4,3\nb.mp4,4", "its columns are path, mos"),
        ("quote.csv", f'path,mos\n"video.mp4,3\n{LINES}', "its columns are path, mos"),
        (
            "ours_but_for_a_quote.csv",
            'path,score,interval,warnings,error\nb,1.0,,,\n"a,2.0,,,\nc,3.0,,,\nd,4.0,,,\n',
            "quotation mark",
        ),
        (
            "two_quotes.csv",
            'path,score,interval,warnings,error\n"a,2.0,,,\nc,3.0,,,\n"d,4.0,,,\n',
            "Line 4 .*is damaged",
        ),
        ("twice.csv", "path,score,interval,warnings,error\na,1.0,,,\na,2.0,,,\n", "two rows for path 'a'"),
        ("semicolons.csv", "path;score;interval;warnings;error\na;1.0;;;\n", "its columns are path;score"),
        ("word.csv", "path,score,interval,warnings,error\na,good,,,\n", "Line 2 .*is damaged"),
        ("nothing_ended.csv", "a" * 50, "begins with 'aaa"),
        ("binary.csv", "\0\r\x01" * 500, "begins with|its columns are"),
        ("other.jsonl", '{"path": "a.mp4", "mos": 3}', "last line is"),
        ("other_ended.jsonl", '{"path": "a.mp4", "mos": 3}\n', "line 1 is"),
        ("words.jsonl", "no JSON at all", "ends with 'no JSON"),
        ("list.jsonl", "[1, 2]", "last line is"),
        ("broken.jsonl", f"{ROW}\nnonsense\n{ROW}\n", r"Line 2 of .*broken\.jsonl is not JSON"),
        ("pretty.jsonl", '{\n  "path": "a"\n', "Line 1 of .* is not JSON"),
        ("words.parquet", "no Parquet", "can't be read as Parquet"),
        ("results.parquet.journal.jsonl", "my own notes", "ends with 'my own"),
    ],
)
def test_a_file_that_is_not_ours_is_left_as_it_was(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content.encode())
    before = path.stat()
    with pytest.raises(ResultFileError, match=message) as error:
        ResultFile(tmp_path / name.removesuffix(".journal.jsonl"), COLUMNS)
    assert name in str(error.value)
    assert path.read_bytes() == content.encode() and path.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == [name]


def test_tables_and_things_that_are_not_ours_are_left_alone(tmp_path):
    with pytest.raises(ResultFileError, match=r"\.csv, \.jsonl or \.parquet"):
        ResultFile(tmp_path / "results.xlsx", COLUMNS)
    other = tmp_path / "other.parquet"
    pd.DataFrame({"path": ["a"], "mos": [3]}).to_parquet(other)
    before = other.read_bytes()
    with pytest.raises(ResultFileError, match=r"its columns are path \(.*\), mos"):
        ResultFile(other, COLUMNS)
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("folder.csv", "pipe.csv"):
        with pytest.raises(ResultFileError, match="is no file"):
            ResultFile(tmp_path / name, COLUMNS)
    assert other.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["folder.csv", "other.parquet", "pipe.csv"]


def test_a_table_whose_pages_are_damaged_is_left_as_it_was(tmp_path):
    path = tmp_path / "results.parquet"
    with ResultFile(path, COLUMNS) as results:
        for number in range(50):
            results.append(good(f"{number}.mp4"))
    content = path.read_bytes()
    damaged = content[:4] + bytes(200) + content[204:]
    path.write_bytes(damaged)
    with pytest.raises(ResultFileError, match="can't be read as Parquet"):
        ResultFile(path, COLUMNS)
    assert path.read_bytes() == damaged


def test_an_empty_file_is_taken_and_a_link_stays_one(tmp_path):
    for suffix in SUFFIXES:
        path, link = tmp_path / f"results{suffix}", tmp_path / f"link{suffix}"
        path.touch()
        link.symlink_to(path)
        with ResultFile(link, COLUMNS) as results:
            results.append(good("a"))
        assert link.is_symlink() and list(read(path)["path"]) == ["a"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_are_taken_out_in_one_step(suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    with ResultFile(path, COLUMNS) as results:
        for number in range(6):
            results.append(bad(str(number)) if number % 2 else good(str(number)))
    path.chmod(0o640)
    with ResultFile(path, COLUMNS) as results:
        results.append(bad("6"))
        assert results.drop(lambda row: row["error"] is not None) == 4 and "1" not in results
        with pytest.raises(ResultFileError, match="another program"):
            ResultFile(path, COLUMNS)
        results.append(good("1"))
        assert results.drop(lambda row: False) == 0
    assert [str(name) for name in read(path)["path"]] == ["0", "2", "4", "1"]
    assert path.stat().st_mode & 0o777 == 0o640 and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("harm", ["removed", "renamed", "replaced", "emptied", "grown"])
def test_a_file_that_is_taken_away_in_mid_run_is_noticed(suffix, harm, tmp_path):
    path = tmp_path / f"results{suffix}"
    results = ResultFile(path, COLUMNS)
    results.append(good("a"))
    growing = results._growing
    if harm == "removed":
        growing.unlink()
    elif harm == "renamed":
        growing.rename(tmp_path / "elsewhere")
    elif harm == "replaced":
        (tmp_path / "new").write_bytes(growing.read_bytes())
        (tmp_path / "new").replace(growing)
    elif harm == "emptied":
        os.truncate(growing, 0)
    else:
        with growing.open("ab") as file:
            file.write(b"more\n")
    left = growing.read_bytes() if growing.exists() else None
    with pytest.raises(ResultFileError, match="removed, renamed or changed by another program"):
        results.append(good("b"))
    with pytest.raises(ResultFileError, match="removed, renamed or changed by another program"):
        results.close()
    # What another program put there is not ours to change.
    assert not growing.exists() if left is None else not growing.exists() or growing.read_bytes() == left


def test_rows_that_went_with_a_parquet_file_are_missed(tmp_path):
    path = tmp_path / "results.parquet"
    with ResultFile(path, COLUMNS) as results:
        results.append(good("a"))
    results = ResultFile(path, COLUMNS)
    results.append(good("b"))
    path.unlink()
    with pytest.raises(ResultFileError, match="has 1 rows of 2"):
        results.close()
    assert list(read(path)["path"]) == ["b"]


def _small_files(size: int):
    """In the process that calls it, files can't grow beyond a size: as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_said_and_costs_no_row(suffix, tmp_path):
    path = tmp_path / f"results{suffix}"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.getsignal(signal.SIGXFSZ)
    try:
        _small_files(2000)
        with (
            pytest.raises(ResultFileError, match=r"can't be written|disk .*full") as error,
            ResultFile(path, COLUMNS) as results,
        ):
            for number in range(1000):
                results.append(good(str(number)))
        assert str(path) in str(error.value) and "JSON" not in str(error.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        signal.signal(signal.SIGXFSZ, before)
    with ResultFile(path, COLUMNS) as results:
        kept = len(results)
        assert kept > 10
        for number in range(kept, 100):
            results.append(good(str(number)))
    assert [int(name) for name in read(path)["path"]] == list(range(100)) and os.listdir(tmp_path) == [path.name]


def test_two_programs_cannot_write_one_file(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"results{suffix}"
        with ResultFile(path, COLUMNS), pytest.raises(ResultFileError, match="another program"):
            ResultFile(path, COLUMNS)
        ResultFile(path, COLUMNS).close()


RACED = {"id": "string", "value": "float64"}


def _starter(path, rounds, hold, step, told):
    """Opens at each signal; who gets the file holds it, with `hold`, until the other has tried."""
    for number in range(rounds):
        step.wait()
        results = None
        try:
            results = ResultFile(_place(path, number), RACED)
            told.put("won")
        except ResultFileError as error:
            told.put(f"refused: {error}")
        if hold:
            step.wait()
        if results is not None:
            with results:
                for row in range(_rows(number)):
                    if str(row) not in results:
                        results.append({"id": str(row), "value": row / 3})
        step.wait()


def _place(path, number):
    """Ten rounds write one file, with more rows each time."""
    return path.with_name(f"{number // 10}{path.name}")


def _rows(number):
    return 3 + number % 10


def _race(path, rounds, hold):
    """Two starts at one moment, again and again; what each was told in each round."""
    context = multiprocessing.get_context("fork")
    step, told, outcomes = context.Barrier(3), context.SimpleQueue(), []
    runs = [context.Process(target=_starter, args=(path, rounds, hold, step, told), daemon=True) for _ in range(2)]
    for run in runs:
        run.start()
    for number in range(rounds):
        step.wait(60)
        if hold:
            step.wait(60)
        step.wait(60)
        outcomes.append(sorted((told.get(), told.get())))
        place = _place(path, number)
        whole = [row["id"] for row in stored_rows(place, RACED)]
        assert sorted(whole, key=int) == [str(row) for row in range(_rows(number))]
        assert list(read(place)["id"].astype(str)) == whole
        assert os.listdir(path.parent) == [place.name]
        if number % 10 == 9:
            place.unlink()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    for file in path.parent.iterdir():
        file.unlink()
    return outcomes


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_of_two_runs_that_start_together_one_wins_and_the_file_is_whole(suffix, tmp_path):
    _check_races(tmp_path / f"results{suffix}", 12)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_thousand_starts_of_two_runs_together(suffix, tmp_path):
    _check_races(tmp_path / f"results{suffix}", 1000)


def _check_races(path, rounds):
    for refused, won in _race(path, rounds, hold=True):
        assert won == "won" and refused.startswith("refused:") and "another program" in refused
    # Without waiting, one may be through before the other opens; who is refused is told so, and no row is lost.
    for outcome in _race(path, rounds, hold=False):
        assert "won" in outcome and all(said == "won" or "another program" in said for said in outcome)


# Where the command's module is there first, the package imports no torch.
WRITER = """
import sys
import lmmvqa_command
_, path, count = sys.argv
from lmmvqa.scoring.result_files import ResultFile
with ResultFile(path, {"id": "string", "text": "string", "value": "float64"}) as results:
    print("open", flush=True)
    for number in range(int(count)):
        if str(number) not in results:
            results.append({"id": str(number), "text": "line\\n" * (number % 50) or None, "value": number / 3})
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
        found = [int(row["id"]) for row in stored_rows(path, {"id": "string", "text": "string", "value": "float64"})]
        assert found == list(range(len(found))) and len(found) >= seen
        seen = len(found)
        partial += 0 < seen < count
    assert partial, "no kill came in the middle"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert [int(number) for number in read(path)["id"]] == list(range(count))
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_interrupts_at_any_moment_leave_a_whole_file(suffix, tmp_path):
    """Several Ctrl-C one after the other, also while the file is being finished."""
    path = tmp_path / f"results{suffix}"
    command = [sys.executable, "-c", WRITER, str(path), "5000"]
    draw = random.Random(1)
    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
            writer.stdout.readline()
            for _ in range(3):
                time.sleep(draw.uniform(0, 0.02))
                with suppress(ProcessLookupError):
                    writer.send_signal(signal.SIGINT)
        found = [int(row["id"]) for row in stored_rows(path, {"id": "string", "text": "string", "value": "float64"})]
        assert found == list(range(len(found)))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert [int(number) for number in read(path)["id"]] == list(range(5000)) and os.listdir(tmp_path) == [path.name]
