"""Which of two videos looks better, the ranking of several, and the gate that fails a build on it."""

import json
from xml.etree import ElementTree

import pytest
from inputs import ffmpeg
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.scoring.gates import MISSED, SummaryError, check_comparison, check_score, write_summary
from modeling_lmmvqa.comparing import compare, rank
from modeling_lmmvqa.video_score import VideoScore


def scored(path: str, score: float, std: float = 5.0, **more) -> VideoScore:
    return VideoScore(path, score=score, score_std=std, interval=(score - 1.645 * std, score + 1.645 * std), **more)


def seconds(*scores: float) -> dict:
    return {"seconds": [{"start_s": n, "end_s": n + 1, "score": score} for n, score in enumerate(scores)]}


def test_probability_follows_the_normal_model():
    pair = compare(scored("a", 60, 3), scored("b", 55, 4))
    # Difference 5 with deviation 5: one deviation.
    assert pair.probability == pytest.approx(0.8413, abs=1e-4)
    assert pair.interval == pytest.approx((5 - 1.6449 * 5, 5 + 1.6449 * 5), abs=1e-3)
    back = compare(pair.second, pair.first)
    assert back.probability == pytest.approx(1 - pair.probability) and back.difference == -5
    assert pair.is_worse_by(5) == pytest.approx(0.5) and pair.is_worse_by(0) == pytest.approx(pair.probability)
    assert compare(scored("a", 50, 0), scored("b", 50, 0)).probability == pytest.approx(0.5)


def test_verdict_says_which_how_sure_and_where():
    first = scored("a.mp4", 70, 3, timeline=seconds(70, 70, 70))
    second = scored("b.mp4", 55, 4, timeline=seconds(69, 40, 65, 12))
    verdict = compare(first, second).verdict()
    assert verdict.startswith(
        "a.mp4 looks better than b.mp4 (100% sure): 70.0 against 55.0, 15.0 points (6.8 to 23.2)."
    )
    assert "They differ most from 0:01 to 0:02, by 30.0 points." in verdict
    assert compare(second, first).verdict() == verdict
    assert "It can't be told which of a.mp4 and c.mp4" in compare(first, scored("c.mp4", 69)).verdict()


def test_ranking_goes_from_best_to_worst_and_refuses_errors():
    pairs = rank([scored("low", 10), scored("high", 90), scored("middle", 50)])
    assert [(pair.first.path, pair.second.path) for pair in pairs] == [("high", "middle"), ("middle", "low")]
    with pytest.raises(ValueError, match="broken has no score"):
        rank([scored("a", 1), VideoScore("broken", error="broken can't be read.")])


@pytest.mark.parametrize(
    ("score", "confidence", "passed"), [(60, 0.5, True), (59, 0.5, False), (59, 0.9, True), (50, 0.9, False)]
)
def test_a_score_fails_when_it_is_surely_enough_below(score, confidence, passed):
    assert check_score(scored("a", score), 60, confidence).passed is passed


def test_a_comparison_fails_beyond_the_tolerance():
    pair = compare(scored("reference", 80, 1), scored("encode", 75, 1))
    assert not check_comparison(pair, 3, 0.5).passed and check_comparison(pair, 5, 0.5).passed
    assert check_comparison(pair, 4, 0.9).passed and not check_comparison(pair, 1, 0.9).passed


def test_summaries_hold_every_check_whatever_its_name(tmp_path):
    checks = [check_score(scored("good|\x07.mp4", 80), 60, 0.5), check_score(scored("<bad>\udcff.mp4", 20), 60, 0.5)]
    write_summary(checks, tmp_path / "summary.md")
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert text.startswith("**1 of 2 passed.**") and "good\\|\N{REPLACEMENT CHARACTER}.mp4" in text
    write_summary(checks, tmp_path / "summary.xml")
    suite = ElementTree.parse(tmp_path / "summary.xml").getroot()
    assert suite.attrib["failures"] == "1" and [case.find("failure") is not None for case in suite] == [False, True]
    with pytest.raises(SummaryError, match=r"\.md or \.xml"):
        write_summary(checks, tmp_path / "summary.txt")


def test_command_compares_ranks_and_fails_a_build(tiny_checkpoint, clip, tmp_path):
    other = tmp_path / "other.mp4"
    ffmpeg("-i", clip, "-t", "2", "-vf", "scale=160:90", "-crf", "45", other)
    command = ["compare", "--model", str(tiny_checkpoint), "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, str(clip), str(other), "--json"])
    assert done.exit_code == 0, done.output
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["first"] == str(clip) and 0 <= row["moment"]["start_s"] < 2 and row["verdict"]
    better, worse = (clip, other) if row["difference"] >= 0 else (other, clip)
    limit = abs(row["difference"]) / 2
    gate = ["--tolerance", str(limit), "--summary", str(tmp_path / "gate.xml")]
    done = CliRunner().invoke(app, [*command, str(better), str(worse), *gate])
    assert done.exit_code == MISSED and (tmp_path / "gate.xml").is_file()
    assert CliRunner().invoke(app, [*command, str(worse), str(better), *gate]).exit_code == 0
    done = CliRunner().invoke(app, [*command, str(clip), str(other), str(clip)])
    assert done.exit_code == 0 and "% sure" in done.stdout
    assert CliRunner().invoke(app, [*command, str(clip), str(tmp_path / "missing.mp4")]).exit_code == 1
    assert CliRunner().invoke(app, [*command, str(clip)]).exit_code == 2


def test_score_fails_a_build_below_its_threshold(tiny_checkpoint, clip, tmp_path, caplog):
    command = ["score", str(clip), "--model", str(tiny_checkpoint), "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--json"])
    score = json.loads(done.stdout.splitlines()[0])["score"]
    summary = tmp_path / "summary.md"
    done = CliRunner().invoke(app, [*command, "--min-score", str(score + 0.5), "--summary", str(summary)])
    assert done.exit_code == MISSED and summary.read_text(encoding="utf-8").startswith("**0 of 1 passed.**")
    assert CliRunner().invoke(app, [*command, "--min-score", str(score - 0.5)]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--min-score", str(score + 0.5), "--confidence", "1"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--summary", str(summary)]).exit_code == 2
    # Each thing is said once: what is wrong with a file, and what people should know of another.
    ffmpeg("-i", clip, "-frames:v", 1, tmp_path / "photo.png")
    several = [*command, str(tmp_path / "photo.png"), str(tmp_path / "missing.mp4")]
    done = CliRunner().invoke(app, [*several, "--min-score", "100"], env={"COLUMNS": "200"})
    assert done.exit_code == 1 and not caplog.records
    assert done.output.count("nothing is known of motion") == 1 == done.output.count("Error: ")
    assert done.output.count("Missed: ") == 2 and "0.0 s" not in done.output
