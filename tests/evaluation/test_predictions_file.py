"""Evaluation from labels and a file of predictions, without the videos: names, units, failures, levels by rank."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import dataset_layouts as layouts
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from dataset_builders.set_specs import SetSpec
from hub_cards.results import FEW_VIDEOS
from lmmvqa.commands.main import app
from lmmvqa.evaluation import methods, protocols
from lmmvqa.evaluation.natural_scene import PictureError
from lmmvqa.evaluation.predictions_file import PredictionsError, PredictionsFile
from lmmvqa.evaluation.rated_sets import read_set
from lmmvqa.evaluation.vqa_metric import vqa_metric
from processing.video_reader import VideoError

COUNT = 40


def run(*arguments, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join(result.output.split())


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())[0]


def write(path: Path, rows: list[tuple], head: str = "video,prediction") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head.split(","))
        writer.writerows(rows)
    return path


@pytest.fixture
def konvid_labels(tmp_path):
    """The owners' label file alone."""
    ratings = layouts.numbered(COUNT, "33399628{:02}", 1.2, 4.6)
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "KoNViD_1k_mos.csv").write_text(
        '"flickr_id","mos"\n' + "".join(f'"{name}","{mos}"\n' for name, mos in ratings)
    )
    return folder, ratings


@pytest.mark.parametrize(
    "name",
    [
        "{}",
        "{}.mp4",
        "KoNViD_1k_videos/{}.mp4",
        "/data/of/another/machine/KoNViD_1k_videos/{}.mp4",
        "KoNViD_1k_videos\\{}.mp4",
        "./{}_original_centercrop_960x540_8s.mp4",
    ],
)
def test_names_of_a_release_without_its_videos(konvid_labels, tmp_path, name):
    folder, ratings = konvid_labels
    predictions = write(tmp_path / "p.csv", [(name.format(id_), 1000 - 3 * mos) for id_, mos in reversed(ratings)])
    out = tmp_path / "run"
    run("evaluate", "--protocol", "ood", "--data", f"konvid_1k={folder}", "--method", predictions, "--output", out)
    assert metrics(out)["n"] == COUNT and metrics(out)["srcc"] == pytest.approx(-1)


@pytest.fixture
def own(tmp_path):
    """One's own clips, two of one file name in two folders; rated, and not there."""
    rows = [(f"day {n % 2}/clip{n // 2}.mp4", 10 + 2 * n, f"c{n // 4}") for n in range(COUNT)]
    folder = tmp_path / "own"
    folder.mkdir()
    write(folder / "ratings.csv", rows, "video,mos,content")
    return folder, rows


@pytest.mark.parametrize("form", ["{}", "./{}", "/elsewhere/own/{}"])
@pytest.mark.parametrize("suffix", [True, False])
@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_names_of_own_videos(own, tmp_path, form, suffix, kind):
    folder, rows = own
    named = [(form.format(name if suffix else name.removesuffix(".mp4")), mos) for name, mos, _ in rows]
    predictions = write(tmp_path / "p.csv", named)
    if kind == ".parquet":
        import pandas as pd

        predictions = tmp_path / "p.parquet"
        pd.DataFrame(named, columns=["path", "score"]).to_parquet(predictions)
    (spec,) = [SetSpec.parse(f"rated_videos={folder / 'ratings.csv'}")]
    found = PredictionsFile(predictions).match(read_set(spec, videos=False))
    assert {key: row["predicted"] for key, row in found.items()} == {
        f"rated_videos:{name.removesuffix('.mp4')}": mos for name, mos, _ in rows
    }


def test_a_name_that_means_two_videos_and_a_video_with_two_predictions_are_errors(own, tmp_path):
    rows = read_set(SetSpec.parse(f"rated_videos={own[0]}"), videos=False)
    with pytest.raises(PredictionsError, match=r"p\.csv, line 2: 'clip0\.mp4' may be .*day 0/clip0 or .*day 1/clip0"):
        PredictionsFile(write(tmp_path / "p.csv", [("clip0.mp4", 1)])).match(rows)
    with pytest.raises(PredictionsError, match=r"line 2 and .*line 3 are both of the video .*day 0/clip1"):
        PredictionsFile(write(tmp_path / "p.csv", [("day 0/clip1", 1), ("day 0/clip1.mp4", 2)])).match(rows)
    # A file of the same name in another folder is another video.
    assert not _Matches(write(tmp_path / "p.csv", [("day 2/clip1.mp4", 2), ("day 0/clip1", 1)]), rows)["day 1/clip1"]


class _Matches(dict):
    def __init__(self, path, rows):
        found = PredictionsFile(path).match(rows)
        super().__init__({row.id: found.get(row.key) for row in rows})


