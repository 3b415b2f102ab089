"""Real clips and the programs that tests start."""

import os
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
