"""From rated sets to tables: protocols, methods, ablations, report, benchmark of understanding; killed and started
again."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dataset_layouts
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from inputs import DATA
from loopback_judge import loopback_judge, write_questions
from scipy.stats import spearmanr
from tiny_models import make_tiny, make_tokenizer
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from dataset_builders.set_specs import SetSpec
from lmmvqa.commands.main import app
from lmmvqa.evaluation import methods, natural_scene, rated_sets, vcgbench
from lmmvqa.evaluation.motion import motion_curve
from lmmvqa.evaluation.report import write_report
from lmmvqa.evaluation.vcgbench import Judge, JudgeError, judge_instruction, read_mark, read_questions, run_vcgbench
from lmmvqa.evaluation.vqa_metric.vqa_metric import vqa_metrics
from processing.questions import AnswerError
from processing.video_reader import open_video

VIDEOS = 20


def ffmpeg(*arguments) -> None:
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)], check=True)


# The command, but killed as by SIGKILL before its training step of this number (from 0).
KILLED_IN_TRAINING = """
import itertools, os, signal, sys
from lmmvqa.training.trainer import LmmVqaTrainer
steps, step = itertools.count(), LmmVqaTrainer.training_step
def counted(*arguments, **keywords):
    if next(steps) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments, **keywords)
