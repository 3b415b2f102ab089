"""Tiles of frames with ratings of their own, for the spatial tower to learn from.

A copy's one rating says little about any place in it, and a tower that sees a few thousand copies soon knows their
contents by heart. Tiles are rated each by itself, with VMAF and with what VMAF is made of, and there can be as many as
one likes: those of the copies' key frames, and those cut from their sources at any size, blurred, rescaled, made noisy
and compressed on the spot.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from lmmvqa.default_making.graded_copies import (
    TRANSPARENT_CRF,
    Content,
    content_fold,
    find_contents,
    run_ffmpeg,
    seed_of,
)
from lmmvqa.default_making.tower_training import DrawnDataset, copy_rows
from modeling_lmmvqa.frame_statistics import LUMA
from processing.errors import InputError
from processing.video_reader import open_video

logger = logging.getLogger(__name__)

TILE = 160
# Of libvmaf, 0 to 1 but for the last: how much of four scales is left (visual information fidelity), how much of the
# detail (detail loss), and VMAF of a still picture.
MEASURES = (
    "integer_vif_scale0",
    "integer_vif_scale1",
    "integer_vif_scale2",
    "integer_vif_scale3",
    "integer_adm2",
    "vmaf",
)
_RANGES = np.array([1, 1, 1, 1, 1, 100], np.float32)
# Of the copies: what one frame shows, and what can be told without the source.
FAMILIES = ("codec", "spatial", "pair", "noise", "banding")
# A frame of these is not that of the source at its time.
MISALIGNED = ("stutter_x264",)
TILES_OF_SOURCE, TILES_OF_KEY_FRAME = 720, 12
# Of a video among the sources.
_MOST_KEY_FRAMES = 8
# Tiles of one source that are compressed alike.
_COMPRESSED_TOGETHER = 40
# Shares of a source's tiles that are no better than most real video before any fault: soft as they come, and
# compressed.
_SOFT, _COMPRESSED_BEFORE = 0.3, 0.3


def make_tiles(
    ratings: Path, sources: Path, output: Path, *, held_out: Collection[int], workers: int = 2
) -> list[Path]:
    """Cut and rate the tiles of graded copies and of the sources that they were made of. What is there is not made
    again.

    Args:
        ratings: ratings.csv of the copies; its folder has the sources, reference.mkv, too.
        sources: folder of the sources.
        output: folder for `<name>.tiles.npy` (tiles, 3, TILE, TILE) uint8 and `<name>.measures.npy` (tiles, MEASURES)
            float32.
        held_out: folds to leave out.

    Returns:
        The files of measures, for `RatedTiles`; the folder may have those of other folds, too.

    Raises:
        VideoError, OSError: a copy or a source can't be read. Started again without it, the tiles that are there stay.
        RuntimeError: ffmpeg failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    folders: dict[Path, list[Path]] = {}
    for row in copy_rows(ratings):
        if int(row["fold"]) not in held_out and tells_its_rating(row):
            folders.setdefault(Path(row["video"]).parent, []).append(Path(row["video"]))
    contents = [content for content in find_contents([sources]) if content_fold(content) not in held_out]

    def of_copies(folder: Path) -> Path:
        return _write(
            output / f"copies_{folder.name}", lambda: _tiles_of_copies(folder / "reference.mkv", folders[folder])
        )

    def of_source(content: Content) -> Path:
        return _write(output / f"{content.kind}_{content.path.stem}", lambda: _tiles_of_source(content))

    with ThreadPoolExecutor(workers) as pool:
        return [*pool.map(of_copies, folders), *pool.map(of_source, contents)]


def tells_its_rating(row: dict[str, str]) -> bool:
    """Whether a key frame of this copy, by itself, shows what the copy was rated for."""
    return row["family"] in FAMILIES and row["distortion"] not in MISALIGNED


