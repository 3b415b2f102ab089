"""A ladder of distortions: clean contents in, graded copies with a VMAF rating out.

Rated video sets cannot be redistributed, so the default checkpoint learns from copies of clean contents that we
distort ourselves. Each copy is rated with VMAF against its source, frame by frame. VMAF is a prediction of opinion,
not opinion: everything downstream says VMAF, never MOS, and reports each family of distortions by itself, because
VMAF sees a temporal fault only through the motion that it displaces.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

WIDTH, HEIGHT, SECONDS = 640, 360, 3
PHOTOGRAPH_FPS = 25
PHOTOGRAPH_SUFFIXES = {".jpg", ".jpeg", ".png"}
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".mpg"}
TEST_SHARE = 0.25
COLUMNS = ("video", "mos", "split", "content", "kind", "family", "rung", "severity")

_X264 = ("-c:v", "libx264", "-preset", "medium", "-crf")
# Copies whose fault is in the picture, not in the coding, are stored with a rate factor at which x264 adds nothing
# that VMAF or an eye would see.
_TRANSPARENT = (*_X264, "12")


@dataclass(frozen=True)
class Rung:
    """One step of the ladder. `severity` is drawn per content from `span`, so that ratings fill the scale."""

    name: str
    family: str
    span: tuple[float, float]
    filters: Callable[[float], str]
    encoder: Callable[[float], tuple[str, ...]]
    whole_steps: bool = False


def _no_filter(_: float) -> str:
    return "null"


def _rescale(factor: float) -> str:
    width, height = (round(side / factor / 2) * 2 for side in (WIDTH, HEIGHT))
    return f"scale={width}:{height}:flags=bicubic,scale={WIDTH}:{HEIGHT}:flags=bicubic"


def _x264(crf: float) -> tuple[str, ...]:
    return (*_X264, f"{crf:.1f}")


def _hold(frames: float) -> str:
    """Show every n-th frame only, each for the time of n frames: what a starved player or camera does."""
    return "shuffleframes=" + " ".join(["0"] * int(frames))


RUNGS = (
    Rung("near_lossless", "codec", (12, 12), _no_filter, _x264),
    Rung("x264_light", "codec", (23, 29), _no_filter, _x264),
    Rung("x264_medium", "codec", (30, 36), _no_filter, _x264),
    Rung("x264_strong", "codec", (37, 43), _no_filter, _x264),
    Rung("x264_extreme", "codec", (44, 50), _no_filter, _x264),
    Rung("vp9", "codec", (50, 220), _no_filter,
         lambda kbps: ("-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", "5", "-b:v", f"{kbps:.0f}k")),
    Rung("rescale_light", "spatial", (1.5, 2.5), _rescale, lambda _: _TRANSPARENT),
    Rung("rescale_strong", "spatial", (3, 6), _rescale, lambda _: _TRANSPARENT),
    Rung("blur", "spatial", (0.8, 4), lambda sigma: f"gblur=sigma={sigma:.2f}", lambda _: _TRANSPARENT),
    Rung("stutter_light", "temporal", (2, 3), _hold, lambda _: _TRANSPARENT, whole_steps=True),
    Rung("stutter_strong", "temporal", (4, 8), _hold, lambda _: _TRANSPARENT, whole_steps=True),
    Rung("rescale_x264", "pair", (30, 40), lambda _: _rescale(2), _x264),
)


@dataclass(frozen=True)
class Content:
    """A clean source: a real video, or a photograph that becomes a slow pan."""

    path: Path

    @property
    def name(self) -> str:
        # Wallpaper packages keep every picture as <title>/contents/images/<size>.<suffix>.
        parts = self.path.parts
        return parts[parts.index("contents") - 1] if "contents" in parts else self.path.stem

    @property
    def kind(self) -> str:
        return "photograph" if self.path.suffix.lower() in PHOTOGRAPH_SUFFIXES else "video"


def build_ladder(sources: Iterable[Path], output: Path, *, workers: int = 2) -> Path:
    """Make every rung of every content and rate it.

    Args:
        sources: videos and photographs, or folders of them.
        output: folder for `<content>/<rung>.mp4` and `ratings.csv` (columns `COLUMNS`; `mos` holds the mean VMAF,
            0 to 100). A run that was stopped goes on where it was.
        workers: copies made at once, each on one core.

    Returns:
        The path of `ratings.csv`. A quarter of the videos and a quarter of the photographs, drawn by a hash of
        their names, have the split "test"; all copies of one content are in one split.

    Raises:
        FileNotFoundError: there is no content in `sources`.
    """
    contents = sorted(_find_contents(sources), key=lambda content: content.name)
    if not contents:
        raise FileNotFoundError(f"No video or photograph found in {', '.join(map(str, sources))}.")
    splits = _split(contents)
    output.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        # References first: every rung of a content reads its reference.
        list(pool.map(lambda content: _make_reference(content, output), contents))
        jobs = [(content, rung) for content in contents for rung in RUNGS]
        rows = list(pool.map(lambda job: _make_rung(*job, output), jobs))
    ratings = output / "ratings.csv"
    with ratings.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "split": splits[row["content"]]} for row in rows)
    logger.info("%d copies of %d contents in %s", len(rows), len(contents), ratings)
    return ratings


def _find_contents(sources: Iterable[Path]) -> Iterable[Content]:
    for source in sources:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        yield from (Content(file) for file in files if file.suffix.lower() in PHOTOGRAPH_SUFFIXES | VIDEO_SUFFIXES)


def _draw(*key: str) -> float:
    """A number in [0, 1) that depends on the key alone, so that the ladder is the same on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(key).encode()).digest()[:8], "big") / 2**64