LmmVqaTrainer.training_step = counted
from lmmvqa.commands.main import app
app(sys.argv[2:])
"""


def into(output: Path, command: list) -> list[str]:
    """The command with another folder for its output."""
    place = command.index("--output") + 1
    return [str(argument) for argument in (*command[:place], output, *command[place + 1 :])]


def kill_in_training(step: int, command: list[str]) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_TRAINING, str(step), *command], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.fixture
def steps(monkeypatch):
    """Counts the steps of training in this process."""
    from lmmvqa.training.trainer import LmmVqaTrainer

    taken, step = [], LmmVqaTrainer.training_step
    monkeypatch.setattr(
        LmmVqaTrainer, "training_step", lambda *arguments, **keywords: taken.append(1) or step(*arguments, **keywords)
    )
    return taken


def run(*arguments, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def konvid(tmp_path_factory):
    """The layout of KoNViD-1k with real ratings, where they are at hand; second-long clips of falling quality stand
    in."""
    there = (dataset_layouts.LABELS / "konvid_1k").is_dir()
    ratings = (
        dataset_layouts.real_ratings("konvid_1k/KoNViD_1k_mos.csv")
        if there
        else dataset_layouts.numbered(1200, "7{:03}", 1.3, 4.6)
    )
    root = dataset_layouts.konvid(tmp_path_factory.mktemp("konvid"), ratings[:VIDEOS])
    order = sorted(ratings[:VIDEOS], key=lambda rating: -rating[1])
    for place, (name, _) in enumerate(order):
        source = DATA / ("flower.mp4" if place % 2 else "toy_monster.mp4")
        target = root / "KoNViD_1k_videos" / f"{name}.mp4"
        ffmpeg(
            "-ss",
            0.1 * place,
            "-t",
            1,
            "-i",
            source,
            "-an",
            "-vf",
            "scale=208:208",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-crf",
            20 + 1.5 * place,
            target,
        )
    return root


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model, processor = make_tiny()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two steps of training for a tiny network."""
    path = tmp_path_factory.mktemp("recipe") / "quick.yaml"
    settings = {
        "data": "konvid_1k=unused",
        "output_dir": "unused",
        "tasks": "score_and_level",
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
        "encoding_workers": 1,
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def ood_run(konvid, tiny_checkpoint, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "ood"
    run(
        "evaluate",
        "--protocol",
        "ood",
        "--data",
        f"konvid_1k={konvid}",
        "--model",
        tiny_checkpoint,
        "--output",
        output,
        "--name",
        "tiny",
        "--resamples",
        100,
    )
    return output


@pytest.fixture(scope="module")
def fold_run(konvid, tiny_checkpoint, recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "folds"
    command = [
        "evaluate",
        "--protocol",
        "5fold",
        "--data",
        f"konvid_1k={konvid}",
        "--model",
        tiny_checkpoint,
        "--output",
        output,
        "--recipe",
        recipe,
        "--name",
        "tiny, tuned",
        "--resamples",
        50,
    ]
    run(*command)
    return output, command


def test_predictions_come_first_and_everything_from_them(ood_run, konvid):
    table = pq.read_table(ood_run / "predictions.parquet").to_pylist()
    assert len(table) == VIDEOS and {row["set"] for row in table} == {"konvid_1k"}
    for row in table:
        probabilities = np.array(row["score_probabilities"])
        assert len(probabilities) == 101 and probabilities.sum() == pytest.approx(1, abs=1e-4)
        assert row["predicted"] == pytest.approx(probabilities @ np.arange(101), abs=1e-2)
        assert 0 <= row["interval"][0] < row["interval"][1] <= 100 and row["duration_s"] == pytest.approx(1, abs=0.1)
        assert row["score"] == pytest.approx(20 * row["mos"])
    metrics = json.loads((ood_run / "metrics.json").read_text())
    assert [(row["split"], row["part"], row["n"]) for row in metrics] == [("all", None, VIDEOS)]
    expected = vqa_metrics([row["predicted"] for row in table], [row["mos"] for row in table], resamples=100)
    assert metrics[0]["srcc"] == pytest.approx(expected["srcc"])
    assert metrics[0]["intervals"]["srcc"] == pytest.approx(expected["intervals"]["srcc"])
    right = np.mean([row["predicted_level"] == row["level"] for row in table])
    assert metrics[0]["level_accuracy"]["total"] == pytest.approx(right)


def test_nothing_is_computed_twice_and_one_folder_is_one_run(ood_run, konvid, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(methods.LmmVqa, "__init__", lambda *_, **__: pytest.fail("predicted again"))
    command = [
        "evaluate",
        "--protocol",
        "ood",
        "--data",
        f"konvid_1k={konvid}",
        "--model",
        tiny_checkpoint,
        "--output",
        ood_run,
        "--resamples",
        100,
    ]
    run(*command, "--name", "tiny")
    assert "holds another run" in run(*command, "--name", "another", code=2)


def test_generated_answers_that_do_not_parse_are_counted(konvid, tiny_checkpoint, tmp_path):
    """A network with random weights does not know the answer format; a prediction is never made up for it."""
    said = run(
        "evaluate",
        "--protocol",
        "ood",
        "--data",
        f"konvid_1k={konvid}",
        "--model",
        tiny_checkpoint,
        "--output",
        tmp_path,
        "--read-out",
        "generate",
        code=1,
    )
    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    unparsable = [row for row in table if row["unparsable"]]
    assert unparsable and all(row["predicted"] is None and "is not a" in row["error"] for row in unparsable)
    metrics = json.loads((tmp_path / "metrics.json").read_text())[0]
    assert metrics["unparsable"] == len(unparsable) and metrics["n"] == VIDEOS - len(unparsable)
    assert f"({len(unparsable)} gave an unparsable answer)" in said.replace("\n", " ")


@pytest.mark.parametrize("option", ["--read-out", "--readout"])
def test_an_unknown_read_out_is_refused(option, tmp_path):
    """By the documents' spelling and by that of older releases."""
    said = run("evaluate", "--protocol", "ood", "--data", "mine", "--output", tmp_path, option, "words", code=2)
    assert "is not one of 'distribution', 'generate', 'level-words'" in " ".join(said.replace("│", "").split())


def test_five_folds_from_data_to_table(fold_run, konvid):
    output, _command = fold_run
    table = pq.read_table(output / "predictions.parquet").to_pylist()
    rows = rated_sets.read_set(SetSpec.parse(f"konvid_1k={konvid}"))
    assert {row["id"]: row["fold"] for row in table} == {row.id: row.fold for row in rows}
    metrics = json.loads((output / "metrics.json").read_text())
    assert [row["split"] for row in metrics] == [*(f"fold {fold}" for fold in range(5)), "mean of folds"]
    folds, mean = metrics[:5], metrics[5]
    assert mean["srcc"] == pytest.approx(np.mean([fold["srcc"] for fold in folds])) and mean["n"] == VIDEOS
    assert sum(map(sum, mean["confusion"])) == VIDEOS
    assert mean["level_accuracy"]["total"] == pytest.approx(
        np.mean([row["predicted_level"] == row["level"] for row in table])
    )


def test_features_of_another_run_are_taken(fold_run, ood_run, konvid, tiny_checkpoint, tmp_path):
    features = fold_run[0] / "features"
    before = set(features.iterdir())
    run(
        "evaluate",
        "--protocol",
        "ood",
        "--data",
        f"konvid_1k={konvid}",
        "--model",
        tiny_checkpoint,
        "--output",
        tmp_path,
        "--feature-cache",
        features,
        "--resamples",
        0,
    )
    assert set(features.iterdir()) == before
    found, expected = (pq.read_table(folder / "predictions.parquet").to_pylist() for folder in (tmp_path, ood_run))
    for row, other in zip(found, expected, strict=True):
        # Features are kept in half precision.
        assert row["predicted"] == pytest.approx(other["predicted"], abs=0.5) and row["duration_s"] == pytest.approx(
            other["duration_s"]
        )


def test_folds_that_were_killed_go_on_where_they_were(fold_run, steps, tmp_path):
    """SIGKILL in the second of five folds: the first is neither trained nor predicted again, and the figures are those
    of a run without it."""
    direct, command = fold_run
    shutil.copytree(direct / "features", tmp_path / "features")
    kill_in_training(3, into(tmp_path, command))
    trained = {file: file.stat().st_mtime_ns for file in tmp_path.glob("konvid_1k/fold_*/adapter_model.safetensors")}
    assert len(trained) == 1 and not (tmp_path / "metrics.json").exists()
    run(*into(tmp_path, command))
    assert len(steps) == 4 * 2
    assert trained == {file: file.stat().st_mtime_ns for file in trained}
    found, expected = (pq.read_table(folder / "predictions.parquet").to_pylist() for folder in (tmp_path, direct))
    assert len(found) == VIDEOS
    assert {row["key"]: row["predicted"] for row in found} == pytest.approx(
        {row["key"]: row["predicted"] for row in expected}, abs=1e-3
    )
    assert json.loads((tmp_path / "metrics.json").read_text())[-1]["srcc"] == pytest.approx(
        json.loads((direct / "metrics.json").read_text())[-1]["srcc"]
    )


def test_folds_whose_predictions_are_lost_are_not_trained_again(fold_run, steps):
    output, command = fold_run
    before = pq.read_table(output / "predictions.parquet")
    lost = before.filter(np.array([row["fold"] != 3 for row in before.to_pylist()]))
    pq.write_table(lost, output / "predictions.parquet")
    run(*command)
    after = {row["key"]: row["predicted"] for row in pq.read_table(output / "predictions.parquet").to_pylist()}
    assert not steps and after == pytest.approx({row["key"]: row["predicted"] for row in before.to_pylist()}, abs=1e-3)


def test_levels_protocol_and_parts_of_own_videos(konvid, tmp_path):
    """One's own label file: test split, contents for the bootstrap, families as rows of their own."""
    files = sorted((konvid / "KoNViD_1k_videos").glob("*.mp4"))
    lines = ["video,mos,split,content,family"]
    lines += [
        f"{file},{10 + 4 * i},{'test' if i >= 4 else 'train'},content{i % 6},{'codec' if i % 2 else 'spatial'}"
        for i, file in enumerate(files)
    ]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "ratings.csv").write_text("\n".join(lines))
    predictions = tmp_path / "perfect.csv"
    predictions.write_text(
        "video,prediction,level\n" + "\n".join(f"{file.name},{i},good" for i, file in enumerate(files))
    )
    run(
        "evaluate",
        "--protocol",
        "levels",
        "--data",
        f"rated_videos={tmp_path / 'own'}",
        "--method",
        predictions,
        "--output",
        tmp_path / "run",
    )
    rows = {row["part"]: row for row in json.loads((tmp_path / "run" / "metrics.json").read_text())}
    assert set(rows) == {None, "codec", "spatial"} and rows[None]["n"] == VIDEOS - 4 and rows["codec"]["n"] == 8
    assert rows[None]["srcc"] == pytest.approx(1) and rows[None]["level_accuracy"]["good"] == 1
    said = run(
        "evaluate",
        "--protocol",
        "5fold",
        "--data",
        f"rated_videos={tmp_path / 'own'}",
        "--method",
        predictions,
        "--output",
        tmp_path / "no",
        code=2,
    )
    assert "column fold" in said.replace("\n", " ")


def test_an_exported_set_gives_the_same_rows(konvid, tmp_path):
    run("data", "build", f"konvid_1k={konvid}", "--out", tmp_path / "out", "--embed-videos")
    exported = rated_sets.read_set(SetSpec.parse(str(tmp_path / "out")))
    built = rated_sets.read_set(SetSpec.parse(f"konvid_1k={konvid}"))
    assert [(row.id, row.mos, row.level, row.fold) for row in exported] == [
        (row.id, row.mos, row.level, row.fold) for row in built
    ]
    with open_video(exported[0].source) as one, open_video(built[0].source) as other:
        assert one.info.num_frames == other.info.num_frames


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "lsvqq=."], "there is no set 'lsvqq'"),
        (["--data", "konvid_1k=nowhere"], "nowhere does not exist"),
        (["--data", "nowhere"], "is neither a folder nor a Hub id"),
        (["--data", "{konvid}", "--method", "magic"], "--method magic is unknown"),
        (["--data", "{konvid}", "--method", "zero-shot"], "needs --model"),
        (["--data", "{konvid}", "--method", "{labels}"], "has no column video or path"),
        (["--data", "{konvid}"], "has the splits train"),
    ],
)
def test_bad_commands_are_clear_errors(arguments, message, konvid, tmp_path):
    labels = konvid / "KoNViD_1k_metadata" / "KoNViD_1k_mos.csv"
    arguments = [text.format(konvid=f"konvid_1k={konvid}", labels=labels) for text in arguments]
    said = run("evaluate", "--protocol", "in-sample", "--output", tmp_path / "run", *arguments, code=2)
    assert message in " ".join(said.split())
    assert not (tmp_path / "run").exists()


