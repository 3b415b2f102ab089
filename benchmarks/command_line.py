"""How soon the command line speaks: its help, mistakes, and a finished run that is repeated.

`python benchmarks/command_line.py [--repeats 5]` prints for each command the best wall time of several runs, taken in
turn, and the processor time of that run, which other work on the machine changes less. Let nothing else run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lmmvqa.scoring.bulk_runs import result_columns
from lmmvqa.scoring.result_files import ResultFile
from modeling_lmmvqa.video_score import VideoScore

CLIP = Path(__file__).resolve().parents[1] / "tests" / "data" / "flower.mp4"
ROWS = 1000
HELP, FINISHED = "lmmvqa --help", f"lmmvqa score videos --output finished.parquet   ({ROWS:,} rows)"


def prepare(folder: Path) -> None:
    """A folder of videos that are all scored already."""
    (folder / "clip.mp4").symlink_to(CLIP)
    (folder / "videos").mkdir()
    with ResultFile(folder / "finished.parquet", result_columns()) as results:
        for number in range(ROWS):
            video = Path("videos") / f"{number:04d}.mp4"
            (folder / video).symlink_to(CLIP)
            results.append(VideoScore(str(video), score=50.0, level_probabilities={"poor": 1.0}).as_row())


def commands(port: int) -> dict[str, int]:
    """Each command and the exit code that it should end with."""
    return {
        HELP: 0,
        FINISHED: 0,
        "lmmvqa score clip.mp4 --output scores.txt": 2,
        "lmmvqa score clip.mp4 --batch-size many": 2,
        "lmmvqa score clip.mp4 --device cudda": 2,
        "lmmvqa score clip.mp4 --model missing/folder/": 2,
        f"lmmvqa demo --port {port}": 2,
        "lmmvqa train own_videos data=rated_videos=missing": 2,
        "lmmvqa evaluate --protocol ood --data rated_videos=missing --output run": 2,
    }


def measure(command: str, expected: int, folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of a processor.

    Raises:
        SystemExit: it ends with another exit code.
    """
    words = shlex.split(command.partition("   ")[0])[1:]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lmmvqa", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode != expected:
        raise SystemExit(f"{command} ended with {done.returncode} and not {expected}:\n{done.stderr}")
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as taken:
        prepare(Path(folder))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asked = commands(taken.getsockname()[1])
        runs = [
            {command: measure(command, code, Path(folder)) for command, code in asked.items()}
            for _ in range(arguments.repeats)
        ]
    best = {command: min(run[command] for run in runs) for command in asked}
    print("| command | seconds | seconds of a processor |\n| --- | --- | --- |")
    for command, (seconds, busy) in best.items():
        print(f"| `{command}` | {seconds:.2f} | {busy:.2f} |")
    beyond = [later - first for later, first in zip(best[FINISHED], best[HELP], strict=True)]
    print(f"\nA finished run of {ROWS:,} rows beyond --help: {beyond[0]:.2f} s, {beyond[1]:.2f} s of a processor")


if __name__ == "__main__":
    main()
