"""What is pushed, against a Hub on the loopback interface, and what happens when it fails."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from lmmvqa.checkpoints import assembling, default_files
from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.commands.main import app
from lmmvqa.release import pushing, verifying
from lmmvqa.training.adapters import make_trainable


@pytest.fixture
def data_set(tmp_path):
    """Three files of the Hub's large kind and a card."""
    folder = tmp_path / "data_set"
    (folder / "score").mkdir(parents=True)
    (folder / "README.md").write_text("# Ratings\n")
    for name in "abc":
        (folder / "score" / f"{name}.parquet").write_bytes(name.encode() * 1000)
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, ["push", *map(str, arguments)], env={"COLUMNS": "300"})


def test_a_model_is_whole_and_its_dry_run_says_so(hub, tiny_checkpoint, tmp_path):
    results = tmp_path / "konvid"
    results.mkdir()
    row = {
        "set": "konvid_1k",
        "split": "test",
        "part": None,
        "n": 240,
        "srcc": 0.8123,
        "intervals": {"srcc": [0.774, 0.846]},
    }
    (results / "metrics.json").write_text(json.dumps([row]))
    arguments = ("model", "user/tiny", "--model", tiny_checkpoint, "--results", results, "--private")
    dry = invoke(*arguments, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert not hub.requests
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == hub.url("model", "user/tiny")
    assert hub.repositories["model", "user/tiny"].private
    files = hub.files("user/tiny")
    for name in (
        "model.safetensors",
        "config.json",
        "processor_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "modeling_lmmvqa.py",
        "pipeline_lmmvqa.py",
        "video_reader.py",
        "results/konvid.json",
        "reference/scores.json",
        "reference/flower.mp4",
        "README.md",
    ):
        assert name in files, name
        assert name in dry.output
    assert not [name for name in files if "training_args" in name or "checkpoint-10" in name]
    assert files["model.safetensors"] == (tiny_checkpoint / "model.safetensors").read_bytes()
    card = ModelCard(files["README.md"].decode())
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("konvid_1k", "srcc", 0.8123)
    assert "| konvid_1k | test | 240 | SRCC | 0.812 | 0.774 to 0.846 |" in card.text
    assert json.loads(files["reference/scores.json"])["clips"][0]["file"] == "flower.mp4"
    # Pushed again, nothing large travels twice.
    before = len(hub.requests)
    assert invoke(*arguments).exit_code == 0
    assert not [request for request in hub.requests[before:] if request.startswith("PUT")]


def test_the_default_checkpoint_goes_up_with_its_results(tiny_checkpoint, tmp_path, monkeypatch):
    """What this release tells of it, whatever the assembled folder told when it was made."""
    told = tmp_path / "told"
    shutil.copytree(default_files.REFERENCE, told / "reference")
    (told / "card.yaml").write_text("title: Default\nset_names: {rated_videos: Graded copies}\n")
    (told / "results").mkdir()
    row = {"set": "rated_videos", "split": "test", "part": None, "n": 459, "srcc": 0.7654, "intervals": {}}
    (told / "results" / "graded_copies.json").write_text(json.dumps([row]))
    monkeypatch.setattr(default_files, "CHECKPOINT_FOLDER", told)
    monkeypatch.setattr(assembling, "default_checkpoint", lambda: tiny_checkpoint)
    with pushing.staged_model(None, "user/default") as stage:
        (result,) = ModelCard.load(stage / "README.md").data.eval_results
        assert (result.dataset_name, result.metric_type, result.metric_value) == ("Graded copies", "srcc", 0.7654)
        assert (stage / "results" / "graded_copies.json").is_file() and (stage / "reference" / "scores.json").is_file()
        assert (stage / "model.safetensors").resolve() == (tiny_checkpoint / "model.safetensors").resolve()
    other = tmp_path / "graded_copies"
    with (
        pytest.raises(pushing.PushError, match="Two runs"),
        pushing.staged_model(None, "user/default", results=[other]),
    ):
        pass


def test_an_adapter_goes_up_with_the_name_of_its_base(hub, tiny_checkpoint, tmp_path):
    model, processor = load_checkpoint(str(tiny_checkpoint))
    adapted = make_trainable(model, "projectors")
    adapted.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    # Its base is a folder of this machine, which nobody else has: it is not named on the Hub, whoever pushes.
    loaded, _ = load_checkpoint(str(tmp_path))
    for pushed in (
        adapted.push_to_hub,
        loaded.push_to_hub,
        partial(loaded.save_pretrained, tmp_path / "pushed", push_to_hub=True, repo_id="user/adapter"),
    ):
        with pytest.raises(ValueError, match="which others don't have"):
            pushed(*([] if isinstance(pushed, partial) else ["user/adapter"]))
    assert not hub.requests
    assert "push that first" in " ".join(invoke("model", "user/adapter", "--model", tmp_path).output.split())
    done = invoke("model", "user/adapter", "--model", tmp_path, "--base-model", "user/tiny")
    assert done.exit_code == 0, done.output
    files = hub.files("user/adapter")
    assert {
        "adapter_model.safetensors",
        "processor_config.json",
        "processing_lmmvqa.py",
        "reference/scores.json",
    } <= set(files)
    assert "model.safetensors" not in files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "user/tiny"
    card = ModelCard(files["README.md"].decode())
    assert (card.data.library_name, card.data.base_model) == ("peft", ["user/tiny"])
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_checkpoint)


