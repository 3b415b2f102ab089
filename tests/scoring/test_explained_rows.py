"""What is wrong with a video: in rows and files, over time, and in words."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from taught_models import Taught
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.demo import drawing
from lmmvqa.demo.score_page import write_page
from lmmvqa.scoring import loading
from lmmvqa.scoring.bulk_runs import result_columns
from lmmvqa.scoring.result_files import SUFFIXES, ResultFile, stored_rows
from modeling_lmmvqa.explaining import clock, explain
from modeling_lmmvqa.pipeline_lmmvqa import LmmVqaPipeline
from modeling_lmmvqa.quality_timeline import _around_worst
from modeling_lmmvqa.video_score import VideoScore, level_of
from modeling_lmmvqa.video_scorer import VideoScorer


@pytest.fixture(scope="module")
def scores(taught: Taught) -> list[VideoScore]:
    """Of a clip that flickers, of one that is noisy and of a file that is not there, over time."""
    videos = [str(taught.labels / name) for name in ("4.mp4", "5.mp4", "missing.mp4")]
    return VideoScorer(taught.model, taught.processor)(videos, timeline=True, key_frames=True)


def row(**changed) -> dict:
    known = {"score": 58.2, "interval_low": 46.6, "interval_high": 69.1, "level": "fair", "error": None}
    return known | {"path": "a.mp4", "warnings": [], "duration_s": 12.0} | changed


def moment(start_s: float, end_s: float, score: float, **flaws: float) -> dict:
    return {"worst_moment": {"start_s": start_s, "end_s": end_s, "score": score} | ({"flaws": flaws} if flaws else {})}


def test_rows_hold_what_the_checkpoint_was_taught(scores):
    flickering, noisy, missing = (score.as_row() for score in scores)
    assert list(flickering) == list(noisy) == [*missing, "timeline"]
    for found, flaw in ((flickering, "flicker"), (noisy, "noise")):
        probabilities = list(found["flaws"].values())
        assert next(iter(found["flaws"])) == flaw and sum(probabilities) == pytest.approx(1, abs=1e-3)
        assert probabilities == sorted(probabilities, reverse=True) and len(probabilities) == 10
        low, high = found["dimension_sharpness_low"], found["dimension_sharpness_high"]
        assert 0 <= low <= found["dimension_sharpness"] <= high <= 100
    assert flickering["dimension_sharpness"] < noisy["dimension_sharpness"]
    assert missing["error"] and missing["flaws"] is None and missing["dimension_sharpness"] is None


def test_files_of_all_forms_hold_the_same(scores, tmp_path):
    """Also where the first row is of a video with an error."""
    rows = [{name: value for name, value in score.as_row().items() if name != "timeline"} for score in scores[::-1]]
    for suffix in SUFFIXES:
        file = tmp_path / f"scores{suffix}"
        with ResultFile(file, result_columns()) as results:
            results.append(rows[0])
        with ResultFile(file, result_columns()) as results:
            for each in rows[1:]:
                results.append(each)
        assert list(stored_rows(file, result_columns())) == rows
    read = pd.read_csv(tmp_path / "scores.csv")
    assert json.loads(read["flaws"][1]) == rows[1]["flaws"] and read["dimension_sharpness"].dtype == float
    parquet = pd.read_parquet(tmp_path / "scores.parquet")
    assert dict(parquet["flaws"][1]) == rows[1]["flaws"] and parquet["flaws"][0] is None


def test_the_worst_moment_has_a_flaw_of_its_own(scores):
    for score in scores[:2]:
        timeline = score.timeline
        worst, moment = timeline["worst"], timeline["worst_moment"]
        assert moment["start_s"] <= worst["start_s"] and worst["end_s"] <= moment["end_s"]
        assert worst["score"] <= moment["score"] <= score.score + 1e-3
        assert sum(moment["flaws"].values()) == pytest.approx(1, abs=1e-3)


def test_a_moment_is_the_worst_second_and_what_is_nearly_as_bad_around_it():
    assert _around_worst([80, 80, 30, 20, 25, 80, 20.5, 80]) == range(2, 5)
    assert _around_worst([50]) == range(1) and _around_worst([50, 50, 50]) == range(3)
    assert _around_worst([10, 90, 90]) == range(1) and _around_worst([90, 90, 10]) == range(2, 3)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "Fair (58, 47 to 69)."),
        ({"flaws": {"compression": 0.7, "blur": 0.3}}, "Fair (58, 47 to 69): mostly compression."),
        ({"flaws": {"compression": 0.4, "blur": 0.3}}, "Fair (58, 47 to 69): perhaps compression."),
        ({"flaws": {"none": 0.9, "blur": 0.1}, "level": "good"}, "Good (58, 47 to 69): no flaw stands out."),
        ({"timeline": moment(5, 9, 40)}, "Fair (58, 47 to 69): worst from 0:05 to 0:09."),
        ({"timeline": moment(5, 9, 56)}, "Fair (58, 47 to 69)."),
        (
            {"flaws": {"compression": 0.7, "blur": 0.3}, "timeline": moment(64.6, 69.4, 40, compression=0.9)},
            "Fair (58, 47 to 69): mostly compression, worst from 1:05 to 1:09.",
        ),
        (
            {"flaws": {"compression": 0.7, "blur": 0.3}, "timeline": moment(5, 9, 40, freeze=0.45, blur=0.4)},
            "Fair (58, 47 to 69): mostly compression, worst from 0:05 to 0:09 (perhaps freeze).",
        ),
        ({"level": None, "flaws": {"none": 0.4, "blur": 0.3}}, "58 (47 to 69): perhaps no flaw."),
        ({"error": "a.mp4 can't be read."}, "a.mp4 can't be read."),
    ],
)
def test_a_sentence_is_made_of_the_numbers_of_its_row(changed, said):
    assert explain(row(**changed)) == LmmVqaPipeline.explain(row(**changed)) == said


def test_every_word_can_be_traced(scores):
    """No word of the sentence stands anywhere but in the row, or in the frame that holds the facts together."""
    frame = {"to", "mostly", "perhaps", "no", "flaw", "stands", "out", "worst", "from"}
    for score in scores[:2]:
        found = score.as_row()
        worst = found["timeline"]["worst_moment"]
        numbers = {f"{found[name]:.0f}" for name in ("score", "interval_low", "interval_high")}
        known = numbers | {found["level"].capitalize(), *found["flaws"], clock(worst["start_s"]), clock(worst["end_s"])}
        words = set(re.findall(r"[\w:]*\w", explain(found)))
        assert words <= known | frame and next(iter(found["flaws"])) in words


def test_people_see_it(scores, taught, tmp_path, monkeypatch):
    """In the table, in the page of a folder, and as bars in the demo."""
    monkeypatch.setattr(loading, "load_network", lambda *_: (taught.model, taught.processor))
    video = scores[1].path
    done = CliRunner().invoke(app, ["score", video, "--explain"], env={"COLUMNS": "200"})
    flaws = scores[1].answers["flaw"]["probabilities"]
    assert re.search(rf"mostly +length\n.* noise {flaws['noise']:.0%} ", done.stdout), done.stdout
    assert explain(scores[1].as_row()) in done.stdout and "each bar" not in done.stdout
    assert CliRunner().invoke(app, ["score", video, "--explain", "--json"]).exit_code == 2
    # Training has found where its ratings part.
    parts = taught.processor.levels, taught.processor.level_bounds
    assert parts == (["poor", "fair", "good"], [75, 85])
    assert [score.level for score in scores[:2]] == [level_of(score.score, *parts) for score in scores[:2]]
    write_page(scores, tmp_path / "page.html", parts)
    page = (tmp_path / "page.html").read_text()
    assert all(explain(score.as_row()) in page for score in scores[:2])
    assert "poor up to 75, fair up to 85, good above" in page and "poor up to 75" in " ".join(done.stdout.split())
    # A picture has no time to draw.
    write_page([replace(scores[1], duration_s=0.0)], tmp_path / "picture.html", parts)
    assert page.count('class="chart"') == 2 and 'class="chart"' not in (tmp_path / "picture.html").read_text()
    bars = drawing.flaws(scores[1].as_row())
    assert f'noise</span><div class="bar"><div style="width:{100 * flaws["noise"]:.1f}%' in bars
    assert drawing.flaws(row()) == "" == drawing.flaws(row(flaws=None))


def test_the_worst_moment_is_marked_where_it_is():
    seconds = [{"start_s": second, "end_s": second + 1, "score": 60.0} for second in range(10)]
    known = row(duration_s=10.0, timeline={"seconds": seconds} | moment(5, 9, 40, blur=0.71, none=0.29))
    assert drawing.worst_moment_in_words(known) == "Worst from 0:05 to 0:09: blur 71%"
    assert '<div class="worst" style="left:50.00%;width:40.00%">' in drawing.timeline(known)
    even = row(duration_s=10.0, timeline={"seconds": seconds} | moment(0, 10, 58))
    assert drawing.worst_moment_in_words(even) == "" and "worst" not in drawing.timeline(even)


def test_colours_follow_the_levels():
    assert [drawing.colour(score) for score in (0, 40, 100)] == [f"hsl({hue} 65% 38%)" for hue in (0, 50, 125)]
    assert [drawing.colour(score, [60, 80])[4:].split()[0] for score in (0, 60, 80, 100)] == ["0", "42", "83", "125"]