def test_a_file_that_matches_nothing_says_three_names_of_each_side(konvid_labels, tmp_path):
    predictions = write(tmp_path / "p.csv", [(f"clip{n}.mp4", n) for n in range(9)])
    out = tmp_path / "run"
    said = run(
        "evaluate", "--protocol", "ood", "--data", f"konvid_1k={konvid_labels[0]}", "--method", predictions, "--output",
        out, code=1,
    )  # fmt: skip
    assert "clip0.mp4, clip1.mp4, clip2.mp4, ..." in said and "3339962800, 3339962801, 3339962802, ..." in said
    assert not out.exists()


def test_a_run_with_failures_says_so_and_ends_with_1(konvid_labels, tmp_path):
    folder, ratings = konvid_labels
    rows = [(name, "" if n == 3 else mos) for n, (name, mos) in enumerate(ratings[:-2])]
    command = ["evaluate", "--protocol", "ood", "--data", f"konvid_1k={folder}", "--method", tmp_path / "p.csv",
               "--output", tmp_path / "run"]  # fmt: skip
    write(tmp_path / "p.csv", rows)
    assert f"3 of {COUNT} have no prediction" in run(*command, code=1)
    assert metrics(tmp_path / "run")["n"] == COUNT - 3
    # Run again, what failed is tried again, and what is there stays.
    write(tmp_path / "p.csv", [(name, mos if mos > 2 else 0) for name, mos in ratings])
    run(*command)
    assert metrics(tmp_path / "run")["n"] == COUNT and metrics(tmp_path / "run")["failed"] == 0
    table = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    assert len({row["key"] for row in table}) == len(table) == COUNT
    assert sum(row["predicted"] == 0 for row in table) < 3, "only what had failed was read again"


def test_a_bad_prediction_or_level_names_its_line(tmp_path):
    for rows, message in (
        ([("a", 1, "good"), ("b", "x", "good")], "p.csv, line 3: the prediction 'x' is not a number"),
        ([("a", 1, "great")], "p.csv, line 2: the level 'great' is none of poor, fair, good"),
    ):
        with pytest.raises(PredictionsError, match=message):
            PredictionsFile(write(tmp_path / "p.csv", rows, "video,prediction,level"))


# Figures in units that mean something


def rows_of(predicted, mos, scale=(0, 100), **more) -> list[dict]:
    scores = [100 * (value - scale[0]) / (scale[1] - scale[0]) for value in mos]
    thresholds = np.quantile(scores, [1 / 3, 2 / 3])
    levels = [("poor", "fair", "good")[int(np.sum(score > thresholds))] for score in scores]
    return [
        {"set": "s", "split": "test", "fold": None, "predicted": p, "mos": m, "score": s, "level": level, **more}
        for p, m, s, level in zip(predicted, mos, scores, levels, strict=True)
    ]


def test_errors_are_in_the_units_of_the_ratings():
    random = np.random.default_rng(0)
    mos = random.uniform(1, 5, 200)
    predicted = np.clip(25 * (mos - 1) + random.normal(0, 8, 200), 0, 100)
    (ours,) = protocols.tables({"protocol": "ood", "method": "lmm-vqa"}, rows_of(predicted, mos, (1, 5)), resamples=200)
    assert ours["scale"] == [1, 5]
    assert ours["rmse"] == pytest.approx(np.sqrt(np.mean((1 + predicted / 25 - mos) ** 2))) and ours["rmse"] < 0.5
    low, high = ours["intervals"]["rmse"]
    assert low < ours["rmse"] < high < 0.5
    # The curve is still that of predictions as they are.
    fitted = vqa_metric.logistic(predicted, ours["logistic"])
    assert np.sqrt(np.mean((fitted - mos) ** 2)) == pytest.approx(ours["rmse_fitted"])
    (other,) = protocols.tables({"protocol": "ood", "method": "niqe"}, rows_of(-predicted, mos, (1, 5)), resamples=0)
    assert other["rmse"] is None and other["rmse_fitted"] == pytest.approx(ours["rmse_fitted"], rel=0.01)


def test_rows_with_scales_of_their_own_are_compared_as_scores():
    random = np.random.default_rng(0)
    scores = random.uniform(0, 100, 60)
    rows = rows_of(scores, scores)
    for row in rows[::2]:
        row["mos"] = 1 + row["score"] / 25
    (found,) = protocols.tables({"protocol": "ood", "method": "lmm-vqa"}, rows, resamples=0)
    assert found["scale"] is None and found["srcc"] == pytest.approx(1) and found["rmse"] == pytest.approx(0)