def _split(contents: list[Content]) -> dict[str, str]:
    splits = {}
    for kind in ("video", "photograph"):
        names = sorted((content.name for content in contents if content.kind == kind), key=lambda n: _draw("split", n))
        splits |= {name: "test" if i < TEST_SHARE * len(names) else "train" for i, name in enumerate(names)}
    return splits


def _ffmpeg(*arguments: str) -> str:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise RuntimeError(f"ffmpeg failed on {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done.stderr


def _duration(path: Path) -> float:
    import av

    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def _make_reference(content: Content, output: Path) -> None:
    """Cut `SECONDS` from the middle (or pan over the photograph) at 640 x 360, kept without loss."""
    reference = output / content.name / "reference.mkv"
    if reference.exists():
        return
    reference.parent.mkdir(exist_ok=True)
    if content.kind == "photograph":
        # The window moves over a canvas of twice the final size, so that the pan is smooth to half a pixel.
        x, y = ("t" if _draw(axis, content.name) < 0.5 else f"({SECONDS}-t)" for axis in "xy")
        pan = f"x='(iw-ow)*{x}/{SECONDS}':y='(ih-oh)*{y}/{SECONDS}'"
        cut = ("-loop", "1", "-framerate", str(PHOTOGRAPH_FPS), "-t", str(SECONDS), "-i", str(content.path))
        frame = (f"scale={3 * WIDTH}:{3 * HEIGHT}:force_original_aspect_ratio=increase:flags=lanczos,"
                 f"crop={3 * WIDTH}:{3 * HEIGHT},crop={2 * WIDTH}:{2 * HEIGHT}:{pan},scale={WIDTH}:{HEIGHT}:flags=lanczos")
    else:
        start = max(0.0, (_duration(content.path) - SECONDS) / 2)
        cut = ("-ss", f"{start:.3f}", "-t", str(SECONDS), "-i", str(content.path))
        frame = (f"scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=increase:flags=lanczos,crop={WIDTH}:{HEIGHT}")
    partial = reference.with_suffix(".partial.mkv")
    _ffmpeg(*cut, "-an", "-vf", f"{frame},setsar=1,format=yuv420p", "-fps_mode", "cfr", "-threads", "1",
            "-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", str(partial))
    partial.rename(reference)


def _make_rung(content: Content, rung: Rung, output: Path) -> dict[str, str]:
    folder = output / content.name
    record = folder / f"{rung.name}.json"
    if record.exists():
        return json.loads(record.read_text())
    low, high = rung.span
    severity = low + (high - low) * _draw(content.name, rung.name)
    if rung.whole_steps:
        severity = low + int((high - low + 1) * _draw(content.name, rung.name))
    reference, copy = folder / "reference.mkv", folder / f"{rung.name}.mp4"
    _ffmpeg("-i", str(reference), "-vf", rung.filters(severity), "-fps_mode", "cfr", "-threads", "1",
            "-pix_fmt", "yuv420p", *rung.encoder(severity), str(copy))
    row = {
        "video": f"{content.name}/{rung.name}.mp4",
        "mos": f"{rate_with_vmaf(copy, reference):.3f}",
        "content": content.name,
        "kind": content.kind,
        "family": rung.family,
        "rung": rung.name,
        "severity": f"{severity:.3f}",
    }
    record.write_text(json.dumps(row))
    logger.info("%s VMAF %s", row["video"], row["mos"])
    return row


def rate_with_vmaf(copy: Path, reference: Path) -> float:
    """Mean VMAF (0 to 100) of a copy against its reference: same size, frame rate and first frame."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        # Frames are paired by number: containers round time stamps differently, and a pair off by one frame looks
        # like a distortion.
        _ffmpeg("-i", str(copy), "-i", str(reference), "-lavfi",
                f"[0:v]settb=1/25,setpts=N[a];[1:v]settb=1/25,setpts=N[b];"
                f"[a][b]libvmaf=log_fmt=json:log_path={log}:n_threads=1:shortest=1", "-f", "null", "-")
        return json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"]
