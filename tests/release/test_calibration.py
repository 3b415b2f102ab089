"""Calibration: spread as the ratings are, and an interval that holds what it says."""

import csv
import json
import shutil

import pytest
import torch
from inputs import stand_in_clips
from tiny_models import make_tiny
from typer.testing import CliRunner

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.commands.main import app
from lmmvqa.release.calibration import calibrate_checkpoint, fit_calibration, fit_temperature
from modeling_lmmvqa.quality_read_out import read_number, read_words
from processing.quality_prompts import FLAW


def shrunken_answers(ratings, spread=12.0):
    """Answers of a model that goes two thirds of the way from the middle, and is off by chance."""
    noise = torch.randn(len(ratings), generator=torch.Generator().manual_seed(1)) * 5
    centres = 55 + 0.6 * (ratings - 55) + noise
    return (-0.5 * ((torch.arange(101) - centres[:, None]) / spread) ** 2).softmax(1)


def test_shrinkage_is_undone_and_the_interval_holds():
    ratings = torch.rand(600, generator=torch.Generator().manual_seed(0)) * 95 + 4
    probabilities = shrunken_answers(ratings)
    fitted = fit_calibration(probabilities[:300], ratings[:300])
    before = read_number(probabilities[300:].log())
    after = read_number(probabilities[300:].log(), **fitted)
    held_out = ratings[300:]
    assert before.value.std() < 0.7 * held_out.std() and after.value.std() == pytest.approx(
        held_out.std().item(), rel=0.1
    )
    low, high = after.interval.T
    assert 0.85 <= ((low <= held_out) & (held_out <= high)).float().mean() <= 0.95
    # A map that rises leaves the ranking alone.
    order = before.value.argsort()
    assert (after.value[order].diff() >= 0).all()


def test_levels_become_as_sure_as_they_are_right():
    random = torch.Generator().manual_seed(0)
    honest = (2 * torch.randn(4000, 3, generator=random)).softmax(1)
    places = torch.multinomial(honest, 1, generator=random)[:, 0]
    for temperature in (0.5, 3.0):
        stated = (temperature * honest.log()).softmax(1)
        assert fit_temperature(stated, places) == pytest.approx(temperature, rel=0.1)
    # The level stays what it was.
    read = [read_words(stated.log(), ["a", "b", "c"], t) for t in (1.0, 3.0)]
    assert read[0].value == read[1].value
    torch.testing.assert_close(read[1].probabilities, honest)


def test_too_few_videos_calibrate_nothing():
    with pytest.raises(ValueError, match="5 videos with ratings from 1 to 5"):
        fit_calibration(torch.full((5, 101), 1 / 101), torch.arange(1.0, 6))


def test_a_checkpoint_is_calibrated_in_place(tmp_path):
    network, processor = make_tiny()
    processor.questions = (*processor.questions, FLAW)
    for part in (network, processor):
        part.save_pretrained(tmp_path)
    videos, ratings, levels, labels = [], [], [], []
    clips = stand_in_clips(tmp_path / "clips", (20,))
    for number in range(14):
        videos.append(str(shutil.copy(clips[number % 2], tmp_path / f"{number}.mp4")))
        ratings.append(10.0 + 5 * number)
        levels.append(("poor", "fair", "good")[number // 5])
        # One of them has no label, and another names two flaws.
        labels.append({"flaw": ("noise", "blur;noise")[number % 2]} if number else {})
    fitted = calibrate_checkpoint(tmp_path, ratings, levels, videos, labels=labels)
    model, _ = load_checkpoint(str(tmp_path))
    assert model.config.calibration == fitted and fitted["level"]["temperature"] != 1
    assert set(fitted) == {"score", "level", "flaw"} and fitted["flaw"]["temperature"] != 1
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "lmmvqa"
    cached = calibrate_checkpoint(tmp_path, ratings, levels, videos, cache=tmp_path / "features")
    maps = [torch.tensor(found["score"]["answer_map"]) for found in (cached, fitted)]
    torch.testing.assert_close(*maps, atol=0.5, rtol=0)
    # Fitted anew, not on top of the former one.
    assert cached["level"]["temperature"] == pytest.approx(fitted["level"]["temperature"], rel=0.05)


def test_a_family_is_left_out_and_an_unknown_one_refused(tmp_path):
    checkpoint, data = tmp_path / "checkpoint", tmp_path / "mine"
    data.mkdir()
    for part in make_tiny():
        part.save_pretrained(checkpoint)
    clip, _ = stand_in_clips(tmp_path / "clips", (20,))
    with (data / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "mos", "split", "family"])
        for number in range(15):
            shutil.copy(clip, data / f"{number}.mp4")
            rows.writerow(
                [f"{number}.mp4", 50 + number if number else 1, "validation", "codec" if number else "exposure"]
            )
    command = ["calibrate", str(checkpoint), "--data", f"rated_videos={data}", "--leave-out"]
    before = (checkpoint / "config.json").read_text()
    refused = CliRunner().invoke(app, [*command, "exposures"])
    assert refused.exit_code == 2 and "the families codec, exposure" in " ".join(refused.output.split())
    assert (checkpoint / "config.json").read_text() == before
    fitted = json.loads(CliRunner().invoke(app, [*command, "exposure"], catch_exceptions=False).stdout)
    # Equal videos get one answer, which stands for the lowest of the ratings.
    assert 50 < fitted["score"]["answer_map"][1][1] < 65
    scaled = json.loads(
        CliRunner().invoke(app, [*command, "exposure", "--scale", "0", "200"], catch_exceptions=False).stdout
    )
    lowest = [found["score"]["answer_map"][1][1] for found in (scaled, fitted)]
    assert lowest[0] == pytest.approx(lowest[1] / 2, abs=0.01)