def test_killed_and_started_again(konvid, tmp_path, caplog):
    """SIGKILL in the middle: nothing is lost, nothing is there twice, and the result is that of a run without it."""
    command = ["evaluate", "--protocol", "ood", "--data", f"konvid_1k={konvid}", "--method", "brisque"]
    command += ["--resamples", "0", "--output", str(tmp_path / "killed")]
    natural_scene.brisque(np.random.default_rng(0).uniform(0, 255, (64, 64)))  # fetched beforehand
    journal = tmp_path / "killed" / "predictions.parquet.journal.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "lmmvqa.commands.main", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survived = journal.read_bytes().count(b"\n")
    assert 3 <= survived < VIDEOS
    with caplog.at_level(logging.INFO, "lmmvqa"):
        run(*command)
    assert f"{survived} of {VIDEOS} predictions are there already" in caplog.text
    rows = pq.read_table(tmp_path / "killed" / "predictions.parquet").to_pylist()
    assert len({row["key"] for row in rows}) == len(rows) == VIDEOS
    direct = natural_scene.mean_over_key_frames(rows[-1]["video"], natural_scene.brisque)[0]
    assert rows[-1]["predicted"] == pytest.approx(-direct)


def test_baselines_give_the_values_of_the_packages_that_carry_them():
    """On the first frame of a clip: scikit-video 1.1.11 (with shims for today's NumPy) and the features of brisque
    0.2.0."""
    with open_video(str(DATA / "flower.mp4"), max_chunks=1) as reader:
        image = natural_scene.luminance(next(iter(reader)).key_frame)
    assert natural_scene.niqe(image) == pytest.approx(NIQE_OF_FLOWER, abs=0.02)
    assert natural_scene.brisque(image) == pytest.approx(BRISQUE_OF_FLOWER, abs=0.2)
    with pytest.raises(ValueError, match="at least 192 x 192"):
        natural_scene.niqe(image[:100])
    noise = np.random.default_rng(0).normal(0, 25, image.shape)
    assert natural_scene.brisque(image + noise) > natural_scene.brisque(image) + 10
    assert natural_scene.niqe(image + noise) > natural_scene.niqe(image)


