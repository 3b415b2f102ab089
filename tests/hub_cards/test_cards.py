"""Cards say what is so."""

import json
import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard, SpaceCard

from hub_cards.demo_card import demo_card
from hub_cards.model_card import ModelFacts, ModelPart, add_model_card, model_card, read_facts
from hub_cards.results import CardError, Result, check_figures, read_results
from lmmvqa.checkpoints import default_files as default_checkpoint

SRCC = Result("konvid_1k", "test", None, "srcc", 0.81234, 240, (0.774, 0.846))
PART = Result("konvid_1k", "test", "codec", "srcc", 0.6511, 80)
FACTS = ModelFacts(
    title="Example",
    predicts="the mean opinion of people",
    licence="apache-2.0",
    parts=(ModelPart("decoder", "Llama 3.1", "its own"),),
    limits=("It never saw flicker.",),
    base_models=("org/base",),
    datasets=("org/ratings",),
)


def test_a_model_card_is_complete():
    card = ModelCard(str(model_card("user/example", FACTS, [SRCC])))
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "video-text-to-text", "apache-2.0")
    assert (data.base_model, data.datasets, data.metrics) == (["org/base"], ["org/ratings"], ["srcc"])
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_type, result.metric_value) == (
        "konvid_1k",
        "test",
        "srcc",
        0.81234,
    )
    opening = card.text.strip()[:400]
    assert "from 0 (worst) to 100 (best)" in opening
    for words in (
        "the mean opinion of people",
        "It never saw flicker.",
        "lmmvqa verify --model user/example",
        "@article{",
        "Llama 3.1",
        "| konvid_1k | test | 240 | SRCC | 0.812 | 0.774 to 0.846 |",
        'pipeline(model="user/example", trust_remote_code=True)',
    ):
        assert words in card.text, words


def test_a_name_with_a_bar_or_a_line_stays_in_its_cell():
    odd = Result("set | b", "test\nb", "codec | x264", "srcc", 0.5, 80)
    facts = replace(FACTS, parts=(ModelPart("decoder", "a | b", "its own"),))
    text = str(model_card("user/example", facts, [replace(odd, part=None), odd]))
    rows = [line for line in text.splitlines() if line.startswith("| ") and "\\|" in line]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert cells == [7, 7, 4] and "| set \\| b | test b | codec \\| x264 |" in text


def test_without_results_there_are_no_figures():
    card = ModelCard(str(model_card("user/example", ModelFacts())))
    assert card.data.eval_results is None
    assert "so none is stated here" in card.text


def test_an_adapter_names_its_base():
    card = ModelCard(str(model_card("user/adapter", FACTS, base_model="user/example")))
    assert (card.data.library_name, card.data.base_model) == ("peft", ["user/example"])


@pytest.mark.parametrize("field", ["training_data", "limits", "predicts"])
def test_a_figure_that_no_results_file_holds_cant_be_rendered(field):
    words = "SRCC 0.91 with people"
    facts = ModelFacts(**{field: (words,) if field == "limits" else words})
    with pytest.raises(CardError, match=r"0\.91"):
        model_card("user/example", facts, [SRCC])
    # The same sentence with what was measured is fine.
    measured = words.replace("0.91", ".812")
    model_card("user/example", ModelFacts(**{field: (measured,) if field == "limits" else measured}), [SRCC])


def test_what_is_no_figure_passes():
    check_figures("Version 5.23.0, Llama 3.1, CC BY 4.0, [paper](https://arxiv.org/abs/2408.14008), `dropout 0.15`", [])
    for figure in (".81", "-0.31", "0.8124"):
        with pytest.raises(CardError):
            check_figures(f"SRCC {figure}.", [])


def test_results_files(tmp_path):
    file = tmp_path / "metrics.json"
    row = {"set": "konvid_1k", "split": "test", "part": None, "videos": 240, "n": 240, "srcc": 0.81234, "krcc": None,
           "intervals": {"srcc": [0.774, 0.846]}, "level_accuracy": {"poor": 0.5, "total": 0.7},
           "notes": []}  # fmt: skip
    part = {**row, "part": "codec", "n": 80, "srcc": 0.6511, "intervals": {}, "level_accuracy": {}}
    file.write_text(json.dumps([row, part]))
    accuracy = Result("konvid_1k", "test", None, "level_accuracy", 0.7, 240)
    assert read_results([file]) == [SRCC, accuracy, PART]
    for content in ("{", "[{}]", '[{"set": "x", "split": "y", "part": null, "srcc": "high", "n": 3, "intervals": {}}]'):
        file.write_text(content)
        with pytest.raises(CardError, match=r"metrics\.json is not a results file"):
            read_results([file])


