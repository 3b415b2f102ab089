"""SIGKILL at random moments of scoring, evaluation and training: the same result to the last digit as without, one row
a file, and nothing left behind. Run by hand: -m slow."""

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import yaml
from inputs import DATA, ffmpeg
from safetensors.torch import load_file

from lmmvqa.commands.main import app
from lmmvqa.evaluation.protocols import COLUMNS
from lmmvqa.scoring.bulk_runs import result_columns
from lmmvqa.scoring.result_files import SUFFIXES, stored_rows

KILLS = 20


def _command(arguments: list[str]) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    # Pools of threads don't survive a fork.
    torch.set_num_threads(1)
    try:
        app(arguments)
    except SystemExit as end:
        os._exit(end.code or 0)


def start(arguments: list[str]) -> BaseProcess:
    """A command in a process of its own, which has imported what it needs already: a kill then meets the work."""
    run = multiprocessing.get_context("fork").Process(target=_command, args=(arguments,))
    run.start()
    return run


def finish(arguments: list[str]) -> None:
    run = start(arguments)
    run.join()
    assert run.exitcode in (0, 1)


def kill_again_and_again(
    arguments: list[str], begun: Callable[[], bool], check: Callable[[], int], seed: int, kills: int = KILLS
) -> None:
    """Start and kill a command, at a random moment after it has begun to write; then let it end.

    Args:
        begun: whether this start has written something.
        check: raises if what is there is not whole, and gives how much that is.
    """
    draw, most = random.Random(seed), 0
    for _ in range(kills):
        run = start(arguments)
        while run.is_alive() and not begun():
            time.sleep(0.02)
        time.sleep(draw.expovariate(2))
        run.kill()
        run.join()
        now = check()
        assert now >= most
        most = now
    finish(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scoring(suffix, tiny_checkpoint, tmp_path):
    videos, count = tmp_path / "videos", 200
    videos.mkdir()
    for number in range(6):
        source = f"testsrc2=size={64 + 32 * number}x64:rate=10:duration={1 + number % 3}"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", videos / f"{number}.mp4")
    for number in range(6, count):
        (videos / f"{number}.mp4").symlink_to(f"{number % 6}.mp4")
    output, whole = tmp_path / f"killed{suffix}", tmp_path / f"whole{suffix}"
    arguments = ["score", str(videos), "--model", str(tiny_checkpoint), "--batch-size", "1", "--workers", "2"]
    growing = tmp_path / f"{output.name}.journal.jsonl" if suffix == ".parquet" else output
    size = -1

    def begun() -> bool:
        return growing.exists() and growing.stat().st_size > size

    def check() -> int:
        nonlocal size
        size = growing.stat().st_size
        rows = [row["path"] for row in stored_rows(output, result_columns())]
        assert len(rows) == len(set(rows))
        return len(rows)

    kill_again_and_again([*arguments, "--output", str(output)], begun, check, seed=len(suffix))
    finish([*arguments, "--output", str(whole)])
    killed, expected = ({row["path"]: row for row in stored_rows(file, result_columns())} for file in (output, whole))
    assert killed == expected and len(killed) == count
    assert sorted(os.listdir(tmp_path)) == sorted(["videos", output.name, whole.name])


@pytest.fixture
def rated(tmp_path) -> Path:
    folder = tmp_path / "rated"
    folder.mkdir()
    lines = ["video,mos,split,fold"]
    for number in range(24):
        shutil.copy(DATA / ("flower.mp4" if number % 2 else "toy_monster.mp4"), folder / f"{number}.mp4")
        lines.append(f"{number}.mp4,{10 + 3 * number},{'train' if number < 16 else 'test'},{number % 5}")
    (folder / "ratings.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
def test_evaluation(tiny_checkpoint, rated, tmp_path):
    arguments = ["evaluate", "--protocol", "ood", "--data", f"rated_videos={rated}", "--model", str(tiny_checkpoint)]
    arguments += ["--resamples", "50"]
    run, size = tmp_path / "killed", -1
    journal = run / "predictions.parquet.journal.jsonl"

    def begun() -> bool:
        return (run / "run.json").exists() and (not journal.exists() or journal.stat().st_size > size)

    def check() -> int:
        nonlocal size
        size = journal.stat().st_size if journal.exists() else -1
        rows = [row["key"] for row in stored_rows(run / "predictions.parquet", COLUMNS)]
        assert len(rows) == len(set(rows))
        return len(rows)

    kill_again_and_again([*arguments, "--output", str(run)], begun, check, seed=1)
    finish([*arguments, "--output", str(tmp_path / "whole")])
    killed, expected = (
        {row["key"]: row | {"seconds": None} for row in stored_rows(tmp_path / name / "predictions.parquet", COLUMNS)}
        for name in ("killed", "whole")
    )
    assert killed == expected and len(killed) == 24
    assert sorted(os.listdir(run)) == sorted(os.listdir(tmp_path / "whole"))


@pytest.mark.slow
def test_training(tiny_checkpoint, rated, tmp_path):
    """Also while features are encoded and checkpoints written."""
    weights = {}
    for name in ("killed", "whole"):
        settings = dict(
            data=f"rated_videos={rated}",
            model=str(tiny_checkpoint),
            output_dir=str(tmp_path / name),
            trains="projectors+lora",
            projector_dropout=0.1,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            warmup_steps=0,
            max_steps=60,
            save_steps=5,
            save_total_limit=2,
            use_cpu=True,
        )
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        arguments = ["train", str(tmp_path / f"{name}.yaml")]
        if name == "killed":
            features = tmp_path / name / "features"
            kill_again_and_again(arguments, features.is_dir, lambda: 0, seed=2)
        else:
            finish(arguments)
        weights[name] = load_file(tmp_path / name / "adapter_model.safetensors")
    assert weights["killed"].keys() == weights["whole"].keys()
    assert all((weights["killed"][key] == value).all() for key, value in weights["whole"].items())
    for folder in ("", "features"):
        here, there = (sorted(os.listdir(tmp_path / name / folder)) for name in ("killed", "whole"))
        assert here == there