def test_brisque_knows_heavy_compression_from_light(konvid):
    """The clips of the layout get worse with their rating."""
    rows = rated_sets.read_set(SetSpec.parse(f"konvid_1k={konvid}"))
    values = [prediction["predicted"] for prediction in methods.Baseline("brisque").predict(rows)]
    assert spearmanr(values, [row.mos for row in rows]).statistic > 0.3


NIQE_OF_FLOWER, BRISQUE_OF_FLOWER = 11.203, 52.54

CHAT = (
    "{% for message in messages %}USER: {% for block in message['content'] %}{% if block['type'] == 'text' %}{{ "
    "block['text'] }}"
    "{% else %}<{{ block['type'] }}>\n{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)


def strange_parts() -> tuple[PreTrainedTokenizerFast, dict[str, Any]]:
    """A tokenizer that knows images and videos, and a tiny tower and decoder for it."""
    from transformers import CLIPVisionConfig, LlamaConfig

    tokenizer = make_tokenizer(1)
    tokenizer.add_tokens(["<image>", "<video>"], special_tokens=True)
    image_id, video_id = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    return tokenizer, dict(
        vision_config=CLIPVisionConfig(**shape, image_size=28, patch_size=7, projection_dim=32),
        text_config=LlamaConfig(**shape, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id),
        image_token_index=image_id,
        video_token_index=video_id,
    )


def save_llava_next_video(folder: Path) -> None:
    """A tiny network of the library's own architecture, random weights, with its own processor."""
    from transformers import (
        LlavaNextImageProcessor,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    tokenizer, parts = strange_parts()
    config = LlavaNextVideoConfig(**parts, image_grid_pinpoints=[[28, 28]])
    torch.manual_seed(0)
    LlavaNextVideoForConditionalGeneration(config).save_pretrained(folder)
    sizes = dict(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(**sizes),
        image_processor=LlavaNextImageProcessor(**sizes, image_grid_pinpoints=[[28, 28]]),
        tokenizer=tokenizer,
        chat_template=CHAT,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def save_video_llava(folder: Path) -> None:
    from transformers import (
        VideoLlavaConfig,
        VideoLlavaForConditionalGeneration,
        VideoLlavaImageProcessor,
        VideoLlavaProcessor,
        VideoLlavaVideoProcessor,
    )

    tokenizer, parts = strange_parts()
    config = VideoLlavaConfig(**parts, image_seq_length=17, video_seq_length=136)
    torch.manual_seed(0)
    VideoLlavaForConditionalGeneration(config).save_pretrained(folder)
    sizes = dict(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    VideoLlavaProcessor(
        image_processor=VideoLlavaImageProcessor(**sizes),
        video_processor=VideoLlavaVideoProcessor(**sizes),
        tokenizer=tokenizer,
        chat_template=CHAT,
        patch_size=7,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_llava_next_video, save_video_llava])
def test_other_language_models_are_asked_without_training(save, konvid, tmp_path):
    """The library's own architectures on real clips; random weights, so what they say means nothing, but each is asked
    and read."""
    save(tmp_path / "model")
    rows = rated_sets.read_set(SetSpec.parse(f"konvid_1k={konvid}"))[:3]
    words = list(methods.ZeroShot(str(tmp_path / "model"), "level-words").predict(rows))
    assert all("error" not in row for row in words), words
    assert all(
        0 < row["predicted"] < 100 and sum(row["level_probabilities"]) == pytest.approx(1, abs=1e-5) for row in words
    )
    assert len({row["predicted"] for row in words}) == 3, "the answer must depend on the video"
    texts = list(methods.ZeroShot(str(tmp_path / "model"), "generate").predict(rows[:1]))
    assert texts[0].get("unparsable") and len(texts[0]["answers"]) == 2 and "predicted" not in texts[0]


def test_answers_of_strangers_are_read_but_never_guessed():
    for answer, score in {
        "75": 75,
        "I'd give it 82.5 out of 100.": 82.5,
        "Score: 40/100": 40,
        "**65**": 65,
        "90%": 90,
        "On a scale of 0 to 100, 30": 30,
    }.items():
        assert methods.stated_score(answer) == score
    for answer in ("", "good", "between 60 and 70", "120", "-5", "7 or 8"):
        with pytest.raises(AnswerError):
            methods.stated_score(answer)
    assert methods.stated_level("The quality is Fair.") == "fair"
    for answer in ("fairly ordinary", "poor to fair", "excellent"):
        with pytest.raises(AnswerError):
            methods.stated_level(answer)


@pytest.fixture(scope="module")
def grid_run(konvid, tiny_checkpoint, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    model, processor = make_tiny(temporal=False)
    model.save_pretrained(folder / "still")
    processor.save_pretrained(folder / "still")
    moving = {"model": str(tiny_checkpoint)}
    grid = {
        "recipe": str(recipe),
        "data": f"konvid_1k={konvid}",
        "protocol": "ood",
        "tables": {
            # `config` says what the folder already is: nothing is composed where a model is named.
            "temporal tokens": {
                "without": {"model": str(folder / "still"), "config": {"num_temporal_tokens": 0}},
                "with": moving,
            },
            "tasks": {"score only": {**moving, "settings": {"tasks": "score"}}, "score + level": moving},
            "training data": {"50 %": {**moving, "settings": {"data_fraction": 0.5}}},
        },
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    command = ["ablate", folder / "grid.yaml", "--output", folder / "out", "--resamples", 50]
    run(*command)
    return folder / "out", command


def test_a_grid_of_ablations(grid_run, monkeypatch):
    output, command = grid_run
    rows = json.loads((output / "ablations.json").read_text())
    assert [(row["table"], row["name"]) for row in rows] == [
        ("temporal tokens", "without"),
        ("temporal tokens", "with"),
        ("tasks", "score only"),
        ("tasks", "score + level"),
        ("training data", "50 %"),
    ]
    runs = [row["run"] for row in rows]
    assert runs[1] == runs[3] and len(set(runs)) == 4, "rows that mean the same are one run"
    assert all(row["figures"][0]["n"] == VIDEOS for row in rows)
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*.safetensors")}
    monkeypatch.setattr("lmmvqa.evaluation.ablation._run_row", lambda *_: pytest.fail("ran again"))
    run(*command)
    assert before == {file: file.stat().st_mtime_ns for file in output.rglob("*.safetensors")}


def test_a_grid_that_was_killed_goes_on_where_it_was(grid_run, steps, tmp_path):
    """SIGKILL in the second of four trainings."""
    direct, command = grid_run
    shutil.copytree(direct / "features", tmp_path / "features")
    kill_in_training(3, into(tmp_path, command))
    first = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("adapter_model.safetensors")}
    assert len(first) == 1 and len(json.loads((tmp_path / "ablations.json").read_text())) == 1
    run(*into(tmp_path, command))
    assert len(steps) == 3 * 2
    assert first == {file: file.stat().st_mtime_ns for file in first}
    found, expected = (json.loads((folder / "ablations.json").read_text()) for folder in (tmp_path, direct))
    assert [(row["run"], row["figures"][0]["n"]) for row in found] == [(row["run"], VIDEOS) for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row["figures"][0]["srcc"] == pytest.approx(other["figures"][0]["srcc"]), row["name"]


def test_some_tables_of_a_grid(grid_run, steps):
    output, command = grid_run
    run(*command, "--table", "tasks")
    assert not steps and [row["table"] for row in json.loads((output / "ablations.json").read_text())] == [
        "tasks",
        "tasks",
    ]
    run(*command)
    assert "it has temporal tokens, tasks, training data" in " ".join(
        run(*command, "--table", "decoder", code=2).split()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": None}, "needs recipe, data and tables"),
        ({"seed": 1}, "unknown key 'seed'"),
        ({"protocol": "5fold"}, "not for a grid"),
        ({"tables": {"a": {"b": {"confg": {}}}}}, "unknown key 'confg' in a, b"),
        ({"tables": {"a": {}}}, "holds no rows"),
    ],
)
def test_a_grid_with_a_mistake_is_a_clear_error(change, message, grid_run, tmp_path):
    grid = yaml.safe_load(Path(grid_run[1][1]).read_text()) | change
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert message in " ".join(run("ablate", tmp_path / "grid.yaml", "--output", tmp_path / "out", code=2).split())


def test_the_report_is_one_page_and_holds_everything(ood_run, fold_run, grid_run, tmp_path, monkeypatch):
    # Optical flow takes a second or two a video.
    monkeypatch.setattr("lmmvqa.evaluation.report.MOVING_VIDEOS", 1)
    written = write_report(
        [ood_run, fold_run[0], grid_run[0]], tmp_path / "report.html", pictures=tmp_path / "pictures"
    )
    page, tables = written[0].read_text(), written[1].read_text()
    names = {file.stem.split("_")[0] for file in written[2:]}
    assert names == {"scatter", "residuals", "calibration", "levels", "training", "ablations", "motion"}
    assert page.count('src="data:image/png;base64,') == len(written) - 2
    assert "http" not in page, "self-contained: nothing is fetched"
    srcc = json.loads((ood_run / "metrics.json").read_text())[0]["srcc"]
    row = next(line for line in tables.splitlines() if line.startswith("| tiny |"))
    assert f"| {srcc:.3f} | n = {VIDEOS}: says nothing |" in row
    assert "| temporal tokens: without |" in tables and "mean of folds" in tables
    assert all(source in page for source in ("arXiv 2408.14008", "arXiv 2505.03631"))


def test_a_report_of_no_run_is_a_clear_error(tmp_path):
    assert "is not the output of `lmmvqa evaluate`" in " ".join(
        run("report", tmp_path, "--output", tmp_path / "r.html", code=2).split()
    )


def test_a_report_leaves_out_what_is_no_finished_run(ood_run, tmp_path):
    (tmp_path / "stopped").mkdir()
    run("report", tmp_path / "stopped", ood_run, "--output", tmp_path / "r.html")
    assert "| tiny |" in (tmp_path / "r.md").read_text()


def test_the_motion_curve_finds_the_motion(tmp_path):
    """A texture that stands still for a second, then moves by 32 of 320 pixels a second."""
    random = np.random.default_rng(0)
    texture = (
        torch.nn.functional.interpolate(
            torch.from_numpy(random.uniform(0, 255, (1, 3, 24, 60))), (180, 450), mode="bicubic"
        )[0]
        .clamp(0, 255)
        .byte()
        .permute(1, 2, 0)
    )
    shifts = [0] * 25 + [round(32 / 25 * n) for n in range(1, 26)]
    frames = torch.stack([texture[:, shift : shift + 320] for shift in shifts])
    ffmpeg_frames = tmp_path / "moving.mp4"
    import av

    with av.open(str(ffmpeg_frames), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode())
    motion = motion_curve(str(ffmpeg_frames))
    still, moving = motion.speed[motion.times_s < 0.95], motion.speed[motion.times_s > 1.25]
    assert still.max() < 1
    assert np.median(moving) == pytest.approx(10, rel=0.3), "a tenth of the width each second"
    held = tmp_path / "held.mp4"
    ffmpeg("-i", ffmpeg_frames, "-vf", "shuffleframes=0 0 0 0 0", "-c:v", "libx264", "-crf", 12, held)
    stutter = motion_curve(str(held))
    stutter = stutter.speed[stutter.times_s > 1.25]
    assert np.mean(stutter < 1) > 0.7 and stutter.max() > 20, "one jump in five frames"


@pytest.fixture
def judge_server():
    with loopback_judge(marks_context=False) as server:
        yield server


@pytest.fixture
def benchmark_files(tmp_path):
    """Questions about a video, and one about a video that is not there."""
    return write_questions(tmp_path / "questions", ["flower", "lost"])


def test_vcgbench_asks_marks_and_goes_on(judge_server, benchmark_files, tiny_checkpoint, tmp_path, monkeypatch):
    url = f"http://127.0.0.1:{judge_server.server_port}/v1"
    arguments = (
        read_questions(benchmark_files),
        DATA,
        str(tiny_checkpoint),
        Judge(url, "judge-1", api_key="secret"),
        tmp_path / "out",
    )
    with monkeypatch.context() as broken, pytest.raises(TypeError):
        broken.setattr(vcgbench, "_answer", lambda: "A fault of ours is no fault of the video.")
        run_vcgbench(*arguments)
    judge_server.dies_after = 3
    with pytest.raises(JudgeError, match="refuses with 401"):
        run_vcgbench(*arguments)
    marked = len(judge_server.asked) - 2
    assert marked == 2
    judge_server.dies_after = 10**6
    # What failed alone is tried again.
    monkeypatch.setattr(vcgbench, "_answer", lambda *_: pytest.fail("answered again"))
    scores = run_vcgbench(*arguments)
    # Five marks in all for the questions with a video; two were there already.
    assert len(judge_server.asked) == 4 + 3
    assert {aspect: entry["mean"] for aspect, entry in scores["aspects"].items()} == {
        "correctness": 3,
        "detail": 3,
        "context": None,
        "temporal": 4,
        "consistency": 3,
    }
    assert scores["aspects"]["context"]["unreadable"] == 1 and scores["unanswered"] == 1 and scores["mean"] is None
    assert scores["judge"] == "judge-1" and scores["instructions"]["detail"] == judge_instruction("detail")
    path, key, body = judge_server.asked[-1]
    assert path == "/v1/chat/completions" and key == "Bearer secret" and body["model"] == "judge-1"
    assert (
        "Which thing?" in body["messages"][1]["content"]
        and "Reference answer: A flower." in body["messages"][1]["content"]
    )
    assert run_vcgbench(*arguments) == scores and len(judge_server.asked) == 7


def test_vcgbench_that_was_killed_goes_on_where_it_was(judge_server, benchmark_files, tiny_checkpoint, tmp_path):
    """SIGKILL while the second mark is waited for: it alone is asked for again."""
    command = [
        "vcgbench",
        benchmark_files,
        "--videos",
        DATA,
        "--judge",
        f"http://127.0.0.1:{judge_server.server_port}/v1",
        "--judge-model",
        "judge-1",
        "--model",
        tiny_checkpoint,
        "--output",
        tmp_path / "out",
        "--device",
        "cpu",
    ]
    judge_server.victim = subprocess.Popen(
        [sys.executable, "-m", "lmmvqa.commands.main", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert judge_server.victim.wait() == -signal.SIGKILL
    assert len(judge_server.asked) == 3, "refused as busy, marked, killed"
    judge_server.victim = None
    answers = next((tmp_path / "out").glob("answers.jsonl*"))
    written = sorted(answers.read_text().splitlines())
    said = run(*command, code=1)
    assert "Questions without an answer: 1;" in said
    assert len(judge_server.asked) == 3 + 4
    asked = [body["messages"][1]["content"] + body["messages"][0]["content"] for _, _, body in judge_server.asked[1:]]
    assert len(set(asked)) == len(asked) - 1 == 5
    assert sorted((tmp_path / "out" / "answers.jsonl").read_text().splitlines()) == written
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    tables = write_report([tmp_path / "out"], tmp_path / "report.html")[1].read_text()
    assert (
        "| 3.00 | 3.00 | - | 4.00 | 3.00 | - | judge-1 | measured |" in tables and "| Video-ChatGPT | 2.40 |" in tables
    )
    assert {aspect: entry["n"] for aspect, entry in scores["aspects"].items()} == {
        "correctness": 1,
        "detail": 1,
        "context": 0,
        "temporal": 1,
        "consistency": 1,
    }


def test_a_mark_is_read_or_it_is_none():
    assert read_mark('{"score": 4}') == 4 and read_mark("{'score': '2'}") == 2 and read_mark('{"score": 3.0}') == 3
    for said in ("4", '{"score": 7}', '{"score": 4.8}', '{"mark": 3}'):
        with pytest.raises(ValueError, match="holds no mark"):
            read_mark(said)


def test_vcgbench_without_its_files_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"generic_qa\.json"):
        read_questions(tmp_path)
    (tmp_path / "generic_qa.json").write_text('[{"question": "?"}]')
    with pytest.raises(ValueError, match="entry 0 has no A, Q, video_name"):
        read_questions(tmp_path)
