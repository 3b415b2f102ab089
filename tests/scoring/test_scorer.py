"""One line for Python, and one path: the same scores and the same row whichever way a video comes in."""

import contextlib
import copy
import csv
import io
import json
import logging
import os
import re
import signal

import numpy as np
import pytest
import torch
from inputs import ffmpeg
from transformers import pipeline
from typer.testing import CliRunner

import lmmvqa
from lmmvqa.commands.main import app
from lmmvqa.commands.score_table import Tally, print_table
from lmmvqa.demo.app import report
from lmmvqa.scoring import loading
from lmmvqa.scoring.bulk import score_in_bulk
from lmmvqa.scoring.bulk_runs import local_engine, score_to_file
from lmmvqa.scoring.pipeline import WorkerPipeline
from lmmvqa.scoring.scorer import Scorer
from modeling_lmmvqa.explaining import explain
from modeling_lmmvqa.video_score import (
    COLUMNS,
    PROBABILITY,
    VideoScore,
    column_type,
    describe_levels,
    level_of,
    level_warning,
)
from modeling_lmmvqa.video_scorer import VideoScorer


@pytest.fixture
def short(tmp_path):
    target = tmp_path / "short.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=2", "-c:v", "mpeg4", target)
    return str(target)


def test_one_line_from_a_name_to_a_score(tiny_checkpoint, clip):
    with lmmvqa.load(str(tiny_checkpoint), device="cpu", batch_size=2) as scorer:
        one = scorer(clip)
        assert isinstance(one, VideoScore) and 0 <= one.score <= 100 and one.path == str(clip)
        several = scorer([clip, str(clip), "missing.mp4"])
        assert [type(several), len(several)] == [list, 3] and "missing.mp4" in several[2].error
        generated = scorer(path for path in [clip, clip])
        assert iter(generated) is generated and [score.score for score in generated] == [several[0].score] * 2
        timed = scorer(clip, timeline=True)
        assert timed.score == pytest.approx(one.score, abs=1e-3) and len(timed.timeline["seconds"]) == 5
        frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
        assert scorer(frames, fps=10).duration_s == scorer(torch.from_numpy(frames), fps=10).duration_s == 2
        with clip.open("rb") as file:
            assert scorer(file) == one
        assert scorer(io.BytesIO(clip.read_bytes())).score == one.score


def test_every_way_in_gives_the_same_row(taught, short, tmp_path, monkeypatch):
    model, processor, checkpoint, _ = taught
    videos = [short, str(tmp_path / "missing.mp4")]
    expected = [score.as_row() for score in Scorer(model, processor)(videos)]
    monkeypatch.setattr(loading, "load_network", lambda *_: (model, processor))
    printed = [json.loads(line) for line in CliRunner().invoke(app, ["score", *videos, "--json"]).stdout.splitlines()]
    assert printed == expected
    assert pipeline("video-quality-assessment", model=model, processor=processor)(videos) == expected
    bulk = sorted(
        (score.as_row() for score in score_in_bulk(videos, model, processor)), key=lambda row: row["error"] or ""
    )
    assert bulk == expected
    assert [score.as_row() for score in VideoScorer(model, processor)(videos)] == expected
    # Files: the same columns in the same order, and the same values.
    CliRunner().invoke(app, ["score", *videos, "--csv", str(tmp_path / "table.csv")])
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [list(row) for row in expected]
    assert [json.loads(row["warnings"]) for row in rows] == [row["warnings"] for row in expected]
    assert json.loads(rows[0]["flaws"]) == expected[0]["flaws"] and rows[1]["flaws"] == ""
    score_to_file(videos, tmp_path / "rows.jsonl", local_engine(str(checkpoint), "cpu"))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda row: row["error"] or "") == expected