def test_few_videos_say_nothing_in_the_terminal_and_in_the_file(konvid_labels, tmp_path):
    folder, ratings = konvid_labels
    (folder / "KoNViD_1k_mos.csv").write_text('"flickr_id","mos"\n"1","2.5"\n"2","3.5"\n')
    out = tmp_path / "run"
    predictions = write(tmp_path / "p.csv", [("1", 1), ("2", 2)])
    said = run(
        "evaluate", "--protocol", "ood", "--data", f"konvid_1k={folder}", "--method", predictions, "--output", out
    )
    assert "says nothing" in said and "n = 2: says nothing" in " ".join(metrics(out)["notes"])
    assert vqa_metric.FEW_PAIRS == FEW_VIDEOS
    assert not vqa_metric.vqa_metrics(range(30), range(30), resamples=0)["notes"]
    assert ratings


def test_levels_of_scores_alone_are_by_rank():
    """As many of each level as the ratings have, whatever the scale of the predictions."""
    mos = np.arange(30.0)
    for scale in (1, -0.001):
        rows = rows_of(scale * mos, mos)
        (found,) = protocols.tables({"protocol": "levels", "method": "x"}, rows, resamples=0)
        assert found["levels_by"] == "rank"
        assert found["level_accuracy"]["total"] == (1 if scale > 0 else pytest.approx(1 / 3))
    assert protocols.levels_by_rank(rows_of([1.0] * 30, mos)) == ["poor"] * 30, "equal predictions, the lower level"


@pytest.mark.parametrize("width", [80])
def test_tables_fit_a_terminal_of_80_columns(konvid_labels, tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    folder, ratings = konvid_labels
    predictions = write(tmp_path / "p.csv", [(name, mos, "good") for name, mos in ratings], "video,prediction,level")
    command = ["evaluate", "--protocol", "5fold", "--data", f"konvid_1k={folder}", "--method", predictions, "--output",
               tmp_path / "run"]  # fmt: skip
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    tables = [line for line in result.output.splitlines() if not line.startswith("konvid_1k")]
    assert max(map(len, tables)) <= width
    assert "…" not in result.output and "1.000" in result.output and "as answered" in result.output


# Two methods on the same videos


def test_a_paired_bootstrap_finds_what_is_there_and_little_else():
    random = np.random.default_rng(1)
    rated = random.normal(size=300)
    good, bad = rated + random.normal(0, 0.5, 300), rated + random.normal(0, 1.0, 300)
    found = vqa_metric.paired_difference(good, bad, rated, resamples=500)
    expected = spearmanr(good, rated).statistic - spearmanr(bad, rated).statistic
    assert found["difference"] == pytest.approx(expected) and found["p"] < 0.01
    assert found["interval"][0] < found["difference"] < found["interval"][1] and found["interval"][0] > 0
    turned = vqa_metric.paired_difference(bad, good, rated, resamples=500)
    assert turned["difference"] == pytest.approx(-found["difference"]) and turned["p"] == pytest.approx(found["p"])
    same = vqa_metric.paired_difference(good, good, rated, resamples=100)
    assert same["difference"] == 0 and same["p"] == 1
    # Of equally good methods, about one in twenty pairs is called different.
    alarms = 0
    for _ in range(200):
        y = random.normal(size=50)
        one, other = (y + random.normal(0, 0.7, 50) for _ in range(2))
        alarms += vqa_metric.paired_difference(one, other, y, resamples=200)["p"] < 0.05
    assert 1 <= alarms <= 24
    # Copies of a content are no independent samples.
    copies = [np.repeat(side[:20], 15) for side in (good, bad, rated)]
    grouped = vqa_metric.paired_difference(*copies, groups=np.repeat(np.arange(20), 15), resamples=300)
    single = vqa_metric.paired_difference(*copies, resamples=300)
    assert np.ptp(grouped["interval"]) > 2 * np.ptp(single["interval"])


def test_a_paired_bootstrap_of_too_little_is_none():
    assert vqa_metric.paired_difference([1, 2], [2, 1], [1, 2])["p"] is None
    assert vqa_metric.paired_difference([1] * 9, range(9), range(9))["interval"] is None
    with pytest.raises(ValueError, match="one finite prediction"):
        vqa_metric.paired_difference([1, 2], [1, 2], [1])


# Faults


@pytest.mark.parametrize("error", [VideoError("bad.mp4 is broken"), PictureError("too small")])
def test_what_is_wrong_with_one_video_is_its_own_row(konvid_labels, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("lmmvqa.evaluation.natural_scene.mean_over_key_frames", fail)
    rows = read_set(SetSpec.parse(f"konvid_1k={konvid_labels[0]}"), videos=False)
    assert list(methods.Baseline("niqe").predict(rows[:1])) == [{"error": str(error)}]


def test_a_fault_of_ours_is_no_row(konvid_labels, monkeypatch):
    def fail(*_):
        raise TypeError("a fault")

    monkeypatch.setattr("lmmvqa.evaluation.natural_scene.mean_over_key_frames", fail)
    rows = read_set(SetSpec.parse(f"konvid_1k={konvid_labels[0]}"), videos=False)
    with pytest.raises(TypeError, match="a fault"):
        list(methods.Baseline("niqe").predict(rows[:1]))
