"""From a folder of rated clips to trained projectors, with a tiny network and real clips."""

import hashlib
import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from inputs import DATA
from taught_models import settings as settings_of_taught
from tiny_models import make_tiny
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.checkpoints.merging import merge, merge_adapter
from lmmvqa.checkpoints.training_record import SeenVideos, TrainingRecord, read_record
from lmmvqa.commands.main import app
from lmmvqa.training.arguments import LmmVqaTrainingArguments, read_arguments
from lmmvqa.training.collators import AnswerCollator, ReadOutCollator
from lmmvqa.training.encoding import encode
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.run import build_trainer, run_training
from lmmvqa.training.telling import figures, further_comparison, warning_of_loss
from lmmvqa.training.trainer import distinct_videos
from lmmvqa.training.training_data import load_training_data
from lmmvqa.training.warm_up import SHARPNESS, token_words, word_direction, word_directions, word_scores
from lmmvqa.training.watching import DivergedError, LossWatch
from modeling_lmmvqa.feature_batches import assessment_inputs
from processing.errors import InputError
from processing.quality_prompts import FLAW
from processing.questions import Question

TINY_SETTINGS = dict(
    per_device_train_batch_size=4,
    per_device_eval_batch_size=2,
    learning_rate=1e-2,
    warmup_steps=0,
    save_steps=2,
    logging_steps=1,
    use_cpu=True,
    lr_scheduler_type="constant",
    standardize_features=True,
)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Two real clips under several names, rated, in the form of `rated_videos`."""
    folder = tmp_path_factory.mktemp("rated")
    rows = ["video,mos,split,fold"]
    for number, mos in enumerate((90, 70, 40, 20, 80, 30)):
        name = f"{number}.mp4"
        shutil.copy(DATA / ("flower.mp4" if number % 2 else "toy_monster.mp4"), folder / name)
        rows.append(f"{name},{mos},{'train' if number < 4 else 'test'},{number % 5}")
    (folder / "ratings.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny checkpoint on disk."""
    folder = tmp_path_factory.mktemp("base")
    for part in make_tiny():
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def settings(rated, base, tmp_path_factory):
    """Settings of a short run; features are encoded once for all tests."""
    cache = str(tmp_path_factory.mktemp("features"))
    return TINY_SETTINGS | dict(
        model=str(base), data=f"rated_videos={rated}", feature_cache=cache, projector_dropout=0.1
    )


def make_trainer(settings, folder, **changed):
    return build_trainer(LmmVqaTrainingArguments(output_dir=str(folder), **{**settings, **changed}))


def write_config(folder, settings, **changed):
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({**settings, "output_dir": str(folder / "run"), **changed}))
    return config


def adapter_state(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def same_weights(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_moves_the_projectors_alone_and_lowers_the_loss(settings, tmp_path):
    trainer = make_trainer(settings, tmp_path, max_steps=24)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all("projector.modules_to_save" in name and "standardizer" not in name for name in changed)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [entry["loss"] for entry in entries]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    # What is reported of a step: its rate, and the loss of each task; their mean over the tokens is the loss.
    assert all(
        entry["videos_per_second"] > 0 and entry["tokens_per_second"] > entry["videos_per_second"] for entry in entries
    )
    assert all(
        min(e["loss_score"], e["loss_level"]) <= e["loss"] * 1.001 <= 1.01 * max(e["loss_score"], e["loss_level"])
        for e in entries
        if {"loss_score", "loss_level"} <= set(e)
    )
    metrics = trainer.evaluate(trainer.tests["test"])
    assert {"eval_loss", "eval_srcc", "eval_plcc", "eval_level_accuracy"} <= set(metrics)


def test_warmed_up_projectors_say_the_ratings_in_words_of_the_decoder(settings, tmp_path):
    cold, trainer = make_trainer(settings, tmp_path), make_trainer(settings, tmp_path, warm_up_epochs=40)
    model, collator = trainer.model.base_model.model, trainer.data_collator
    rows = distinct_videos(trainer.train_dataset)
    ratings = torch.tensor([row["score"] for row in rows])
    direction = word_direction(model, collator.processor)
    errors = []
    for network in (cold.model.base_model.model.eval(), model.eval()):
        with torch.no_grad():
            errors.append(
                (word_scores(network.model, collator.video_inputs(rows), direction) - ratings).abs().mean().item()
            )
    assert errors[1] < 0.8 * errors[0]
    before, after = cold.model.state_dict(), trainer.model.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed and all("projector" in name and "standardizer" not in name for name in changed)
    # What is frozen stays so, and the same seed gives the same weights.
    assert {name for name, part in trainer.model.named_parameters() if part.requires_grad} == {
        name for name, part in cold.model.named_parameters() if part.requires_grad
    }
    again = make_trainer(settings, tmp_path, warm_up_epochs=40).model.state_dict()
    assert same_weights(after, again)


def test_a_decoder_that_learns_words_learns_what_the_tokens_say_and_not_the_ratings(settings, tmp_path):
    learning = dict(
        trains="lora",
        loss="words",
        tasks="score",
        warm_up_epochs=20,
        lora_dropout=0,
        max_steps=16,
        save_strategy="no",
        learning_rate=3e-2,
    )
    trainer = make_trainer(settings, tmp_path, **learning)
    model, collator = trainer.model.base_model.model, trainer.data_collator
    rows = distinct_videos(trainer.train_dataset)
    direction = word_direction(model, collator.processor)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "projector" in name}

    def distance():
        """Mean distance of the expected answers from what the tokens say."""
        with torch.no_grad():
            said = word_scores(model.eval().model, collator.video_inputs(rows), direction)
        return (torch.tensor([found["score"] for found in trainer.assess(rows)]) - said).abs().mean().item()

    apart = distance()
    trainer.train()
    assert distance() < 0.5 * apart
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items() if name in before)
    # Ratings of other videos change nothing once the projectors are as they are.
    losses = []
    for changed in (rows, [{**row, "score": other["score"]} for row, other in zip(rows, reversed(rows), strict=True)]):
        batch = trainer._prepare_inputs(collator(changed))
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model.eval(), batch).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("learns", [dict(loss="read_out"), dict(loss="answer", warm_up_epochs=1)], ids=str)
def test_data_without_ratings_teaches_no_rating(learns, settings, tmp_path):
    instructions = tmp_path / "instructions"
    instructions.mkdir()
    shutil.copy(DATA / "flower.mp4", instructions / "v_0.mp4")
    (instructions / "VideoInstruct.json").write_text(
        json.dumps([{"q": "What moves?", "a": "A flower.", "video_id": "v_0"}])
    )
    with pytest.raises(
        ValueError, match="learns from ratings, and the data has none: set loss=answer and warm_up_epochs=0"
    ):
        make_trainer(settings, tmp_path / "run", data=f"video_instructions={instructions}", **learns)


