"""Dimensions and flaws: from a label file and a checkpoint that was taught them to figures, report and card."""

import json

import numpy as np
import pytest
from taught_models import Taught
from typer.testing import CliRunner

from hub_cards.model_card import ModelFacts, model_card
from hub_cards.results import read_results
from lmmvqa.commands.main import app
from lmmvqa.evaluation.further_questions import question_figures
from lmmvqa.training.word_metrics import balanced_accuracy
from processing.quality_prompts import FLAW
from processing.questions import Question


def answered(label: str | None, *likely: str, content: str | None = None) -> dict:
    """A row whose answer has these words first."""
    ranked = [*likely, *(word for word in FLAW.answers if word not in likely)]
    weights = np.linspace(2, 1, len(ranked))
    return {
        "label_flaw": label,
        "answer_flaw": dict(zip(ranked, (weights / weights.sum()).tolist(), strict=True)),
        "content": content,
    }


def test_a_rare_flaw_weighs_as_much_as_a_frequent_one():
    found, labels = ["blur"] * 9 + ["blur"], [("blur",)] * 9 + [("noise",)]
    assert balanced_accuracy(found, labels) == 0.5


def test_words_are_counted_as_the_label_means_them():
    rows = [
        answered("blur", "blur"),
        answered("blur", "noise", "blur"),
        answered("none", "none"),
        answered("noise;compression", "compression", "blur", "noise"),
        answered("stutter;compression", "stutter", "none", "blur"),
        answered(None, "blur"),
        {"label_flaw": "blur", "answer_flaw": None},
    ]
    figures = question_figures([FLAW], rows, resamples=50)["flaw"]
    assert figures["n"] == 5 and figures["two"] == 2
    assert figures["accuracy"] == pytest.approx(4 / 5) and figures["majority"] == pytest.approx(2 / 5)
    # Of blur one half, of none, noise and stutter all; each weighs a quarter.
    assert figures["balanced_accuracy"] == pytest.approx(3.5 / 4) and figures["chance"] == pytest.approx(1 / 4)
    assert (figures["either_first"], figures["both_in_three"]) == (1, 0.5)
    low, high = figures["interval"]
    assert low <= figures["balanced_accuracy"] <= high
    places = {word: place for place, word in enumerate(figures["words"])}
    confusion = np.array(figures["confusion"])
    assert confusion.sum() == 5 and confusion[places["blur"], places["noise"]] == 1
    assert confusion[places["compression"], places["compression"]] == 1


def test_copies_of_one_content_are_drawn_together():
    apart = [answered("blur", "blur" if n % 2 else "noise") for n in range(40)]
    together = [row | {"content": str(n // 20)} for n, row in enumerate(apart)]
    widths = []
    for rows in (apart, together):
        low, high = question_figures([FLAW], rows, resamples=200)["flaw"]["interval"]
        widths.append(high - low)
    # Both contents are half right, so it does not matter which are drawn.
    assert widths[1] == 0 < widths[0]


def test_numbers_get_the_figures_of_the_field():
    sharpness = Question("sharpness", "number")
    rows = [{"rated_sharpness": 2.0 * n, "predicted_sharpness": 50.0 + n} for n in range(40)]
    figures = question_figures([sharpness, FLAW], [*rows, {"rated_sharpness": None}], resamples=0)
    assert set(figures) == {"sharpness"} and figures["sharpness"]["n"] == 40
    assert figures["sharpness"]["srcc"] == pytest.approx(1) and figures["sharpness"]["plcc"] == pytest.approx(1)


def test_from_a_label_file_to_report_and_card(taught: Taught, tmp_path):
    run = tmp_path / "run"
    command = ["evaluate", "--protocol", "ood", "--data", f"rated_videos={taught.labels}", "--output", str(run)]
    command += ["--model", str(taught.checkpoint), "--name", "Taught", "--resamples", "20", "--question-scale"]
    command += ["sharpness=1-5", "--question"]
    refused = CliRunner().invoke(app, [*command, "colour"])
    assert refused.exit_code == 2 and "never taught the question colour" in " ".join(refused.output.split())
    done = CliRunner().invoke(app, [*command, "flaw", "--question", "sharpness"], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "Dimensions" in done.stdout and "First answer right" in done.stdout
    # Of the score, of the dimension and of the words: there are fewer than 30 videos.
    assert done.stdout.count("says nothing") >= 4 and " to " not in done.stdout.partition("PLCC and RMSE")[0]
    (figures,) = json.loads((run / "metrics.json").read_text())
    assert figures["questions"]["flaw"]["n"] == 5 and figures["questions"]["flaw"]["balanced_accuracy"] == 1
    assert figures["questions"]["sharpness"]["srcc"] > 0.8
    # Run again, nothing is asked twice, and the figures are the same.
    assert CliRunner().invoke(app, [*command, "flaw", "--question", "sharpness"]).exit_code == 0
    assert json.loads((run / "metrics.json").read_text()) == [figures]
    options = ["--output", str(tmp_path / "report.html"), "--pictures", str(tmp_path)]
    reported = CliRunner().invoke(app, ["report", str(run), *options])
    assert reported.exit_code == 0, reported.output
    assert list(tmp_path.glob("flaw_taught_*.png"))
    text = (tmp_path / "report.md").read_text()
    assert (
        "| Taught | rated_videos | sharpness | 6 |" in text and "| Taught | rated_videos | flaw | 5 | 1.000 |" in text
    )
    assert " to " not in "".join(line for line in text.splitlines() if line.startswith("| Taught")), "no interval"
    # What is ours stands before the tables of others.
    assert text.index("### Dimensions") < text.index("every figure") < text.index("### Table I:")
    results = read_results([run / "metrics.json"])
    card = model_card("you/taught", ModelFacts(), results).text
    assert "| SRCC: sharpness |" in card and "each word weighing the same: flaw | 1.000 |" in card