class RatedTiles(DrawnDataset):
    """The tiles that `make_tiles` made, mirrored at random: "frames" (3, TILE, TILE) from 0 to 1, and
    "rating" (MEASURES,) from 0 to 1.

    Args:
        measured: their files of measures.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, measured: Iterable[Path], *, seed: int = 0):
        super().__init__(seed)
        measured = sorted(measured)
        if not measured:
            raise InputError("There are no rated tiles: all contents of the copies are in folds that are held out.")
        self.tiles = [np.load(str(path).replace(".measures.", ".tiles."), mmap_mode="r") for path in measured]
        self.ratings = [np.load(path) / _RANGES for path in measured]
        self.ends = np.cumsum([len(tiles) for tiles in self.tiles])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        random = self.random(index)
        place = int(np.searchsorted(self.ends, index, side="right"))
        index -= int(self.ends[place]) - len(self.tiles[place])
        frame = torch.from_numpy(self.tiles[place][index].astype(np.float32)) / 255
        for axis in (-1, -2):
            if random.random() < 0.5:
                frame = frame.flip(axis)
        return {"frames": frame, "rating": torch.from_numpy(self.ratings[place][index])}


def _write(target: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Path:
    measures = target.with_name(f"{target.name}.measures.npy")
    if not measures.exists():
        copies, references = make()
        np.save(target.with_name(f"{target.name}.tiles.npy"), copies)
        # The measures come last: where they are, the tiles are whole.
        np.save(measures, measure(copies, references))
        logger.info("%s: %d tiles", target.name, len(copies))
    return measures


def _tiles_of_copies(reference: Path, copies: Iterable[Path]) -> tuple[np.ndarray, np.ndarray]:
    with open_video(reference) as reader:
        clean = [np.asarray(chunk.key_frame) for chunk in reader]
    tiles, references = [], []
    for copy in copies:
        random = np.random.default_rng(seed_of(copy.parent.name, copy.name))
        with open_video(copy) as reader:
            for chunk, source in zip(reader, clean, strict=False):
                for _ in range(TILES_OF_KEY_FRAME):
                    top, left = (int(random.integers(side - TILE + 1)) for side in source.shape[1:])
                    place = (slice(None), slice(top, top + TILE), slice(left, left + TILE))
                    tiles.append(np.asarray(chunk.key_frame)[place])
                    references.append(source[place])
    return np.stack(tiles), np.stack(references)


def _pictures(content: Content) -> list[Image.Image]:
    """A photograph, or the key frames of a video."""
    if content.kind == "photograph":
        with Image.open(content.path) as picture:
            return [ImageOps.exif_transpose(picture).convert("RGB")]
    with open_video(content.path, max_chunks=_MOST_KEY_FRAMES) as reader:
        return [Image.fromarray(np.asarray(chunk.key_frame).transpose(1, 2, 0)) for chunk in reader]


def _tiles_of_source(content: Content) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed_of(content.path.name))
    pictures = _pictures(content)
    tiles, references = [], []
    for _ in range(0, TILES_OF_SOURCE, _COMPRESSED_TOGETHER):
        clean = np.stack(
            [_clean_tile(pictures[random.integers(len(pictures))], random) for _ in range(_COMPRESSED_TOGETHER)]
        )
        if random.random() < _COMPRESSED_BEFORE:
            clean = _compress(clean, int(random.integers(18, 27)))
        faulty = np.stack([_distort(tile, random) for tile in clean])
        tiles.append(
            _compress(faulty, int(random.choice([0, TRANSPARENT_CRF, random.integers(18, 51)], p=[0.15, 0.35, 0.5])))
        )
        references.append(clean)
    return np.concatenate(tiles), np.concatenate(references)


def _clean_tile(picture: Image.Image, random: np.random.Generator) -> np.ndarray:
    """A square of any place and size; brighter or darker at times. Most are made smaller, so that what a JPEG file lost
    is not seen. The soft ones are near their own size, and half of them were out of focus before the sensor's noise
    came on top."""
    most, soft = min(picture.size), random.random() < _SOFT
    smallest, largest = (0.9, 1.5) if soft else (1.5, max(1.6, min(8.0, most / TILE / 1.2)))
    side = TILE * np.exp(random.uniform(np.log(smallest), np.log(largest)))
    side = min(side, most)
    left, top = (random.uniform(0, whole - side) for whole in picture.size)
    tile = picture.resize((TILE, TILE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    levels = np.asarray(tile, np.float32)
    if soft and random.random() < 0.5:
        focus = _gaussian(float(np.exp(random.uniform(np.log(0.5), np.log(2.5)))))
        blurred = _filter(torch.from_numpy(levels.transpose(2, 0, 1))[None], focus)
        grain = random.normal(0, random.uniform(0.5, 3), (TILE, TILE, 1))
        levels = blurred[0].numpy().transpose(1, 2, 0) + grain.astype(np.float32)
    if random.random() < 0.5:
        levels = 255 * random.uniform(0.5, 1) * (levels.clip(0, 255) / 255) ** random.uniform(0.7, 1.4)
    if random.random() < 0.3:
        levels = levels.mean(-1, keepdims=True) + random.uniform(0, 1) * (levels - levels.mean(-1, keepdims=True))
    return levels.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)


def _distort(tile: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One fault of the picture, or none: a blur, a smaller size and back, noise, or too few levels."""
    fault = random.choice(
        ["none", "gaussian", "motion", "rescale", "noise", "banding"], p=[0.2, 0.25, 0.05, 0.3, 0.12, 0.08]
    )
    if fault == "none":
        return tile
    levels = torch.from_numpy(tile.astype(np.float32))[None]
    if fault == "gaussian":
        levels = _filter(levels, _gaussian(float(np.exp(random.uniform(np.log(0.4), np.log(4))))))
    elif fault == "motion":
        levels = _filter(levels, _line(random.uniform(2, 12), random.uniform(0, np.pi)))
    elif fault == "rescale":
        side = round(TILE / np.exp(random.uniform(np.log(1.2), np.log(6))))
        kernels = [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS]
        down, up = (kernels[random.choice(3, p=[0.5, 0.25, 0.25])] for _ in range(2))
        small = Image.fromarray(tile.transpose(1, 2, 0)).resize((side, side), down)
        return np.asarray(small.resize((TILE, TILE), up)).transpose(2, 0, 1)
    elif fault == "noise":
        colours = 1 if random.random() < 0.5 else 3
        levels = levels + torch.from_numpy(
            random.normal(0, random.uniform(2, 25), (1, colours, TILE, TILE)).astype(np.float32)
        )
    else:
        step = random.uniform(12, 64)
        levels = (levels / step).floor() * step + step / 2
    return levels[0].round().clamp(0, 255).numpy().astype(np.uint8)