@pytest.mark.parametrize("frame_fusion", ["concat", "mean"])
def test_a_word_score_is_the_product_of_both_streams(frame_fusion):
    model, _ = make_tiny(frame_fusion=frame_fusion)
    config, counts = model.config, torch.tensor([2, 1])
    spatial = torch.randn(2, 2, config.num_spatial_tokens, model.model.spatial_feature_size)
    temporal = torch.randn(2, 2, config.num_temporal_tokens, config.temporal_config.feature_size)
    direction = torch.randn(config.text_config.hidden_size)
    network = model.model.eval()
    scores = word_scores(
        network, {"spatial_features": spatial, "temporal_features": temporal, "chunk_counts": counts}, direction
    )
    for video, count in enumerate(counts):
        expected = 100.0
        for features, projector in ((spatial, network.spatial_projector), (temporal, network.temporal_projector)):
            seconds = features[video, :count]
            tokens = projector(seconds.mean(0, keepdim=True) if frame_fusion == "mean" else seconds)
            expected *= torch.sigmoid(
                SHARPNESS * torch.nn.functional.cosine_similarity(tokens, direction, dim=-1).mean()
            )
        torch.testing.assert_close(scores[video], expected, rtol=1e-4, atol=1e-4)


def test_the_read_out_is_learned_in_one_pass_per_video(settings, tmp_path):
    trainer = make_trainer(settings, tmp_path, loss="read_out", max_steps=24)
    # One row a video, not one a question.
    assert len(trainer.train_dataset) == 4 and {len(rows) for rows in trainer.tests.values()} == {2}
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert all(entry["loss"] == pytest.approx(entry["loss_score"] + entry["loss_level"], rel=1e-3) for entry in entries)
    assert {"eval_loss", "eval_srcc"} <= set(trainer.evaluate(trainer.tests["test"]))
    alone = make_trainer(settings, tmp_path / "alone", loss="read_out", tasks="score", max_steps=1)
    alone.train()
    assert "loss_level" not in alone.state.log_history[0]


@pytest.mark.parametrize("loss", ["read_out", "answer"])
def test_further_questions_are_taught_by_columns_of_the_label_file(loss, taught, tmp_path):
    """A flaw in words and a dimension on a scale of its own; a row without a label is not asked."""
    base = taught.checkpoint.with_name("base")
    trainer = build_trainer(settings_of_taught(base, taught.labels, tmp_path / "run", loss=loss, max_steps=1))
    rows = trainer.train_dataset
    assert set(zip(rows["id"], rows["flaw"], rows["sharpness"], strict=True)) == {
        ("0", None, 0.0),
        ("1", "noise;blur", 100.0),
        ("2", "flicker", 0.0),
        ("3", "noise", 100.0),
    }
    trainer.train()
    entry = trainer.state.log_history[0]
    if loss == "answer":
        asked = [(row["id"], row["messages"][-1]["content"][0]["text"]) for row in rows if row["task"] == "flaw"]
        assert asked == [("1", "noise"), ("2", "flicker"), ("3", "noise")]
        assert {name for name in entry if "loss_" in name} <= {
            f"loss_{name}" for name in ("score", "level", "flaw", "sharpness")
        }
        return
    assert entry["loss"] == pytest.approx(
        entry["loss_score"] + entry["loss_level"] + 0.75 * entry["loss_flaw"] + entry["loss_sharpness"], rel=1e-3
    )
    collator, first = trainer.data_collator, distinct_videos(rows)
    targets = collator(first)["targets"]["flaw"]
    assert targets.sum(1).tolist() == [0, 1, 1, 1] and targets[1, FLAW.answers.index("blur")] == 0.5
    assert "flaw" not in collator(first[:1])["targets"]
    metrics = trainer.evaluate(trainer.tests["test"])
    assert {"eval_srcc", "eval_level_accuracy", "eval_flaw_balanced_accuracy", "eval_sharpness_plcc"} <= set(metrics)


