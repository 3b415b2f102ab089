"""What is exported loads without our packages; a downloaded set is checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dataset_layouts as layouts
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from inputs import DATA, SITE
from typer.testing import CliRunner

from dataset_builders import check_set, export_set
from dataset_builders.label_files import LabelError
from dataset_builders.set_specs import SetSpec
from lmmvqa.commands.data import app
from lmmvqa.evaluation.rated_sets import read_set
from lmmvqa.training.arguments import LmmVqaTrainingArguments
from lmmvqa.training.training_data import load_training_data
from processing.quality_prompts import FLAW, LEVEL_INSTRUCTIONS, SCORE_INSTRUCTIONS

CLIP = DATA / "flower.mp4"

# Runs where none of our packages can be imported, and says what load_dataset gives.
LOAD = """
import importlib.util, json, sys
assert not any(importlib.util.find_spec(name) for name in ("lmmvqa", "dataset_builders", "processing", "hub_cards"))
from datasets import load_dataset
data = load_dataset(sys.argv[1], *sys.argv[2:])
row = data["train"][0]
row["video"]["bytes"] = row["video"]["bytes"] and len(row["video"]["bytes"])
print(json.dumps({"rows": {name: len(split) for name, split in data.items()}, "row": row, "tasks":
sorted(set(data["train"]["task"]))}))
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def gaming(tmp_path):
    root = layouts.live_yt_gaming(tmp_path / "set", layouts.numbered(9, "ARKSuvivalEvolved-{:03}"))
    for path in root.rglob("*.mp4"):
        path.unlink()
        path.symlink_to(CLIP)
    return root


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def load_elsewhere(folder: Path, *configuration: str, cache: Path) -> dict:
    # -I: neither this folder nor PYTHONPATH; the packages may be installed in the environment, so those are hidden too.
    hide = (
        "import sys\nfor name in ('lmmvqa', 'dataset_builders', 'processing', 'hub_cards'): sys.modules[name] = None\n"
    )
    script = hide + LOAD.replace("importlib.util.find_spec(name)", "sys.modules[name]")
    environment = {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-I", "-c", script, str(folder), *configuration]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cache.parent, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_an_exported_set_loads_where_our_packages_cannot_be_imported(gaming, tmp_path):
    out = tmp_path / "out"
    result = run("build", f"live_yt_gaming={gaming}", "--out", out)
    assert result.exit_code == 0, result.output
    assert "good above a score of" in result.output
    loaded = load_elsewhere(out, cache=tmp_path / "home")
    assert loaded["rows"] == {"train": 18} and loaded["tasks"] == ["level", "score"]
    assert Path(loaded["row"]["video"]["path"]).samefile(CLIP) and loaded["row"]["video"]["bytes"] is None
    for task in ("score", "level"):
        loaded = load_elsewhere(out, task, cache=tmp_path / "home")
        assert loaded["rows"] == {"train": 9} and loaded["tasks"] == [task]


def test_embedded_videos_travel_with_the_set(gaming, tmp_path, monkeypatch):
    monkeypatch.setattr(export_set, "_FILE_BYTES", 4 * CLIP.stat().st_size)
    out = tmp_path / "out"
    assert run("build", f"live_yt_gaming={gaming}", "--out", out, "--embed-videos").exit_code == 0
    assert len(list((out / "score").glob("*.parquet"))) == 3
    for path in gaming.rglob("*.mp4"):
        path.unlink()
    loaded = load_elsewhere(out, "score", cache=tmp_path / "home")
    assert loaded["rows"] == {"train": 9}
    assert loaded["row"]["video"] == {"path": "ARKSuvivalEvolved-000.mp4", "bytes": CLIP.stat().st_size}
    assert pq.read_table(out / "score")["video"][0]["bytes"].as_py() == CLIP.read_bytes()


def test_the_card_states_what_the_set_is(tmp_path):
    layouts.lsvq(
        tmp_path / "set",
        layouts.numbered(30, "yfcc-batch1/{}"),
        layouts.numbered(5, "ia-batch2/{}"),
        layouts.numbered(4, "backup/{}"),
    )
    next((tmp_path / "set" / "ia-batch2").iterdir()).unlink()
    out = tmp_path / "out"
    options = ("--levels", "authors", "--seed", 5, "--wording", "fixed")
    assert run("build", f"lsvq={tmp_path / 'set'}", "--out", out, *options).exit_code == 0
    card = DatasetCard.load(out / "README.md")
    configurations = {entry["config_name"]: entry for entry in card.data.configs}
    assert set(configurations) == {"score", "level", "score_and_level"}
    assert [part["split"] for part in configurations["score"]["data_files"]] == [
        "train",
        "validation",
        "test",
        "test_1080p",
    ]
    assert card.data.license == "other" and card.data.task_categories == ["video-text-to-text"]
    assert "good above a score of 65, fair above 55.5" in card.text
    assert "| train | 27 | 27 | 54 |" in card.text and "| test | 4 | 4 | 8 |" in card.text
    assert "1 rows of the label file" in card.text and "seed 5" in card.text and "fixed ones" in card.text
    assert "`fold`" not in card.text and "{{" not in card.text


def test_further_questions_are_exported_and_learned_from(tmp_path):
    """A row without an answer is not asked, and no video of the test split says how sharp it is."""
    labels = [("90", "train", "none", "5"), ("70", "train", "noise; blur", ""), ("50", "train", "", "3")]
    lines = ["video,mos,split,flaw,sharpness"]
    (tmp_path / "set").mkdir()
    for name, row in enumerate([*labels, ("30", "test", "blur", "")]):
        (tmp_path / "set" / f"{name}.mp4").symlink_to(CLIP)
        lines.append(f"{name}.mp4,{','.join(row)}")
    (tmp_path / "set" / "ratings.csv").write_text("\n".join(lines))
    out, command = tmp_path / "out", ("build", f"rated_videos={tmp_path / 'set'}", "--out", tmp_path / "out")
    silent = run(*command, "--question", "colour")
    assert silent.exit_code == 2 and "no answer to the question colour" in " ".join(silent.output.split())
    asked = ("--question", "flaw", "--question", "sharpness", "--question-scale", "sharpness=1-5")
    done = run(*command, *asked)
    assert done.exit_code == 0, done.output
    loaded = load_elsewhere(out, "all", cache=tmp_path / "home")
    assert loaded["rows"] == {"train": 10, "test": 3} and loaded["row"]["sharpness"] == 100
    assert loaded["tasks"] == ["flaw", "level", "score", "sharpness"]
    assert load_elsewhere(out, "sharpness", cache=tmp_path / "home")["rows"] == {"train": 2}
    card = (out / "README.md").read_text()
    assert "| train | 3 | 3 | 2 | 2 | 6 | 10 |" in card and "| `flaw` | string | none, compression" in card
    for questions, count in (("score_and_level", 6), (["score", "flaw", "sharpness"], 7)):
        arguments = LmmVqaTrainingArguments(output_dir=str(tmp_path), data=str(out), tasks=questions, use_cpu=True)
        rows = load_training_data(arguments).train
        assert len(rows) == count
    assert sorted(flaw for flaw in rows["flaw"][:] if flaw) == ["noise;blur"] * 2 + ["none"] * 3
    # A folder of labels is none that was exported; both commands say the same.
    labels = str(tmp_path / "set")
    arguments = LmmVqaTrainingArguments(output_dir=str(tmp_path), data=labels, use_cpu=True)
    for load in (lambda: load_training_data(arguments), lambda: read_set(SetSpec.parse(labels))):
        with pytest.raises(LabelError, match=f"own rated videos as rated_videos={labels}"):
            load()
    read = read_set(SetSpec.parse(str(out)), questions=[FLAW])
    assert [row.labels.get("flaw") for row in read] == ["none", "noise;blur", None, "blur"]


def test_nothing_is_written_over(gaming, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    result = run("build", f"live_yt_gaming={gaming}", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "is not an empty folder" in result.output


def test_check_finds_what_is_missing_or_unreadable(gaming, tmp_path):
    complete = run("check", f"live_yt_gaming={gaming}")
    assert complete.exit_code == 0, complete.output
    assert "600 (differs)" in complete.output and "unreadable videos: 0" in complete.output
    videos = sorted(gaming.rglob("*.mp4"))
    videos[0].unlink()
    videos[1].unlink()
    videos[1].write_bytes(CLIP.read_bytes()[:1000])
    videos[2].rename(videos[2].with_name("Other-001.mp4"))
    picture = tmp_path / "ratings.png"
    result = run("check", f"live_yt_gaming={gaming}", "--picture", picture)
    assert result.exit_code == 1
    assert "rows without a video: 2\n  ARKSuvivalEvolved-000\n  ARKSuvivalEvolved-002" in result.output
    assert "videos without a row: 1\n" in result.output and "Other-001.mp4" in result.output
    assert "unreadable videos: 1\n" in result.output and "ARKSuvivalEvolved-001.mp4" in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_check_counts_every_rating_in_one_bin(gaming):
    from dataset_builders.live_yt_gaming import LiveYtGaming

    survey = LiveYtGaming(config_name="score", data_dir=str(gaming)).survey()
    edges, counts = check_set.histogram(survey)
    assert len(edges) == 11 and sum(count.sum() for count in counts.values()) == 9
    assert [count.sum() for count in counts.values()] == [3, 3, 3]


def test_a_folder_that_is_not_the_set_ends_with_2(tmp_path):
    result = run("check", f"lsvq={tmp_path}")
    assert result.exit_code == 2 and "labels_train_test.csv" in result.output
    result = run("check", f"lsvq={tmp_path}", "--scale", 1, 5)
    assert result.exit_code == 2 and "--scale is for rated_videos" in result.output


def test_templates_are_all_printed():
    output = run("templates").output
    assert len(SCORE_INSTRUCTIONS) >= 20 <= len(LEVEL_INSTRUCTIONS)
    assert all(text.split()[-1] in output for text in SCORE_INSTRUCTIONS + LEVEL_INSTRUCTIONS)
    assert "mean opinion" in output and "poor, fair" in output


def test_help_imports_nothing_heavy():
    script = (
        "import sys, lmmvqa_command; sys.argv = ['lmmvqa', '--help']\n"
        "from lmmvqa.commands.data import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'datasets', 'transformers', 'pandas', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=SITE, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