def test_no_part_says_where_on_this_machine_it_was(hub, tiny_checkpoint):
    model, processor = load_checkpoint(str(tiny_checkpoint))
    for number, part in enumerate((model, model.config, processor, processor.tokenizer, processor.video_processor)):
        part.push_to_hub(f"user/{number}")
        files = hub.files(f"user/{number}")
        assert files and not [
            name for name, content in files.items() if str(tiny_checkpoint.parent).encode() in content
        ]


def test_a_data_set_and_what_is_none(hub, data_set, tmp_path):
    done = invoke("data", data_set, "user/ratings")
    assert done.exit_code == 0, done.output
    assert "score/a.parquet" in hub.files("user/ratings", "dataset")
    assert "not an exported data set" in invoke("data", tmp_path, "user/ratings").output
    assert "write OWNER/NAME" in invoke("data", data_set, "a/b/c").output


def test_a_data_set_of_the_builders_loads_from_the_hub(hub, clip, tmp_path):
    mine, out = tmp_path / "mine", tmp_path / "exported"
    mine.mkdir()
    for name in "abcdef":
        (mine / f"{name}.mp4").symlink_to(clip)
    (mine / "ratings.csv").write_text(
        "video,mos\n" + "".join(f"{name}.mp4,{mos}\n" for mos, name in enumerate("abcde", start=1)) + "f.mp4,3\n"
    )
    built = CliRunner().invoke(app, ["data", "build", f"rated_videos={mine}", "--out", str(out), "--scale", "1", "5"])
    assert built.exit_code == 0, built.output
    assert invoke("data", out, "user/mine").exit_code == 0
    # Where the videos are on this machine is nobody's business.
    for name, content in hub.files("user/mine", "dataset").items():
        assert str(tmp_path).encode() not in content, name
    assert "relative to the folder" in hub.files("user/mine", "dataset")["README.md"].decode()
    code = (
        "from datasets import load_dataset\n"
        "rows = load_dataset('user/mine', 'score')['train']\n"
        "assert sorted(video['path'] for video in rows['video']) == [f'{name}.mp4' for name in 'abcdef']\n"
        "print(sorted(zip(rows['id'], rows['answer'])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **hub.environment(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    assert "'0'" in done.stdout and "'100'" in done.stdout and done.stdout.count("(") == 6


def test_the_metric_is_a_space(hub):
    assert "push the metric to OWNER/vqa_metric" in " ".join(invoke("metric", "user/other").output.split())
    done = invoke("metric", "user/vqa_metric")
    assert done.exit_code == 0, done.output
    files = hub.files("user/vqa_metric", "space")
    assert {"vqa_metric.py", "app.py", "requirements.txt", "README.md"} <= set(files) and "__init__.py" not in files
    assert 'evaluate.load("user/vqa_metric")' in files["README.md"].decode()


def test_the_demo_is_the_file_that_runs_here(hub, tmp_path):
    from lmmvqa.demo import APP

    assert invoke("demo", "user/demo", "--model", "user/tiny").exit_code == 0
    files = hub.files("user/demo", "space")
    assert files["app.py"] == APP.read_bytes()
    assert files["model.txt"] == b"user/tiny\n"
    assert {"requirements.txt", "README.md", "examples/flower.mp4"} <= set(files)
    assert "sdk: gradio" in files["README.md"].decode()
    assert "push the model first" in invoke("demo", "user/demo", "--model", tmp_path).output


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "hf auth login"), (403, "write permission"), (429, "slow down"), (503, "Run the same command again")],
)
def test_a_refusal_names_the_remedy(hub, data_set, status, words):
    hub.fail("POST /api/repos/create", status, times=50)
    done = invoke("data", data_set, "user/ratings")
    assert done.exit_code == 2
    assert words in done.output and "Traceback" not in done.output
    assert not hub.repositories