def test_warmed_up_projectors_name_flaws_in_words_of_the_decoder(taught, tmp_path):
    base = taught.checkpoint.with_name("base")
    settings = settings_of_taught(base, taught.labels, tmp_path / "run", loss="read_out", warm_up_epochs=40)
    trainer = build_trainer(settings)
    model, collator = trainer.model.base_model.model.eval(), trainer.data_collator
    rows = distinct_videos(trainer.train_dataset)
    directions = word_directions(model, collator.processor, FLAW)
    with torch.no_grad():
        tokens = model.model.project_features(**collator.video_inputs(rows))
        said = token_words(tokens, model.config, directions)
    assert said.shape == (4, len(FLAW.answers)) and torch.allclose(said.exp().sum(1), torch.ones(4))
    found = [FLAW.answers[place] for place in said.argmax(1)]
    # The first video has no label.
    assert found[1] in ("noise", "blur") and found[2:] == ["flicker", "noise"]


def test_what_was_taught_is_kept_and_answered(taught):
    videos = [str(taught.labels / name) for name in ("4.mp4", "5.mp4")]
    answers = taught.model.assess(**taught.processor(videos=videos)).answers
    assert answers["flaw"].value == ["flicker", "noise"]
    assert answers["sharpness"].value[0] < 30 < 70 < answers["sharpness"].value[1]


def test_a_question_that_no_label_file_answers_is_refused(taught, tmp_path):
    base = taught.checkpoint.with_name("base")
    with pytest.raises(ValueError, match="tasks asks for colour, and no video to train on has an answer to it"):
        build_trainer(settings_of_taught(base, taught.labels, tmp_path, tasks=["score", "colour"]))
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    lines = (taught.labels / "ratings.csv").read_text().replace("Noise", "grain")
    (wrong / "ratings.csv").write_text(lines)
    with pytest.raises(ValueError, match="line 5: 'grain' is no answer to the question flaw: expected one of none"):
        build_trainer(settings_of_taught(base, wrong, tmp_path))
    shake = {"name": "flaw", "kind": "words", "answers": ["still", "shaken"]}
    (wrong / "ratings.csv").write_text((taught.labels / "ratings.csv").read_text().replace("flicker", "shaken"))
    with pytest.raises(ValueError, match="'noise' is no answer to the question flaw: expected one of still, shaken"):
        build_trainer(settings_of_taught(base, wrong, tmp_path, tasks=["score", shake]))


def test_the_answer_format_is_learned_where_it_is_asked_for(settings, tmp_path):
    """How likely the decoder is to say an allowed answer at all is a part of one loss, and not of the other."""
    found = {}
    for loss in ("read_out", "read_out_and_format"):
        trainer = make_trainer(settings, tmp_path / loss, loss=loss, max_steps=24)
        before = trainer.evaluate(trainer.tests["test"])["eval_loss"]
        trainer.train()
        found[loss] = before, right_share(trainer)
    assert found["read_out_and_format"][0] > found["read_out"][0]
    assert found["read_out_and_format"][1] > 1.3 * found["read_out"][1]


def right_share(trainer) -> float:
    """How likely the right levels and scores are, of all that the model may say, in geometric mean."""
    rows = distinct_videos(trainer.train_dataset)
    batch = replace(trainer.data_collator, ends=True)(rows)
    answers, levels = batch.pop("answers"), batch.pop("targets")["level"].argmax(1)
    with torch.no_grad():
        scores, words = answers.log_likelihoods(trainer.model.eval()(**batch).logits)
    right = [scores[place, round(row["score"])] + words[place, levels[place]] for place, row in enumerate(rows)]
    return (torch.stack(right).mean() / 2).exp().item()