def test_a_row_is_what_its_description_says():
    score = VideoScore("a.mp4", 50.0, 1.0, (48.0, 52.0), "fair", {"poor": 0.2, "fair": 0.8}, 2.0, ("Dark.",))
    row = score.as_row()
    assert [column for column in row if not column.startswith(PROBABILITY)] == list(COLUMNS)
    assert list(row)[6:8] == ["probability_poor", "probability_fair"]
    kinds = {"string": str, "float64": float, "list<string>": list}
    for column, value in row.items():
        assert value is None or isinstance(value, kinds[column_type(column)]), column
    assert list(VideoScore("a.mp4", timeline={"seconds": []}).as_row())[-1] == "timeline"


def test_the_score_decides_which_level_is_shown():
    parts = ["poor", "fair", "good"], [60.9, 76.9]
    assert [level_of(score, *parts) for score in (0, 60.9, 61, 76.9, 77, 100)] == [
        *("poor", "poor", "fair", "fair", "good", "good")
    ]
    assert describe_levels(*parts) == "poor up to 61, fair up to 77, good above" and describe_levels([], []) == ""
    assert level_warning(54.2, "poor", *parts) is None
    assert level_warning(80.0, "poor", *parts) == (
        "Asked for a word, the model says poor, but its score of 80 means good: the score counts."
    )
    assert [level_warning(score, "fair", *parts) is None for score in (50, 51, 70, 86, 87)] == [
        *(False, True, True, True, False)
    ]


def test_a_checkpoint_need_not_have_been_taught_the_level(tiny, short, tmp_path):
    model, processor = tiny
    alone = copy.copy(processor)
    alone.questions = tuple(question for question in processor.questions if question.name != "level")
    score, missing = Scorer(model, alone)([short, str(tmp_path / "missing.mp4")], timeline=True)
    assert score.score == Scorer(model, processor)(short).score and score.level is None is score.level_probabilities
    assert list(missing.as_row()) == list(COLUMNS) == [name for name in score.as_row() if name != "timeline"]
    assert re.match(r"\d+ \(\d+ to \d+\)", explain(score.as_row()))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_table([score, missing])
    assert "-" in printed.getvalue()
    tally = Tally()
    list(tally.count([score, missing]))
    assert tally.sentence() == "2 videos: 1 scored, 1 error."
    assert 'class="pill"' not in report({**score.as_row(), "timeline": {"seconds": []}}, "")


class _Poison:
    name = "poison.mp4"

    def __reduce__(self):
        return os.abort, ()


def test_the_pipeline_survives_what_kills_a_reader(tiny, short):
    model, processor = tiny
    pipe = pipeline("video-quality-assessment", model=model, processor=processor)
    assert type(pipe) is WorkerPipeline
    lost, row = pipe([_Poison(), short])
    assert "poison.mp4 ended the process that was reading it (SIGABRT)" in lost["error"] and row["error"] is None


def test_the_reading_process_stays_and_ends_with_the_scorer(tiny, short):
    scorer = Scorer(*tiny)
    scorer(short)
    process = scorer.reader._worker._process
    scorer(short)
    assert scorer.reader._worker._process is process and process.poll() is None
    del scorer
    assert process.wait(10) == -signal.SIGKILL


def test_traces_of_errors_are_in_the_debug_log(tiny, tmp_path, caplog):
    (tmp_path / "text.mp4").write_text("no video")
    with caplog.at_level(logging.DEBUG, logger="modeling_lmmvqa.video_scorer"):
        assert "report" not in Scorer(*tiny)(tmp_path / "text.mp4").error
    (record,) = caplog.records
    assert record.exc_info is not None and "text.mp4" in record.getMessage()


def test_a_score_that_is_no_number_is_an_error(tiny, short):
    model, processor = tiny
    before = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    try:
        results = Scorer(model, processor)([short, short])
    finally:
        with torch.no_grad():
            model.lm_head.weight[:] = before
    assert [result.score for result in results] == [None, None]
    assert all(result.error.startswith(f"{short}: The model's answers are not finite") for result in results)