def test_a_wrong_token(hub, data_set, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = invoke("data", data_set, "user/ratings")
    assert done.exit_code == 2 and "hf auth login" in done.output and "Traceback" not in done.output


def test_no_token(hub, data_set, monkeypatch):
    monkeypatch.setattr(pushing, "get_token", lambda: None)
    assert "hf auth login" in invoke("data", data_set, "user/ratings").output
    assert not hub.requests


def test_a_short_rate_limit_is_waited_out(hub, data_set):
    hub.fail("POST .*/preupload/", 429)
    hub.fail("PUT /lfs/", 503)
    assert invoke("data", data_set, "user/ratings").exit_code == 0
    assert len(hub.files("user/ratings", "dataset")) == 5


def test_a_lost_connection_is_taken_up_again(hub, data_set):
    lost, *kept = (hashlib.sha256((data_set / "score" / f"{name}.parquet").read_bytes()).hexdigest() for name in "cab")
    hub.fail(f"PUT /lfs/{lost}", 0, times=6)
    done = invoke("data", data_set, "user/ratings")
    assert done.exit_code == 2 and "goes on with the rest" in done.output
    assert set(hub.files("user/ratings", "dataset")) == {".gitattributes"}
    hub.failures.clear()
    already = [oid for oid in kept if oid in hub.blobs]
    assert already
    before = len(hub.requests)
    assert invoke("data", data_set, "user/ratings").exit_code == 0
    assert len(hub.files("user/ratings", "dataset")) == 5
    assert not [request for request in hub.requests[before:] if request.removeprefix("PUT /lfs/") in already]


def test_a_repository_that_exists(hub, data_set):
    hub.create("user/ratings", "dataset").commit("by hand", {"notes.txt": b"mine", "README.md": b"old"})
    refused = invoke("data", data_set, "user/ratings", "--private")
    assert refused.exit_code == 2 and "exists and is public" in refused.output
    assert invoke("data", data_set, "user/ratings").exit_code == 0
    files = hub.files("user/ratings", "dataset")
    assert files["notes.txt"] == b"mine" and files["README.md"] == b"# Ratings\n"


def test_what_is_no_checkpoint_is_not_pushed(hub, tmp_path):
    assert "neither a checkpoint nor an adapter" in invoke("model", "user/x", "--model", tmp_path).output
    assert not hub.requests


def test_verify_agrees_and_says_what_differs(tiny_checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in tiny_checkpoint.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(verifying.NoReferenceError, match="verify --write"):
        verifying.verify(str(folder))
    pushing.copy_reference_clips(folder / "reference")
    scores = verifying.write_reference(str(folder))
    run = partial(CliRunner().invoke, app, env={"COLUMNS": "200"})
    done = run(["verify", "--model", str(folder)])
    assert done.exit_code == 0 and "Differs" not in done.stdout, done.output
    reference = json.loads(scores.read_text())
    reference["clips"][0]["score"] += 2
    reference["environment"] |= {"torch": "1.0", "weights": "other"}
    scores.write_text(json.dumps(reference))
    done = run(["verify", "--model", str(folder)])
    assert done.exit_code == 1
    assert (
        "torch is" in done.stdout
        and "was 1.0 there" in done.stdout
        and "weights is" in done.stdout
        and "differs" in done.stdout
    )
    assert "decoder is" not in done.stdout


def test_the_default_checkpoint_gives_its_reference_scores(default_model, monkeypatch):
    monkeypatch.setattr(verifying, "load_network", lambda *_: default_model)
    verification = verifying.verify()
    assert verification.passed, verification