def test_the_read_out_loss_is_that_of_assess(settings, tmp_path, monkeypatch):
    """What the loss sees are the very probabilities that `assess` reads, when it is asked the same questions."""
    trainer = make_trainer(settings, tmp_path, loss="read_out")
    monkeypatch.setattr(Question, "drawn", lambda question, key: question.fixed)
    rows = distinct_videos(trainer.train_dataset)
    collator = ReadOutCollator(trainer.data_collator.cache, trainer.processing_class, questions=("score", "level"))
    batch = collator(rows)
    model = trainer.model.eval()
    answers, levels = batch.pop("answers"), batch.pop("targets")["level"].argmax(1)
    with torch.no_grad():
        scores, words = answers.log_probabilities(model(**batch).logits)
    quality = model.assess(
        **assessment_inputs(trainer.processing_class, [collator.cache.load(row["features"]) for row in rows])
    )
    torch.testing.assert_close(scores.exp(), quality.score_probabilities, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(words.exp(), quality.level_probabilities, atol=1e-5, rtol=1e-3)
    assert [("poor", "fair", "good")[index] for index in levels] == [row["level"] for row in rows]


def test_right_answers_are_learned_to_their_end(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Question, "drawn", lambda question, key: question.fixed)
    trainer = make_trainer(settings, tmp_path, loss="read_out_and_format", max_steps=1)
    model, collator, processor = trainer.model.eval(), trainer.data_collator, trainer.processing_class
    rows = distinct_videos(trainer.train_dataset)
    batch = collator(rows)
    answers, levels = batch.pop("answers"), batch.pop("targets")["level"].argmax(1)
    with torch.no_grad():
        scores, words = answers.log_likelihoods(model(**batch).logits)
        for place, row in enumerate(rows):
            for task, answer, found in (
                ("score", f"{row['score']:.0f}", scores[place, round(row["score"])]),
                ("level", row["level"], words[place, levels[place]]),
            ):
                prompt = [
                    *processor.assessment_prefix_ids(batch["chunk_counts"][place].item()),
                    *processor.question_ids(processor.question(task).fixed),
                ]
                said = processor.answer_ids(answer)
                logits = model(input_ids=torch.tensor([[*prompt, *said]]), **collator.video_inputs([row])).logits[0]
                expected = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(said)[:, None]).sum()
                torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_checkpoint_tells_what_it_learned_from_wherever_it_goes(settings, base, rated, tmp_path):
    """Hashes of videos, sets and splits: those of the base, and those of each training since."""
    start = tmp_path / "base"
    shutil.copytree(base, start)
    earlier = TrainingRecord((SeenVideos("lsvq", "train", frozenset({"a" * 64})),))
    earlier.write(start)
    learning = dict(model=str(start), max_steps=1, validation_fraction=0.5, eval_strategy="steps", save_steps=1)
    run_training(write_config(tmp_path, settings, **learning), test=False)
    run = tmp_path / "run"
    merge(run, tmp_path / "merged")
    for part in (AutoModelForImageTextToText, AutoProcessor):
        part.from_pretrained(tmp_path / "merged").save_pretrained(tmp_path / "again")
    files = [rated / f"{number}.mp4" for number in range(4)]
    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    for folder in (run, run / "checkpoint-1", tmp_path / "merged", tmp_path / "again"):
        record = read_record(str(folder))
        # Two clips under several names: each is learned from, and chosen by.
        assert [(part.dataset, part.split) for part in record.parts] == [
            ("lsvq", "train"),
            ("rated_videos", "train"),
            ("rated_videos", "validation"),
        ]
        assert record.videos == digests | {"a" * 64}
        assert record.sets == {"lsvq": 1, "rated_videos": 2}
        assert str(tmp_path) not in (folder / "training_record.json").read_text()
    assert read_record(str(base)) is None
    (start / "training_record.json").write_text("[]")
    with pytest.raises(ValueError, match="is no training record"):
        read_record(str(start))


@pytest.mark.parametrize("trains", ["projectors", "projectors+lora", "lora", "projectors+decoder"])
def test_what_trains_is_saved_and_loads_with_its_base(settings, base, tmp_path, trains):
    metrics = run_training(write_config(tmp_path, settings, max_steps=2, trains=trains))
    assert {"test_srcc", "test_loss"} <= set(metrics)
    run = tmp_path / "run"
    size, whole = (sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in (run, base))
    assert (size < whole / 2) == (trains != "projectors+decoder")
    loaded, processor = AutoModelForImageTextToText.from_pretrained(run).eval(), AutoProcessor.from_pretrained(run)
    clip = str(DATA / "flower.mp4")
    found = loaded.assess(**processor(videos=[clip])).score
    assert not torch.equal(
        found, AutoModelForImageTextToText.from_pretrained(base).eval().assess(**processor(videos=[clip])).score
    )
    ours, _ = load_checkpoint(str(run))
    torch.testing.assert_close(ours.assess(**processor(videos=[clip])).score, found)
    if trains == "projectors+decoder":
        with pytest.raises(FileNotFoundError, match="full checkpoint already"):
            merge(run, tmp_path / "merged")
        return
    done = CliRunner().invoke(app, ["merge", str(run), str(tmp_path / "merged")])
    assert done.exit_code == 0, done.output
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    assert not hasattr(merged, "peft_config")
    torch.testing.assert_close(merged.assess(**processor(videos=[clip])).score, found, atol=1e-2, rtol=0)
    with pytest.raises(FileExistsError, match="not an empty folder"):
        merge(run, tmp_path / "merged")