def _gaussian(sigma: float) -> torch.Tensor:
    reach = int(np.ceil(3 * sigma))
    line = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    return (line[:, None] * line) / line.sum() ** 2


def _line(length: float, angle: float) -> torch.Tensor:
    """What a camera that moves on a straight line makes of a point."""
    reach = int(np.ceil(length / 2))
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    for step in np.linspace(-length / 2, length / 2, 4 * reach + 1):
        kernel[round(reach + step * np.sin(angle)), round(reach + step * np.cos(angle))] += 1
    return kernel / kernel.sum()


def _filter(levels: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    reach = kernel.shape[-1] // 2
    padded = torch.nn.functional.pad(levels, (reach,) * 4, mode="reflect")
    return torch.nn.functional.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)


def _compress(tiles: np.ndarray, crf: int) -> np.ndarray:
    """Each tile as a key frame of x264; a rate factor of 0 leaves them as they are."""
    if not crf:
        return tiles
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{TILE}x{TILE}")
    with tempfile.TemporaryDirectory() as folder:
        plain, coded, decoded = (Path(folder, name) for name in ("plain", "coded.mkv", "decoded"))
        tiles.transpose(0, 2, 3, 1).tofile(plain)
        encode = (
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-g",
            "1",
            "-crf",
            str(crf),
            "-pix_fmt",
            "yuv420p",
            "-threads",
            "1",
        )
        run_ffmpeg(*raw, "-i", str(plain), *encode, str(coded))
        run_ffmpeg("-i", str(coded), *raw, str(decoded))
        return np.fromfile(decoded, np.uint8).reshape(len(tiles), TILE, TILE, 3).transpose(0, 3, 1, 2)


def measure(copies: np.ndarray, references: np.ndarray) -> np.ndarray:
    """`MEASURES` of tiles against their sources, both (tiles, 3, height, width) uint8 -> (tiles, MEASURES)"""
    size = f"{copies.shape[3]}x{copies.shape[2]}"
    raw = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", size)
    with tempfile.TemporaryDirectory() as folder:
        for name, tiles in (("copies", copies), ("references", references)):
            _luma_video(tiles).tofile(Path(folder, name))
        log = Path(folder, "log.json")
        still = "model=version=vmaf_v0.6.1\\\\:motion.motion_force_zero=true"
        run_ffmpeg(
            *raw,
            "-i",
            str(Path(folder, "copies")),
            *raw,
            "-i",
            str(Path(folder, "references")),
            "-lavfi",
            f"[0:v][1:v]libvmaf={still}:log_fmt=json:log_path={log}:n_threads=1",
            "-f",
            "null",
            "-",
        )
        frames = json.loads(log.read_text())["frames"]
    return np.array([[frame["metrics"][name] for name in MEASURES] for frame in frames], np.float32)


def _luma_video(tiles: np.ndarray) -> np.ndarray:
    """(tiles, 3, height, width) RGB -> (tiles, 1.5 * height * width) of planes as BT.601 has them; VMAF looks at the
    first alone."""
    luma = 16 + 219 / 255 * np.einsum("c,nchw->nhw", np.float32(LUMA), tiles, dtype=np.float32)
    plain = np.full((len(tiles), luma[0].size // 2), 128, np.uint8)
    return np.concatenate([luma.round().astype(np.uint8).reshape(len(tiles), -1), plain], axis=1)
