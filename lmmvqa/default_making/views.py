"""Rated photographs as they may be met otherwise: standing still as a video, as a slow pan, mirrored. What people say
of them stays the same, so they teach that the form does not matter."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import datasets
from PIL import Image, ImageOps

from dataset_builders import register
from lmmvqa.default_making.graded_copies import PHOTOGRAPH_FPS, SECONDS, SMALL_STEP, run_ffmpeg, seed_of

logger = logging.getLogger(__name__)

_COLUMNS = ("video", "mos", "split", "content", "family")
_FRAMES = PHOTOGRAPH_FPS * SECONDS
_TRAVEL = SMALL_STEP * (_FRAMES - 1)
_ENCODER = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "12", "-pix_fmt", "yuv420p", "-threads", "1")
# In a smaller one hardly anything would be left of a view that moves.
_SMALLEST = 2.5 * _TRAVEL


def make_views(rated: Path, output: Path, count: int, split: str = "train") -> Path:
    """Make views of some photographs of a part of BIQ2021.

    Args:
        rated: folder of BIQ2021.
        output: folder for the views and `ratings.csv`. A run that was stopped goes on where it was.
        count: of photographs, drawn by a hash of their names. Each becomes a pan, and every other one a still or is
            mirrored.
        split: "train" or "test".

    Returns:
        The path of `ratings.csv` (columns `video`, `mos`, `split`, `content`, `family`), `mos` on 0 to 100. A tenth of
        the train part has the split "validation", as in `rate_together`.
    """
    register()
    rows = list(datasets.load_dataset("biq2021", "score", data_dir=str(rated), split=split))
    drawn = sorted(rows, key=lambda row: seed_of("view", row["id"]))[:count]
    output.mkdir(parents=True, exist_ok=True)
    ratings = output / "ratings.csv"
    with ratings.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for number, row in enumerate(drawn):
            picture = Path(row["video"]["path"])
            for view in ("pan", ("still", "mirror")[number % 2]):
                if (video := _make_view(picture, view, output)) is not None:
                    part = split_of(row["id"]) if split == "train" else split
                    writer.writerow([video.name, f"{row['score']:.3f}", part, row["id"], view])
    return ratings


def split_of(picture: str) -> str:
    """Of a photograph of the train part, by its name: a tenth validates."""
    return "validation" if seed_of("validation", picture) % 10 == 0 else "train"


def _make_view(picture: Path, view: str, output: Path) -> Path | None:
    """The file of a view, or None where the photograph is too small for it. Nothing is done if it is there."""
    target = output / f"{picture.stem}.{view}{'.png' if view == 'mirror' else '.mp4'}"
    if target.exists():
        return target
    with Image.open(picture) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    if view == "mirror":
        ImageOps.mirror(upright).save(target)
        return target
    if min(upright.size) < _SMALLEST:
        return None
    width, height = (side // 2 * 2 for side in upright.size)
    filters = f"scale={width}:{height},format=yuv420p,loop=loop={_FRAMES - 1}:size=1,setpts=N/{PHOTOGRAPH_FPS}/TB"
    if view == "pan":
        places = [
            f"{SMALL_STEP}*n" if seed_of("direction", axis, picture.stem) % 2 else f"{SMALL_STEP}*({_FRAMES - 1}-n)"
            for axis in "xy"
        ]
        filters += f",crop={width - _TRAVEL}:{height - _TRAVEL}:x='{places[0]}':y='{places[1]}'"
    partial = target.with_suffix(".partial.mp4")
    run_ffmpeg("-i", str(picture), "-vf", filters, *_ENCODER, str(partial))
    partial.rename(target)
    return target
