"""The report: every table of the paper from shipped figures, our runs beside them where they may stand there, and
nothing that says more than it should."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import dataset_layouts as layouts
import numpy as np
import pytest
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.evaluation import protocols
from lmmvqa.evaluation.figures import scatter
from lmmvqa.evaluation.published import FILE, read_published
from lmmvqa.evaluation.report import write_report
from lmmvqa.evaluation.report_tables import GridTable
from processing.quality_prompts import LEVELS

PAPER = Path(layouts.LABELS).parent / "facts" / "paper_tables.csv"
PUBLISHED = read_published()


def paper_rows() -> list[tuple]:
    keys = ("table", "method", "trained_on", "tested_on", "figure", "value")
    with FILE.open(encoding="utf-8", newline="") as file:
        return [tuple(row[key] for key in keys) for row in csv.DictReader(file) if row["source"] == "paper"]


def test_every_figure_that_the_paper_prints_ships_with_the_package():
    rows = paper_rows()
    counts = Counter(row[0].split()[0] for row in rows)
    assert counts == {"I": 60, "III": 48, "IV": 84, "V": 62, "VI": 72, "VII": 16, "VIII": 32, "IX": 35}
    digest = hashlib.sha256("\n".join(sorted(map(",".join, rows))).encode()).hexdigest()
    assert digest == "731767bab694000c4d96b3ec13ce2a63b627413812be8e247ae7133d755071cb"


@pytest.mark.skipif(not PAPER.is_file(), reason=f"the paper's tables as data are not in {PAPER}")
def test_the_shipped_figures_are_those_of_the_paper():
    with PAPER.open(encoding="utf-8", newline="") as file:
        assert Counter(tuple(row) for row in list(csv.reader(file))[1:]) == Counter(paper_rows())


def test_every_figure_has_a_source_that_is_named():
    assert {item.source for item in PUBLISHED.figures} == set(PUBLISHED.sources)
    assert {item.table for item in PUBLISHED.figures} | {"II"} == set(PUBLISHED.tables)


def make_run(folder: Path, name: str, predicted, mos, *, protocol="ood", set_name="konvid_1k", **more) -> Path:
    """A finished run, from predictions."""
    settings = {"name": name, "method": "other.csv", "model": None, "readout": None, "protocol": protocol,
                "data": ["x"], "levels": "tertiles"} | more.pop("settings", {})  # fmt: skip
    protocols.open_run(folder, settings)
    edges = np.quantile(mos, [1 / 3, 2 / 3])
    with protocols.ResultFile(folder / protocols.PREDICTIONS, protocols.COLUMNS) as results:
        for number, (prediction, rating) in enumerate(zip(predicted, mos, strict=True)):
            level = LEVELS[int(np.sum(rating > edges))]
            row = {"key": f"{set_name}:{number}", "set": set_name, "split": "test", "fold": None, "id": str(number),
                   "video": None, "mos": float(rating), "score": 20 * float(rating), "level": level, "content": None,
                   "family": None, "kind": None, "seen": None, "seconds": None, "error": None, "unparsable": False,
                   "predicted": float(prediction), "predicted_level": None,
                   "duration_s": 8.0 + number % 5 / 1000}  # fmt: skip
            results.append(row | more)
    settings, rows = protocols.read_run(folder)
    protocols.save_metrics(folder, protocols.tables(settings, rows, resamples=100))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two methods on all of KoNViD-1k, one that learned from it, one on twelve clips, one on a part of the set."""
    folder = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(0)
    mos = random.uniform(1.2, 4.6, 1200)
    return [
        make_run(folder / "good", "Good", mos + random.normal(0, 0.5, 1200), mos),
        make_run(folder / "bad", "Bad", mos + random.normal(0, 1.5, 1200), mos),
        make_run(folder / "seen", "Learned", mos, mos, seen=True),
        make_run(folder / "few", "Few", mos[:12], mos[:12]),
        make_run(folder / "part", "Part", (mos + random.normal(0, 0.5, 1200))[:100], mos[:100]),
        make_run(folder / "inside", "Own", mos[:60] + random.normal(0, 1, 60), mos[:60], protocol="in-sample",
                 set_name="rated_videos"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    written = write_report(runs, folder / "report.html", pictures=folder / "pictures")
    tables, title = {}, ""
    for line in written[1].read_text().splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ")
        tables.setdefault(title, []).append(line)
    return written[0].read_text(), tables


def table(report, start: str) -> list[str]:
    (found,) = (lines for title, lines in report[1].items() if title.startswith(start))
    return found


def test_all_tables_of_the_paper_are_there_with_every_figure(report):
    for number in ("I", "II", "III", "IV", "V", "VI", "VII", "IX"):
        assert table(report, f"Table {number}:")
    for key in PUBLISHED.tables:
        if key == "II":
            continue
        lines = "\n".join(table(report, PUBLISHED.tables[key]["title"]))
        for (method, source), sets in PUBLISHED.rows(key).items():
            rows = [line for line in lines.splitlines() if line.startswith(f"| {method} |") and f"| {source} |" in line]
            for values in sets.values():
                for name, value in values.items():
                    digits = 2 if key == "IX" or name == "seconds_per_video" else 3
                    assert any(f"{value:.{digits}f}" in row for row in rows), (key, method, source, name, value)
    assert "must be 38k" in "\n".join(table(report, "Table II:"))
    assert "no mean of them can be" in "\n".join(table(report, "Table VI:"))


def test_runs_of_one_method_on_several_sets_are_one_row(tmp_path):
    mos = np.linspace(0, 4.6, 40)
    made = [
        make_run(tmp_path / name, "Good", mos, mos, set_name=name, settings={"levels": levels})
        for name, levels in (("konvid_1k", "tertiles"), ("live_vqc", "authors"))
    ]
    # Another run on a set that the row has is a row of its own.
    made.append(make_run(tmp_path / "again", "Good", -mos, mos))
    page, markdown, *pictures = write_report(made, tmp_path / "report.html", pictures=tmp_path / "pictures")
    shown = [file.read_bytes() for file in pictures if file.stem.startswith("scatter_good_konvid_1k_all")]
    assert len(shown) == 2 and shown[0] != shown[1]
    assert all(base64.b64encode(image).decode() in page.read_text() for image in shown)
    text = markdown.read_text()
    table_iv = text.partition("### Table IV:")[2].partition("### Table V:")[0]
    assert [line for line in table_iv.splitlines() if "| measured |" in line] == [
        "| Good | 1.000 / 1.000 (n = 40) | - | 1.000 / 1.000 (n = 40) | - | measured |",
        "| Good | -1.000 / 1.000 (n = 40) | - | - | - | measured |",
    ]
    assert (
        "| Good | LIVE-VQC (n = 40) | 1.000 | 1.000 | 1.000 | 1.000 | measured, by rank, the authors' levels |" in text
    )
    assert "| 0 to 5 |" in text and "-0 to" not in text


def test_a_figure_of_few_videos_says_so():
    rows = [{"predicted": place, "mos": place, "family": None} for place in range(40)]
    few, many = (scatter(rows[:n], {"n": n, "srcc": 1.0}, "MOS").axes[0].get_title() for n in (4, 40))
    assert few == "n = 4: says nothing" and many == "SRCC 1.000, PLCC after the fit undefined, n = 40"


def test_our_runs_stand_beside_them_where_they_may(report):
    lines = table(report, "Table IV:")
    ours = [line for line in lines if "| measured |" in line]
    assert [line.split(" | ")[0] for line in ours] == ["| Good", "| Bad", "| Part"]
    assert "(n = 100)" in ours[2] and "(n" not in ours[0], "a part of the set says so"
    apart = "\n".join(table(report, "Figures of too few videos"))
    assert "| Learned | KoNViD-1k | 1200 | 1.000 | the checkpoint has learned from 1200 of the 1200 videos |" in apart
    assert "| Few | KoNViD-1k | 12 | 1.000 | n = 12: says nothing |" in apart
    for start in ("Table IV:", "Table VI:", "Differences"):
        assert not any("Learned" in line or "Few" in line for line in table(report, start))
    assert any("| Own | - " in line for line in table(report, "Table III:"))
    assert any("| Good | KoNViD-1k |" in line and "by rank" in line for line in table(report, "Table VI:"))


def test_differences_on_the_same_videos(report):
    (line,) = (line for line in table(report, "Differences") if "| Good | Bad |" in line)
    assert "| 1,200 |" in line and "below 0.001" in line
    assert any("| Good | Part | 100 |" in line for line in table(report, "Differences"))


def test_the_conclusion_stands_at_the_top(report):
    page, tables = report
    said = "\n".join(tables["What it shows"])
    assert next(iter(tables)) == "What it shows" and page.index("What it shows") < page.index("<table>")
    assert "Good on KoNViD-1k (out of distribution, n = 1,200): SRCC 0.8" in said
    assert "published SRCCs for it" in said and "orders the same videos better than Bad" in said
    assert "Few on KoNViD-1k (out of distribution, n = 12): says nothing, so its SRCC of 1.000 is no result" in said
    assert (
        "(n = 1,200): the checkpoint has learned from 1200 of the 1200 videos, so its SRCC of 1.000 is no result"
        in said
    )
    assert "sets that training never saw" not in page


def test_the_page_is_one_file_with_its_pictures(report, runs):
    page, _ = report
    assert page.count('src="data:image/png;base64,') == 3 * len(runs), "scatter plot, residuals and levels of each"
    assert "http" not in page
    assert page.count('<tr class="ours">') >= 5


def test_seconds_and_what_was_seen_are_measured(tmp_path):
    class Slow:
        timed, record = True, None

        def predict(self, rows):
            import time

            for row in rows:
                time.sleep(0.01)
                yield {"predicted": row.mos}

    from lmmvqa.evaluation.rated_sets import RatedRow

    rows = [RatedRow("s", "test", str(n), {"path": None, "bytes": None}, n, n, "poor") for n in range(5)]
    protocols.predict(Slow, rows, tmp_path)
    protocols.open_run(tmp_path, {"protocol": "ood"})
    settings, found = protocols.read_run(tmp_path)
    (figures,) = protocols.tables(settings, found, resamples=0)
    assert 0.009 < figures["seconds"] < 1 and figures["seen"] is None


@pytest.mark.parametrize(("known", "seen"), [("bytes", 2), ("set", 5), ("nothing", 0)])
def test_videos_that_a_checkpoint_learned_from_are_told_by_what_they_hold(tmp_path, known, seen):
    from lmmvqa.checkpoints.training_record import SeenVideos, TrainingRecord
    from lmmvqa.evaluation.rated_sets import RatedRow

    rows = [
        RatedRow("s", "test", str(n), {"path": f"{n}.mp4", "bytes": bytes([n]) * 99}, n, 20 * n, "poor")
        for n in range(5)
    ]
    digests = [hashlib.sha256(row.video["bytes"]).hexdigest() for row in rows]
    part = {"bytes": SeenVideos("other", "train", frozenset(digests[:2])), "set": SeenVideos("s", "test", frozenset())}
    record = TrainingRecord((part[known],) if known in part else ())

    class Perfect:
        timed = False

        def __init__(self):
            self.record = record

        def predict(self, rows):
            yield from ({"predicted": row.mos} for row in rows)

    protocols.predict(Perfect, rows, tmp_path)
    protocols.open_run(tmp_path, {"protocol": "ood"})
    (figures,) = protocols.tables(*protocols.read_run(tmp_path), resamples=0)
    assert figures["seen"] == seen


def test_the_command_says_what_was_seen(runs, capsys):
    from lmmvqa.commands.evaluation import _print

    _print("Learned", json.loads((runs[2] / "metrics.json").read_text()))
    assert "has learned from 1200 of these 1200 videos" in " ".join(capsys.readouterr().out.split())


def test_a_name_with_a_bar_stays_in_its_cell():
    table = GridTable("Runs", ["method", "n"], [["ours | tuned", "3"]]).markdown()
    assert "| ours \\| tuned | 3 |" in table


def test_residuals_by_duration_only_where_durations_differ(runs):
    from lmmvqa.evaluation import figures
    from lmmvqa.evaluation.finished_runs import read_folder

    run = read_folder(runs[0])
    rows = run.scored(run.whole[0])
    assert len(figures.residuals(rows, run.whole[0], "MOS").axes) == 1, "all last 8 s"
    for number, row in enumerate(rows):
        row["duration_s"] = 5 + number % 7 + 0.0123
    by_duration = figures.residuals(rows, run.whole[0], "MOS").axes[1]
    by_duration.figure.canvas.draw()
    labels = [label.get_text() for label in by_duration.get_xticklabels() if label.get_text()]
    assert len(labels) <= 8 and all(len(label) <= 4 for label in labels), labels


def test_a_report_from_the_command(runs, tmp_path):
    result = CliRunner().invoke(app, ["report", *map(str, runs), "--output", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "r.html").is_file() and (tmp_path / "r.md").is_file()
