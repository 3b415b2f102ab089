"""Real clips and the programs that tests start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg

import lmmvqa

DATA = Path(__file__).parents[1] / "data"
# Where our packages are: this repository, or what is installed. Processes that tests start import them from there, too.
SITE = Path(lmmvqa.__file__).parents[1]


def score_command(*arguments: object, **options) -> subprocess.Popen:
    """`lmmvqa score` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "lmmvqa.commands.main", "score", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-nostdin", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def stand_in_clips(folder: Path, qualities: tuple[int, ...] = (20, 36, 50)) -> list[Path]:
    """Clips of a second: two real ones, each compressed from well to badly."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("flower", "toy_monster"):
        for crf in qualities:
            settings = ("-an", "-vf", "scale=640:-2", "-c:v", "libx264", "-preset", "ultrafast", "-crf", crf)
            ffmpeg("-t", 1, "-i", DATA / f"{name}.mp4", *settings, folder / f"{name}_{crf}.mp4")
    return sorted(folder.iterdir())


def fill(root: Path, clips: list[Path]) -> None:
    """Real clips in the place of the files that stand for videos."""
    for number, path in enumerate(sorted(root.rglob("*.mp4"))):
        shutil.copy(clips[number % len(clips)], path)