def test_figures_that_say_nothing_are_labelled_and_not_ranked(tmp_path):
    file = tmp_path / "metrics.json"
    row = {"set": "mine", "split": "all", "part": None, "n": 240, "srcc": 0.98612, "intervals": {"srcc": [0.97, 0.99]}}
    few, seen = {**row, "set": "few", "n": 12}, {**row, "set": "learned", "seen": 12}
    file.write_text(json.dumps([{**row, "seen": 0}, few, seen]))
    card = ModelCard(str(model_card("user/example", ModelFacts(), read_results([file]))))
    assert [result.dataset_type for result in card.data.eval_results] == ["mine"]
    assert "| mine | all | 240 | SRCC | 0.986 | 0.970 to 0.990 |" in card.text
    assert "| few | all | 12 | SRCC | 0.986 | **n = 12: says nothing** |" in card.text
    assert "| learned | all | 240 | SRCC | 0.986 | **learned from 12 of these videos** |" in card.text
    file.write_text(json.dumps([few, seen]))
    card = ModelCard(str(model_card("user/example", ModelFacts(), read_results([file]))))
    assert card.data.eval_results is None and card.data.metrics is None


def test_errors_are_stated_with_their_unit(tmp_path):
    file = tmp_path / "metrics.json"
    row = {"set": "mine", "split": "test", "part": None, "n": 99, "rmse": None, "rmse_fitted": 0.4567, "scale": [1, 5],
           "intervals": {}}  # fmt: skip
    file.write_text(json.dumps([row]))
    card = model_card("user/example", ModelFacts(), read_results([file]))
    assert "| RMSE after that fit (of 1 to 5) | 0.457 |" in card.text
    assert card.data.eval_results[0].metric_name == "RMSE after that fit (of 1 to 5)"


def test_a_part_may_be_told_of_but_does_not_stand_for_the_whole():
    facts = ModelFacts(training_data="On compression alone SRCC is .651.", set_names={"konvid_1k": "KoNViD-1k"})
    card = model_card("user/example", facts, [SRCC, PART])
    assert [(result.dataset_name, result.metric_value) for result in card.data.eval_results] == [("KoNViD-1k", 0.81234)]
    assert "| KoNViD-1k | test | codec | 80 | 0.651 |" in card.text and "| SRCC | 0.812 |" in card.text


def test_the_default_checkpoint_states_what_was_measured():
    """What is written by hand of how well it does, too."""
    results = read_results(default_checkpoint.RESULTS.glob("*.json"))
    model_card("user/default", read_facts(default_checkpoint.FACTS), results)
    story = (default_checkpoint.CHECKPOINT_FOLDER / "README.md").read_text(encoding="utf-8")
    (how_well,) = re.findall(r"^## How well it does\n(.*?)^## ", story, re.DOTALL | re.MULTILINE)
    check_figures(how_well, results)


def test_card_facts_and_results_lie_in_the_folder(tmp_path):
    facts, metrics, folder = tmp_path / "facts.yaml", tmp_path / "metrics.json", tmp_path / "checkpoint"
    folder.mkdir()
    facts.write_text("title: T\n")
    metrics.write_text(
        json.dumps([{"set": "konvid_1k", "split": "test", "part": None, "n": 240, "srcc": 0.81234, "intervals": {}}])
    )
    add_model_card(folder, str(folder), facts, {"konvid.json": metrics})
    card = ModelCard.load(folder / "README.md")
    assert (card.data.model_name, card.data.eval_results[0].metric_value) == ("T", 0.81234)
    assert (folder / "results" / "konvid.json").read_bytes() == metrics.read_bytes() and (
        folder / "card.yaml"
    ).is_file()
    with pytest.raises(CardError, match=r"other\.json is not a results file"):
        add_model_card(folder, str(folder), facts, {"x.json": tmp_path / "other.json"})


def test_facts_of_a_folder(tmp_path):
    file = tmp_path / "card.yaml"
    assert read_facts(file) == ModelFacts()
    file.write_text("title: T\nparts:\n- {part: decoder, source: here, licence: MIT}\nlimits: [a, b]\n")
    assert read_facts(file) == ModelFacts(title="T", parts=(ModelPart("decoder", "here", "MIT"),), limits=("a", "b"))
    file.write_text("titel: T\n")
    with pytest.raises(CardError, match="titel"):
        read_facts(file)


def test_the_card_of_the_demo():
    card = SpaceCard(str(demo_card("user/demo", "user/example")))
    assert (card.data.sdk, card.data.app_file, card.data.models) == ("gradio", "app.py", ["user/example"])