def test_the_best_checkpoint_by_validation_srcc_is_kept(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("lmmvqa.training.run.FEW_VIDEOS", 2)
    trainer = make_trainer(
        settings,
        tmp_path,
        max_steps=6,
        validation_fraction=0.5,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="srcc",
        load_best_model_at_end=True,
    )
    assert not set(trainer.train_dataset["id"]) & set(trainer.eval_dataset["id"])
    trainer.train()
    evaluations = [entry["eval_srcc"] for entry in trainer.state.log_history if "eval_srcc" in entry and entry["step"]]
    assert len(evaluations) == 3 and trainer.state.best_metric == max(evaluations)
    trainer.save_model()
    assert same_weights(
        adapter_state(tmp_path), adapter_state(tmp_path / trainer.state.best_model_checkpoint.rpartition("/")[2])
    )


def test_folds_give_each_its_metrics_and_their_mean(settings, tmp_path):
    mean = run_training(write_config(tmp_path, settings, max_steps=1, folds=[0, 3], save_strategy="no"))
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert set(results) == {"mean", "fold_0", "fold_3"}
    assert mean["test_loss"] == pytest.approx((results["fold_0"]["test_loss"] + results["fold_3"]["test_loss"]) / 2)


def test_sources_are_mixed_and_shares_nest(settings, rated, tmp_path):
    exported = tmp_path / "exported"
    done = CliRunner().invoke(app, ["data", "build", f"rated_videos={rated}", "--out", str(exported), "--embed-videos"])
    assert done.exit_code == 0, done.output
    sources = [{"data": f"rated_videos={rated}", "levels": "authors"}, str(exported)]
    arguments = LmmVqaTrainingArguments(output_dir=str(tmp_path), data=sources)
    data = load_training_data(arguments)
    assert len(data.train) == 16 and set(data.train["source"]) == {"rated_videos", "exported"}
    assert set(data.tests) == {"rated_videos_test", "exported_test"}
    # The embedded copy of a video has the features of the file.
    model, processor = make_tiny()
    encoded, failures = encode(data, FeatureCache(settings["feature_cache"], model, processor), 1)
    assert failures == {} and len(set(encoded.train["features"])) == 2
    smaller = [
        set(
            load_training_data(
                LmmVqaTrainingArguments(output_dir=str(tmp_path), data=f"rated_videos={rated}", data_fraction=share)
            ).train["id"]
        )
        for share in (0.25, 0.5, 0.75, 1)
    ]
    assert [len(ids) for ids in smaller] == [1, 2, 3, 4] and all(a < b for a, b in itertools.pairwise(smaller))


def test_a_video_that_cannot_be_read_is_left_out(settings, rated, tmp_path, caplog):
    mine = tmp_path / "mine"
    shutil.copytree(rated, mine)
    (mine / "0.mp4").write_bytes(b"no video")
    config = write_config(
        tmp_path, settings, data=f"rated_videos={mine}", feature_cache=str(tmp_path / "cache"), max_steps=1
    )
    done = CliRunner().invoke(app, ["features", str(config)])
    assert done.exit_code == 1 and "0.mp4" in done.output, done.output
    trainer = build_trainer(read_arguments(config))
    assert sorted(set(trainer.train_dataset["id"])) == ["1", "2", "3"]
    for number in range(6):
        (mine / f"{number}.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="None of the training videos"):
        build_trainer(read_arguments(config))


def test_training_without_a_cache_gives_the_same_loss(settings, tmp_path):
    losses = {}
    for cached in (True, False):
        trainer = make_trainer(settings, tmp_path / str(cached), max_steps=1, cache_features=cached, save_strategy="no")
        assert ("features" in trainer.train_dataset.column_names) == cached
        losses[cached] = trainer.evaluate(trainer.tests["test"])
    # The cache holds half precision, which is coarse for the small features of the tiny temporal tower.
    for name in ("eval_loss", "eval_srcc"):
        assert losses[True][name] == pytest.approx(losses[False][name], rel=1e-2)


def test_a_cache_that_does_not_fit_the_disk_is_refused(settings, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("lmmvqa.training.feature_cache.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="cache_features=false"):
        make_trainer(settings, tmp_path, feature_cache=str(tmp_path / "cache"))


def test_the_size_that_is_told_is_the_size_that_is_taken(settings, tmp_path):
    model, processor = make_tiny()
    cache = FeatureCache(tmp_path, model, processor)
    videos = [str(DATA / "flower.mp4"), str(DATA / "toy_monster.mp4")]
    told = cache.check_space(videos, 2)
    list(cache.fill(zip(cache.keys(videos), videos, strict=True), workers=2))
    taken = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert told < taken < told + 2 * 300


def test_the_cache_is_used_and_never_stale(rated, tmp_path):
    model, processor = make_tiny()
    video = str(rated / "0.mp4")

    def load(path):
        cache = FeatureCache(tmp_path / "cache", model, processor)
        key = cache.key(path)
        assert [error for _, error in cache.fill([(key, path)])] == [None]
        return cache.load(key)

    first = load(video)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    # The same content under another name is the same entry; another weight or setting is another one.
    shutil.copy(video, tmp_path / "copy.mp4")
    load(str(tmp_path / "copy.mp4"))
    # Nor does it matter that a checkpoint carries its code.
    processor.video_processor.auto_map = {"AutoVideoProcessor": "video_processing_lmmvqa.LmmVqaVideoProcessor"}
    load(video)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with torch.no_grad():
        model.model.vision_tower.embeddings.position_embedding.weight.mul_(2)
    assert not torch.equal(first["spatial_features"], load(video)["spatial_features"])
    processor.video_processor.max_chunks = 2
    assert len(load(video)["spatial_features"]) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_validation_videos_are_encoded_only_to_be_evaluated(settings, tmp_path):
    arguments = {**settings, "output_dir": str(tmp_path), "validation_fraction": 0.5}
    assert load_training_data(LmmVqaTrainingArguments(**arguments)).validation is None
    data = load_training_data(LmmVqaTrainingArguments(**arguments, eval_strategy="epoch"))
    assert len(data.validation) == len(data.train) == 4


@pytest.mark.parametrize("field", ["image_size", "hidden_act"])
def test_any_field_of_a_tower_makes_another_entry(field, tmp_path):
    """No list by hand tells which fields count."""
    model, processor = make_tiny()
    before = FeatureCache(tmp_path, model, processor).key(str(DATA / "flower.mp4"))
    changed = {"image_size": 70, "hidden_act": "gelu"}[field]
    setattr(model.config.vision_config, field, changed)
    assert FeatureCache(tmp_path, model, processor).key(str(DATA / "flower.mp4")) != before


def test_what_lies_behind_the_towers_makes_no_other_entry(tmp_path):
    keys = set()
    for fields in ({}, {"frame_fusion": "mean"}, {"levels": ["a", "b"]}, {"spatial_projector_type": "mlp"}):
        keys.add(FeatureCache(tmp_path, *make_tiny(**fields)).key(str(DATA / "flower.mp4")))
    assert len(keys) == 1
    perceiver = FeatureCache(tmp_path, *make_tiny(spatial_projector_type="perceiver"))
    assert perceiver.key(str(DATA / "flower.mp4")) not in keys, "it reads the whole map"


def test_labels_are_the_answers_alone(settings, tmp_path):
    trainer = make_trainer(settings, tmp_path)
    rows = [trainer.train_dataset[index] for index in range(4)]
    processor = trainer.processing_class
    batch = trainer.data_collator(rows)
    for row, labels, input_ids in zip(rows, batch["labels"], batch["input_ids"], strict=True):
        answer = labels[labels >= 0]
        text = row["messages"][-1]["content"][0]["text"]
        assert answer.tolist() == processor.answer_ids(text)
        assert torch.equal(answer, input_ids[-len(answer) :])
        prompt = row["messages"][:-1]
        whole = processor.prefix_ids(prompt, 4) + processor.question_ids(prompt) + answer.tolist()
        assert input_ids[-len(whole) :].tolist() == whole


def test_every_answer_of_a_conversation_is_learned(tiny):
    _, processor = tiny
    text = lambda role, content: {"role": role, "content": [{"type": "text", "text": content}]}  # noqa: E731
    question = {"role": "user", "content": [{"type": "video", "text": None}, {"type": "text", "text": "What is it?"}]}
    messages = [question, text("assistant", "A flower."), text("user", "Which colour?"), text("assistant", "Red.")]
    ids, labels = AnswerCollator(None, processor)._tokens(messages, 2)
    learned = [token for token, label in zip(ids, labels, strict=True) if label != -100]
    assert learned == processor.answer_ids("A flower.") + processor.answer_ids("Red.")
    assert ids.count(processor.video_token_id) == 2 * processor.tokens_per_chunk
    rendered = processor.tokenizer.decode(ids)
    assert rendered.count("A flower.") == 1 and rendered.endswith("Red." + processor.tokenizer.eos_token)
    with pytest.raises(ValueError, match="no answer"):
        AnswerCollator(None, processor)._tokens(messages[:1], 2)


@pytest.mark.parametrize("warm_up_epochs", [0, 3])
def test_resuming_ends_with_the_same_weights(settings, tmp_path, warm_up_epochs, caplog):
    settings = settings | {"warm_up_epochs": warm_up_epochs}
    caplog.set_level("INFO", "lmmvqa")
    make_trainer(settings, tmp_path / "whole", max_steps=4).train()
    make_trainer(settings, tmp_path / "parts", max_steps=2).train()
    make_trainer(settings, tmp_path / "parts", max_steps=4).train(resume_from_checkpoint=True)
    assert same_weights(*(adapter_state(tmp_path / name / "checkpoint-4") for name in ("whole", "parts")))
    for name in ("whole", "parts"):
        log = json.loads((tmp_path / name / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
        warm_up = log[:warm_up_epochs]
        assert [entry["warm_up_epoch"] for entry in warm_up] == list(range(1, warm_up_epochs + 1))
        assert not warm_up or warm_up[-1]["warm_up_error"] < warm_up[0]["warm_up_error"]
        assert not any("warm_up_epoch" in entry for entry in log[warm_up_epochs:])
    first, *_, last = (entry["loss"] for entry in log if "loss" in entry)
    assert f"loss {last:.3f} (at first {first:.3f})" in caplog.messages[-1]


def test_a_folder_with_another_run_is_not_gone_on_with(settings, tmp_path, caplog):
    caplog.set_level("INFO", "lmmvqa")
    config = write_config(tmp_path, settings, max_steps=2)
    run_training(config)
    # A checkpoint that a kill cut off is passed over.
    (tmp_path / "run" / "checkpoint-9").mkdir()
    (tmp_path / "run" / "checkpoint-9" / "trainer_state.json").write_text('{"epoch"')
    assert "Goes on" not in caplog.text
    run_training(config, {"logging_steps": 2})
    assert f"Goes on from {tmp_path / 'run' / 'checkpoint-2'}." in caplog.messages
    with pytest.raises(ValueError, match=r"learning_rate \(0.01 before, 0.02 now\)"):
        run_training(config, {"learning_rate": 0.02})


def test_divergence_stops_the_run_and_keeps_the_last_checkpoint(settings, tmp_path):
    trainer = make_trainer(settings, tmp_path, max_steps=8)
    step = trainer.training_step

    def poisoned(*args, **kwargs):
        if trainer.state.global_step == 5:
            for weight in trainer.model.parameters():
                if weight.requires_grad:
                    weight.data.fill_(float("inf"))
        return step(*args, **kwargs)

    trainer.training_step = poisoned
    with pytest.raises(DivergedError, match=r"loss of step 6 is nan.*checkpoint-4"):
        trainer.train()
    state = adapter_state(tmp_path / "checkpoint-4")
    assert all(tensor.isfinite().all() for tensor in state.values()) and not (tmp_path / "checkpoint-6").exists()


def test_a_growing_loss_is_divergence():
    watch = LossWatch()
    for step, loss in enumerate(np.linspace(5, 2, 100)):
        watch.check(loss, step, None)
    with pytest.raises(DivergedError, match="No checkpoint was written"):
        for step in range(100):
            watch.check(30.0, step, None)


def test_trained_weights_of_another_model_are_refused(settings, tmp_path):
    make_trainer(settings, tmp_path).save_model()
    same, _ = make_tiny()
    before = same.model.spatial_projector.standardizer.mean.clone()
    assert not torch.equal(merge_adapter(same, tmp_path).model.spatial_projector.standardizer.mean, before)
    other, _ = make_tiny(spatial_projector_type="mlp")
    with pytest.raises(RuntimeError, match="other projectors"):
        merge_adapter(other, tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rat": 1}, "learning_rat .did you mean learning_rate"),
        ({"tasks": "both"}, "tasks='both'"),
        ({"trains": "all"}, "trains='all'"),
        ({"projector_dropout": 1.0}, "projector_dropout=1.0"),
        ({"data_fraction": 0}, "data_fraction=0"),
        ({"warm_up_epochs": 2, "cache_features": False}, "warm_up_epochs=2"),
        ({"loss": "words"}, "set trains to lora"),
        ({"data": "rated_videos=missing"}, "missing does not exist"),
        ({"data": "konvid=mine"}, "did you mean konvid_1k"),
        ({"data": "konvid_1k"}, "write konvid_1k=FOLDER"),
        ({"data": None}, "names no data set"),
        ({"data": [{"levels": "authors"}]}, "is no data set"),
        ({"model": "/missing/model"}, "does not exist"),
        ({"model": "DATA"}, "holds no config.json"),
        ({"data_options": {"levles": "authors"}}, "levles"),
        ({"eval_strategy": "steps", "eval_steps": 1}, "validation_fraction=0.1"),
        ({"push_to_hub": True, "model": None}, "push the base first"),
        ({"folds": [0], "data_options": {"fold": 1}}, "not both"),
    ],
)
def test_bad_settings_are_named_before_anything_is_loaded(settings, tmp_path, monkeypatch, changed, message):
    monkeypatch.setattr("lmmvqa.training.run.load_base", lambda *_, **__: pytest.fail("the model was loaded"))
    changed = {key: str(DATA) if value == "DATA" else value for key, value in changed.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_training(write_config(tmp_path, settings, **changed))


def test_a_model_and_data_that_do_not_fit_are_named(settings, base, tmp_path):
    for file in base.iterdir():
        shutil.copy(file, tmp_path)
    config = json.loads((base / "config.json").read_text())
    for change, message in (
        ({"levels": ["bad", "good"]}, "the model knows bad, good"),
        ({"model_type": "clip_vision_model"}, "not an LMM-VQA"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            make_trainer(settings, tmp_path / "run", model=str(tmp_path))
    text = config["text_config"] | {"max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config | {"text_config": text}))
    with pytest.raises(ValueError, match="the decoder reads 64"):
        make_trainer(settings, tmp_path / "run", model=str(tmp_path))


def test_a_config_that_is_not_there_or_no_yaml(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.yaml does not exist.*default_checkpoint"):
        read_arguments(tmp_path / "config.yaml")
    for content in (b"a: [", b"a: \xe1"):
        (tmp_path / "config.yaml").write_bytes(content)
        with pytest.raises(InputError, match="no YAML file"):
            read_arguments(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("just text")
    with pytest.raises(ValueError, match="holds no settings"):
        read_arguments(tmp_path / "config.yaml")
    bare = read_arguments(
        "default_checkpoint", {"learning_rate": "2e-3", "eval_strategy": False, "save_strategy": False}
    )
    assert bare.learning_rate == 2e-3 and bare.eval_strategy == "no"


def test_rated_videos_gives_each_video_once(settings, tmp_path):
    trainer = make_trainer(settings, tmp_path)
    assert len(trainer.train_dataset) == 8 and len(distinct_videos(trainer.train_dataset)) == 4


def test_figures_of_further_questions_are_told():
    metrics = {"loss": 1.0, "srcc": 0.5, "level_accuracy": 0.4, "sharpness_srcc": 0.25, "flaw_balanced_accuracy": 0.75}
    said = figures({f"eval_{name}": value for name, value in metrics.items()}, "eval")
    assert said == (
        "loss 1.000, SRCC 0.500, right level 0.400, SRCC of sharpness 0.250, balanced accuracy of flaw 0.750"
    )
    table = further_comparison({"test": (None, metrics | {"n": 40})})
    cells = [list(column.cells) for column in table.columns]
    assert cells[2:] == [["SRCC of sharpness", "balanced accuracy of flaw"], ["-", "-"], ["0.250", "0.750"]]
    assert cells[1] == ["40", "40"] and further_comparison({"test": (None, {"srcc": 0.5})}) is None


def train_by_command(settings, folder, **changed):
    done = CliRunner().invoke(app, ["train", str(write_config(folder, settings, **changed))], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    # Lines are wrapped where the terminal ends.
    return " ".join(done.output.split()), (folder / "run" / "README.md").read_text()


def test_a_run_tells_what_it_does_and_how_it_went(settings, tmp_path, caplog):
    caplog.set_level("INFO")
    said, card = train_by_command(
        settings, tmp_path, max_steps=12, validation_fraction=0.5, eval_strategy="steps", eval_steps=6, logging_steps=50
    )
    logged = caplog.text
    assert "Trains the projectors: " in logged and " parameters. Learned from 2 videos of rated_videos." in logged
    # Seen ten times, however far apart the reports of a long run would be.
    assert logged.count("Step ") == 12 and "Step 1 of 12, epoch " in logged and "tokens/s" not in logged
    entries = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    first, *_, last = [entry for entry in entries if "eval_loss" in entry]
    assert (first["step"], last["step"]) == (0, 12)
    assert f"Validation before training: loss {first['eval_loss']:.3f}" in logged
    assert logged.count("(n = 2: its correlations say nothing)") == 3
    # Base against tuned, on the validation part; then where the result is, and what can be done with it.
    assert f"{first['eval_loss']:.3f}" in said and f"{last['eval_loss']:.3f}" in said
    assert said.index("base") < said.index("tuned")
    assert f"The result is in {tmp_path / 'run'}." in logged
    assert f"Next: lmmvqa score clip.mp4 --model {tmp_path / 'run'} lmmvqa merge {tmp_path / 'run'}" in said
    # The card is ours, and of any machine.
    assert "Score: 0 (worst) to 100 (best)" in card and "Learned from 2 videos of rated_videos" in " ".join(
        card.split()
    )
    assert str(tmp_path) not in card and settings["model"] not in card and "srcc" not in card.partition("# run")[0]
    for readme in (tmp_path / "run").glob("checkpoint-*/README.md"):
        raise AssertionError(f"{readme} is a template of peft")


@pytest.mark.parametrize(("count", "tuned", "warns"), [(40, 3.3, True), (40, 3.0, False), (12, 3.3, False)])
def test_a_base_that_is_better_is_named(count, tuned, warns):
    text = warning_of_loss({"loss": 3.1, "n": count}, {"loss": tuned, "n": count})
    assert bool(text) == warns
    assert not warns or "loss 3.100, tuned 3.300" in text
    assert warning_of_loss(None, {"loss": tuned, "n": count}) is None


def test_a_correlation_of_a_handful_of_videos_chooses_nothing(settings, tmp_path, caplog):
    trainer = make_trainer(
        settings,
        tmp_path,
        validation_fraction=0.5,
        eval_strategy="steps",
        save_steps=1,
        eval_steps=1,
        max_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="srcc",
    )
    trainer.train()
    assert "2 rated videos, too few to choose the best checkpoint by srcc" in caplog.text
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if entry.get("eval_loss") and entry["step"]]
    assert trainer.state.best_metric == min(losses)


def test_states_of_the_trainer_are_not_pushed(settings, tmp_path):
    with pytest.raises(ValueError, match="set it to every_save or end"):
        LmmVqaTrainingArguments(output_dir=str(tmp_path), **settings, hub_strategy="checkpoint")
