"""Label files as people really have them: each form is understood, or refused with the line, by every reader alike."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import dataset_layouts as layouts
import pandas as pd
import pytest
from datasets import load_dataset
from typer.testing import CliRunner

import dataset_builders
from dataset_builders.label_files import LabelError, read_table
from lmmvqa.commands.main import app
from lmmvqa.evaluation.rated_sets import SetSpec, read_set

GOOD = (
    "video,mos,split,content,family,kind\n0.mp4,10,train,p,codec,crf\n1.mp4,55,dev,q,spatial,blur\n"
    "2.mp4,90,test,p,codec,crf\n"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    dataset_builders.register()


@pytest.fixture
def own(tmp_path):
    layouts.touch(tmp_path / "own", ["0.mp4", "1.mp4", "2.mp4"])
    return tmp_path / "own"


def read(folder: Path, **options) -> pd.DataFrame:
    data = load_dataset("rated_videos", "score", data_dir=str(folder), strict=True, **options)
    return pd.concat([rows.to_pandas().assign(split=name) for name, rows in data.items()]).sort_values("id")


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "commas": ("ratings.csv", GOOD),
        "another name": ("labels.csv", GOOD),
        "semicolons": ("ratings.csv", GOOD.replace(",", ";")),
        "tabs in a .csv": ("ratings.csv", GOOD.replace(",", "\t")),
        "decimal commas": ("ratings.csv", GOOD.replace(",", ";").replace("10;", "10,0;").replace("90;", "90,00;")),
        "blank rows at the end": ("ratings.csv", GOOD + ",,,,,\r\n\r\n , ,\n"),
        "trailing separators": ("ratings.csv", GOOD.replace("\n", ",,\n")),
        "names with dots and blanks": (
            "ratings.csv",
            GOOD.replace("0.mp4", "./0.mp4").replace("1.mp4", '" 1.mp4"').replace("2.mp4", "x/../2.mp4 "),
        ),
        "backslashes": ("ratings.csv", GOOD.replace("0.mp4", ".\\0.mp4")),
        "splits in other words": (
            "ratings.csv",
            GOOD.replace("train", " Training").replace("dev", "VAL").replace("test", "Testing"),
        ),
        "byte order mark": ("ratings.csv", "\ufeff" + GOOD),
        "capital columns": ("ratings.csv", GOOD.replace("video,mos", "Video, MOS ")),
    }.values(),
)
def test_forms_that_mean_the_same(own, name, content):
    (own / name).write_text(content, newline="", encoding="utf-8")
    rows = read(own)
    assert rows.id.tolist() == ["0", "1", "2"] and rows.mos.tolist() == [10, 55, 90]
    assert rows.split.tolist() == ["train", "validation", "test"]
    assert rows[["content", "family", "kind"]].values.tolist() == [
        ["p", "codec", "crf"],
        ["q", "spatial", "blur"],
        ["p", "codec", "crf"],
    ]
    # Evaluation reads the same rows, from the same parser.
    (found,) = (row for row in read_set(SetSpec.parse(f"rated_videos={own}")) if row.id == "1")
    assert (found.content, found.parts, found.split) == ("q", {"family": "spatial", "kind": "blur"}, "validation")


@pytest.mark.parametrize("suffix", [".xlsx", ".mat", ".parquet", ".jsonl"])
def test_a_label_file_of_rubbish_is_told(tmp_path, suffix):
    path = tmp_path / f"labels{suffix}"
    for content in (bytes(200), b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + bytes(range(200)), b'"\xff\0,\n' * 9):
        path.write_bytes(content)
        with pytest.raises(LabelError, match=re.escape(str(path))):
            read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace("dev", "dev set"), r"line 3: 'dev set' in column split is not one of train, validation and test"),
        (GOOD.replace("55", "good"), r"line 3: 'good' in column mos is not a rating"),
        (GOOD.replace("1.mp4", ""), r"line 3 names no video"),
        (GOOD.replace("1.mp4", "a,b.mp4"), r"line 3 has 7 cells, the head has 6: put a name"),
        (GOOD.replace("kind", "mos"), r"line 1 names the column mos twice"),
        (GOOD.replace("0.mp4", '"0.mp4'), r"can't be read as a csv file"),
        ("\n\n", r"is empty"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "rated_videos={own}"],
        ["data", "build", "rated_videos={own}", "--out", "{out}"],
        ["evaluate", "--protocol", "ood", "--data", "rated_videos={own}", "--method", "niqe", "--output", "{out}"],
        ["train", "own_videos", "data=rated_videos={own}", "output_dir={out}", "use_cpu=true"],
        ["features", "own_videos", "data=rated_videos={own}", "output_dir={out}", "use_cpu=true"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_what_is_refused_is_refused_by_every_command_with_its_line(own, tmp_path, content, message, command):
    (own / "ratings.csv").write_text(content, newline="", encoding="utf-8")
    with pytest.raises(LabelError, match=message):
        load_dataset("rated_videos", "score", data_dir=str(own))
    result = CliRunner().invoke(app, [part.format(own=own, out=tmp_path / "out") for part in command])
    assert result.exit_code == 2, result.output
    said = " ".join(result.output.split())
    assert re.search(message, said) and "Traceback" not in said


def test_lines_are_counted_past_quotes_that_hold_line_ends(own):
    (own / "ratings.csv").write_text('video,mos,note\n0.mp4,10,"two\nlines"\n\n1.mp4,x,\n', encoding="utf-8")
    with pytest.raises(LabelError, match=r"ratings\.csv, line 5: 'x'"):
        read(own)


def test_a_line_that_is_no_json_is_named(own):
    (own / "ratings.jsonl").write_text('{"video": "0.mp4", "mos": 10}\n\n{"video": "1.mp4", "mos": 55\n')
    with pytest.raises(LabelError, match=r"ratings\.jsonl, line 3 is not JSON"):
        read(own)
    (own / "ratings.jsonl").write_text('{"video": "0.mp4", "mos": 10}\n\n{"video": "1.mp4", "mos": "x"}\n')
    with pytest.raises(LabelError, match=r"ratings\.jsonl, line 3: 'x'"):
        read(own)


def test_blank_rows_of_a_sheet_are_no_rows(tmp_path):
    frame = pd.DataFrame({"vid": ["a", None, "b", None], "MOS full": [3.0, None, "x", None]})
    frame.to_excel(tmp_path / "s.xlsx", index=False)
    table = read_table(tmp_path / "s.xlsx")
    assert table.vid.tolist() == ["a", "b"] and table.index.tolist() == [2, 4], "as the spreadsheet counts them"


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("Größe café", "latin-1"),
        ("Ålesund på høsten", "cp1252"),
        ("中文视频", "gbk"),
        ("中文视频 2", "gb18030"),
        ("naïve – 1", "cp1252"),
    ],
)
def test_encodings_are_told_apart(own, name, encoding, caplog):
    layouts.touch(own, [f"{name}.mp4"])
    (own / "ratings.csv").write_bytes(f"video,mos\n{name}.mp4,80\n0.mp4,10\n1.mp4,20\n2.mp4,30\n".encode(encoding))
    assert unicodedata.normalize("NFC", name) in read(own).id.tolist()
    assert "is not UTF-8" in caplog.text


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_file", ["NFC", "NFD"])
def test_names_match_however_their_accents_are_stored(tmp_path, on_disk, in_file):
    name = "Größe café"
    written, stored = unicodedata.normalize(in_file, name), unicodedata.normalize(on_disk, name)
    own = tmp_path / "own"
    layouts.touch(own, [f"{stored}.mp4"])
    (own / "ratings.csv").write_text(f"video,mos\n{written}.mp4,80\n", encoding="utf-8")
    rows = read(own)
    assert rows.id.tolist() == [name] and Path(rows.video.iloc[0]["path"]).is_file()
    gaming = tmp_path / "gaming"
    layouts.touch(gaming, [f"{stored}-001.mp4"])
    (gaming / "LIVE-YT-Gaming.csv").write_text(f"name,mos\n{written}-001,80\n", encoding="utf-8")
    assert load_dataset("live_yt_gaming", "score", data_dir=str(gaming), strict=True)["train"]["id"][:] == [
        f"{name}-001"
    ]


# Scales


SCALED = "video,mos\n0.mp4,1.2\n1.mp4,3\n2.mp4,4.6\n"


@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "rated_videos={own}"],
        ["data", "build", "rated_videos={own}", "--out", "{out}"],
        ["evaluate", "--protocol", "ood", "--data", "rated_videos={own}", "--method", "niqe", "--output", "{out}"],
        ["train", "own_videos", "data=rated_videos={own}", "output_dir={out}", "use_cpu=true"],
        ["features", "own_videos", "data=rated_videos={own}", "output_dir={out}", "use_cpu=true"],
        ["ablate", "{grid}", "--data", "rated_videos={own}", "--output", "{out}"],
        ["calibrate", "{own}", "--data", "rated_videos={own}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_ratings_far_from_the_scale_stop_every_command(own, tmp_path, command):
    (own / "ratings.csv").write_text(SCALED)
    grid = tmp_path / "grid.yaml"
    grid.write_text("recipe: own_videos\ndata: rated_videos=.\nprotocol: ood\ntables: {a: {b: {}}}\n")
    result = CliRunner().invoke(app, [part.format(own=own, out=tmp_path / "out", grid=grid) for part in command])
    said = " ".join(result.output.split())
    assert result.exit_code == 2, result.output
    assert "all 3 ratings lie between 1.2 and 4.6" in said
    assert "add --scale 1 5 to the command" in said and "`data_options: {scale: [1, 5]}`" in said


@pytest.mark.parametrize(
    ("mos", "ends"), [([0.1, 0.7], "0 1"), ([1, 5], "1 5"), ([0.5, 4], "0 5"), ([2, 9], "1 10"), ([-0.5, 0.5], "-1 1")]
)
def test_the_scale_that_is_proposed_holds_the_ratings(own, mos, ends):
    (own / "ratings.csv").write_text("video,mos\n" + "".join(f"{i}.mp4,{value}\n" for i, value in enumerate(mos)))
    with pytest.raises(LabelError, match=rf"add --scale {ends} to"):
        load_dataset("rated_videos", "score", data_dir=str(own))


def test_a_scale_that_is_stated_is_believed(own):
    (own / "ratings.csv").write_text(SCALED)
    assert read(own, scale=(1, 5)).score.tolist() == pytest.approx([5, 50, 90])
    assert read(own, scale=(0, 100)).score.tolist() == pytest.approx([1.2, 3, 4.6])
    (own / "ratings.csv").write_text("video,mos,scale\n0.mp4,1.2,1-5\n1.mp4,3,1-5\n2.mp4,4.6,1-5\n")
    assert read(own).score.tolist() == pytest.approx([5, 50, 90])


def test_other_sets_with_ratings_of_another_scale_are_refused(tmp_path):
    root = layouts.live_vqc(tmp_path, layouts.numbered(9, "A{:03}", 1, 5))
    with pytest.raises(LabelError, match="are these the labels of this set"):
        load_dataset("live_vqc", "score", data_dir=str(root))


@pytest.mark.parametrize(
    ("scale", "said", "unsaid"),
    [
        (("1", "5"), "good above a rating of 3, fair above 1.2", "scores are 0 to 100"),
        (("0", "100"), "good above a score of 3, fair above 1.2, else poor (scores are 0 to 100)", "ratings count"),
    ],
)
def test_check_speaks_in_the_units_of_its_bins(own, scale, said, unsaid):
    (own / "ratings.csv").write_text(SCALED)
    result = CliRunner().invoke(app, ["data", "check", f"rated_videos={own}", "--no-read-videos", "--scale", *scale])
    output = " ".join(result.output.split())
    assert result.exit_code == 0 and said in output and unsaid not in output
    assert "1.20 to 1.54" in output, "bins are of the ratings"


def test_check_counts_scores_where_rows_have_scales_of_their_own(own):
    (own / "ratings.csv").write_text("video,mos,scale\n0.mp4,1,1-5\n1.mp4,50,\n2.mp4,10,0-10\n")
    result = CliRunner().invoke(app, ["data", "check", f"rated_videos={own}", "--no-read-videos"])
    assert result.exit_code == 0, result.output
    assert "0.00 to 10.00" in result.output and "90.00 to 100.00" in result.output


# Benchmarks' own label files


def test_labels_as_benchmarks_pass_them_on(tmp_path):
    lines = [f"Video/A{n:03}.mp4, -1, -1, {10 + n}" for n in range(9)]
    layouts.touch(tmp_path, [f"Video/A{n:03}.mp4" for n in range(9)])
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n\n")
    rows = load_dataset("live_vqc", "score", data_dir=str(tmp_path), strict=True)["train"]
    assert rows["id"][:2] == ["A000", "A001"] and rows["mos"][8] == 18
    assert rows["fold"][0] is None, "the protocol's folds rest on the order of the owners' file"
    (tmp_path / "labels.txt").write_text("\n".join([*lines, "Video/A009.mp4, 3"]))
    with pytest.raises(LabelError, match=r"labels\.txt, line 10 is not `path, length, frame rate, rating`"):
        load_dataset("live_vqc", "score", data_dir=str(tmp_path))


def test_lsvq_from_the_three_files_of_benchmarks(tmp_path):
    for name, first in (("train", 0), ("test", 40), ("test_1080p", 50)):
        numbers = range(first, first + (40 if name == "train" else 10))
        layouts.touch(tmp_path, [f"yfcc-batch1/{n}.mp4" for n in numbers])
        (tmp_path / f"{name}_labels.txt").write_text(
            "".join(f"yfcc-batch1/{n}.mp4, -1, -1, {n + 5}\n" for n in numbers)
        )
    data = load_dataset("lsvq", "score", data_dir=str(tmp_path), strict=True)
    assert {name: len(rows) for name, rows in data.items()} == {
        "train": 36,
        "validation": 4,
        "test": 10,
        "test_1080p": 10,
    }
    assert data["test"]["id"][0] == "yfcc-batch1/40"


def test_exported_sets_hold_what_their_videos_are_copies_of(own, tmp_path):
    (own / "ratings.csv").write_text(GOOD)
    result = CliRunner().invoke(app, ["data", "build", f"rated_videos={own}", "--out", str(tmp_path / "o")])
    assert result.exit_code == 0, result.output
    rows = {row.id: row for row in read_set(SetSpec.parse(str(tmp_path / "o")))}
    assert rows["1"].content == "q" and rows["0"].parts == {"family": "codec", "kind": "crf"}
    assert "`content`, `family`, `kind`" in (tmp_path / "o" / "README.md").read_text()


def test_a_rating_without_a_bound_is_none(own):
    (own / "ratings.csv").write_text(GOOD.replace("55", "inf"))
    with pytest.raises(LabelError, match="line 3: inf is no rating"):
        read_set(SetSpec.parse(f"rated_videos={own}"))
