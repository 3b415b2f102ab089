"""Graded distorted copies: clean contents in, copies with a VMAF rating out.

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
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from processing.errors import SetupError
from processing.questions import SEPARATOR

logger = logging.getLogger(__name__)

SECONDS = 2
PHOTOGRAPH_FPS = 25
# Of final frames, in width and height: what a window of two moves over.
CANVAS = 3
PHOTOGRAPH_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".mpg"}
NUM_FOLDS = 5
SPLITS = {0: "test", 1: "validation"}
COLUMNS = (
    "video",
    "mos",
    "split",
    "fold",
    "content",
    "kind",
    "family",
    "distortion",
    "flaw",
    "severity",
    "second_rating",
    "second_rating_kind",
)

_X264 = ("-c:v", "libx264", "-preset", "medium", "-crf")
# Copies whose fault is in the picture, not in the coding, are stored with a rate factor at which x264 adds nothing
# that VMAF or an eye would see.
TRANSPARENT_CRF = 12
_TRANSPARENT = ("-c:v", "libx264", "-preset", "veryfast", "-crf", str(TRANSPARENT_CRF))


@dataclass(frozen=True)
class Distortion:
    """One way to distort a content, at a severity drawn from a span.

    Args:
        flaws: what lowers the quality, in words of the question `flaw`.
        span: `severity` is drawn per content from here, so that ratings fill the scale.
        filters: ffmpeg's filters for a severity and the content, whose name seeds what is random.
        encoder: ffmpeg's encoder arguments for a severity.
        group: of the distortions of a group each content gets only some (`DRAWN`); "" is for every content.
        second_rating: "psnr_hvs" where VMAF is blind to the fault, "fresh_frames" where it sees it only through motion.
    """

    name: str
    family: str
    flaws: tuple[str, ...]
    span: tuple[float, float]
    filters: Callable[[float, Content], str] = lambda severity, content: "null"
    encoder: Callable[[float], tuple[str, ...]] = lambda severity: _TRANSPARENT
    whole_steps: bool = False
    group: str = ""
    second_rating: str = ""

    def flaw(self, severity: float) -> str:
        """The label of a copy, the stronger of two faults first: that is the coding in the upper half of its span."""
        strong = severity > sum(self.span) / 2
        return SEPARATOR.join(reversed(self.flaws) if strong else self.flaws)


def _rescale(factor: float, content: Content) -> str:
    width, height = (round(side / factor / 2) * 2 for side in content.size)
    return f"scale={width}:{height}:flags=bicubic,scale={content.size[0]}:{content.size[1]}:flags=bicubic"


def _x264(crf: float) -> tuple[str, ...]:
    return (*_X264, f"{crf:.1f}")


def _x265(crf: float) -> tuple[str, ...]:
    return (
        "-c:v",
        "libx265",
        "-preset",
        "fast",
        "-x265-params",
        "log-level=error:pools=1",
        "-tag:v",
        "hvc1",
        "-crf",
        f"{crf:.1f}",
    )


def _vp9(crf: float) -> tuple[str, ...]:
    return ("-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", "5", "-b:v", "0", "-crf", f"{crf:.0f}")


def _av1(crf: float) -> tuple[str, ...]:
    return ("-c:v", "libsvtav1", "-preset", "9", "-svtav1-params", "lp=1", "-crf", f"{crf:.0f}")


def _mpeg4(quantizer: float) -> tuple[str, ...]:
    return ("-c:v", "mpeg4", "-qscale:v", f"{quantizer:.0f}", "-g", "25")


def _noise(strength: float, content: Content) -> str:
    return f"noise=alls={strength:.0f}:allf=t:all_seed={int(_draw(content.name, 'noise') * 1e6)}"


def _blur(sigma: float, _: Content) -> str:
    return f"gblur=sigma={sigma:.2f}"


def _banding(step: float, _: Content) -> str:
    quantized = f"floor(val/{step:.1f})*{step:.1f}+{step / 2:.1f}"
    return f"lutyuv=y='{quantized}':u='{quantized}':v='{quantized}'"


def _hold(frames: float, _: Content) -> str:
    """Show every n-th frame only, each for the time of n frames: what a starved player or camera does."""
    return "shuffleframes=" + " ".join(["0"] * int(frames))


def _leave_out(lost: Iterable[int]) -> str:
    """The frames of these numbers are lost; the one before stays on the screen for their time."""
    return "select='not(" + "+".join(f"eq(n,{frame})" for frame in lost) + ")',fps=source_fps"


def _drop(share: float, content: Content) -> str:
    return _leave_out(
        [frame for frame in range(1, 30 * SECONDS) if _draw(content.name, "drop", str(frame)) < share] or [1]
    )


def _freeze(seconds: float, content: Content) -> str:
    start = 0.2 + (SECONDS - 0.4 - seconds) * _draw(content.name, "freeze")
    return f"select='not(between(t,{start:.3f},{start + seconds:.3f}))',fps=source_fps"


def _flicker(amplitude: float, content: Content) -> str:
    rate = 2 * 3.14159 * (4 + 6 * _draw(content.name, "flicker"))
    return f"eq=brightness='{amplitude:.3f}*sin({rate:.3f}*t)':eval=frame"


DISTORTIONS = (
    Distortion("near_lossless", "codec", ("none",), (12, 12), encoder=_x264),
    *(
        Distortion(name, "codec", ("compression",), span, encoder=encoder, group=f"codec {strength}", **more)
        for name, strength, span, encoder, more in (
            ("x264_light", "light", (26, 34), _x264, {"second_rating": "psnr_hvs"}),
            ("x265_light", "light", (28, 39), _x265, {}),
            ("vp9_light", "light", (36, 52), _vp9, {}),
            ("av1_light", "light", (38, 53), _av1, {}),
            ("x264_strong", "strong", (36, 43), _x264, {"second_rating": "psnr_hvs"}),
            ("x264_extreme", "strong", (44, 51), _x264, {"second_rating": "psnr_hvs"}),
            ("x265_strong", "strong", (40, 51), _x265, {}),
            ("vp9_strong", "strong", (53, 63), _vp9, {}),
            ("av1_strong", "strong", (54, 63), _av1, {}),
            ("blocking", "strong", (6, 31), _mpeg4, {}),
        )
    ),
    Distortion("rescale_light", "spatial", ("upscaling",), (1.5, 2.5), _rescale, group="upscaling"),
    Distortion("rescale_strong", "spatial", ("upscaling",), (3, 6), _rescale, group="upscaling"),
    Distortion("blur_light", "spatial", ("blur",), (0.6, 1.6), _blur, group="blur"),
    Distortion("blur_strong", "spatial", ("blur",), (1.8, 4), _blur, group="blur"),
    Distortion("noise", "noise", ("noise",), (8, 45), _noise, second_rating="psnr_hvs"),
    Distortion("banding", "banding", ("banding",), (16, 64), _banding, second_rating="psnr_hvs"),
    *(
        Distortion(name, "exposure", ("exposure",), span, filters, group="exposure", second_rating="psnr_hvs")
        for name, span, filters in (
            ("dark", (20, 90), lambda d, _: f"lutyuv=y='clip(val-{d:.0f},16,235)'"),
            ("bright", (20, 90), lambda d, _: f"lutyuv=y='clip(val+{d:.0f},16,235)'"),
            ("flat", (0.4, 0.85), lambda c, _: f"lutyuv=y='(val-128)*{c:.2f}+128'"),
        )
    ),
    *(
        Distortion(name, "temporal", ("stutter",), span, filters, group="stutter", second_rating="fresh_frames", **more)
        for name, span, filters, more in (
            ("stutter_light", (2, 3), _hold, {"whole_steps": True}),
            ("stutter_strong", (4, 8), _hold, {"whole_steps": True}),
            ("drop", (0.1, 0.6), _drop, {}),
        )
    ),
    Distortion("freeze", "temporal", ("freeze",), (0.3, 1.4), _freeze, second_rating="fresh_frames"),
    Distortion("flicker", "flicker", ("flicker",), (0.03, 0.2), _flicker, second_rating="psnr_hvs"),
    *(
        Distortion(name, "pair", (flaw, "compression"), (30, 40), filters, _x264, group="pair")
        for name, flaw, filters in (
            ("rescale_x264", "upscaling", lambda _, content: _rescale(3, content)),
            ("noise_x264", "noise", lambda _, content: _noise(25, content)),
            ("stutter_x264", "stutter", lambda _, content: _hold(4, content)),
            ("blur_x264", "blur", lambda _, content: _blur(2, content)),
        )
    ),
)
BY_NAME = {distortion.name: distortion for distortion in DISTORTIONS}
# How many distortions of a group a content gets, drawn by its name.
DRAWN = {"codec light": 1, "codec strong": 2, "upscaling": 1, "blur": 2, "exposure": 1, "stutter": 2, "pair": 2}
# How many of all these a content keeps: for the same time, other contents teach more than more copies of one.
KEPT = {"video": 16, "photograph": 10}
# Width and height of a moving view of a large photograph: landscape, portrait, square.
SIZES = ((640, 360), (960, 540), (360, 640), (512, 512))
# Pixels of a frame at most: a larger source is scaled down, which hides its own coding.
MAX_PIXELS = 640 * 400
# A small picture moves by whole pixels, so that nothing is interpolated.
SMALL_STEP = 2


@dataclass(frozen=True)
class Content:
    """A clean source: a real video, or a photograph that stands still or becomes a slow pan or zoom."""

    path: Path

    @property
    def name(self) -> str:
        """Of the folder of its copies, and what its distortions are drawn by."""
        return self.path.stem

    @property
    def kind(self) -> str:
        return "photograph" if self.path.suffix.lower() in PHOTOGRAPH_SUFFIXES else "video"

    @property
    def still(self) -> bool:
        """Whether nothing moves: a third of the photographs."""
        return self.kind == "photograph" and _draw("still", self.name) < 1 / 3

    @cached_property
    def source_size(self) -> tuple[int, int]:
        return _source_size(self)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the reference and all copies, both even."""
        width, height = self.source_size
        if self.kind == "photograph" and not self.still:
            if sizes := [size for size in SIZES if 1.5 * size[0] <= width and 1.5 * size[1] <= height]:
                return sizes[int(len(sizes) * _draw("size", self.name))]
            travel = SMALL_STEP * (PHOTOGRAPH_FPS * SECONDS - 1)
            if min(width, height) > 2 * travel:
                width, height = width - travel, height - travel
        factor = min(1.0, (MAX_PIXELS / (width * height)) ** 0.5)
        return 2 * round(width * factor / 2), 2 * round(height * factor / 2)


def make_graded_copies(sources: Iterable[Path], output: Path, *, workers: int = 2) -> Path:
    """Make every distortion of every content and rate it.

    Args:
        sources: videos and photographs, or folders of them.
        output: folder for `<content>/<distortion>.mp4` and `ratings.csv` (columns `COLUMNS`; `mos` holds the mean VMAF,
            0 to 100). A run that was stopped goes on where it was.
        workers: copies made at once, each on one core.

    Returns:
        The path of `ratings.csv`. Contents are dealt to `NUM_FOLDS` folds by a hash of their names; fold 0 has the
        split "test", fold 1 "validation". All copies of one content are in one fold.

    Raises:
        FileNotFoundError: there is no content in `sources`.
        RuntimeError: some contents could not be made into copies; all others are in `ratings.csv`.
    """
    contents = sorted(find_contents(sources), key=lambda content: content.name)
    if not contents:
        raise FileNotFoundError(f"No video or photograph found in {', '.join(map(str, sources))}.")
    output.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(lambda content: _make_content(content, output), contents))
    ratings = output / "ratings.csv"
    with ratings.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for content, (rows, _) in zip(contents, outcomes, strict=True):
            for row in rows:
                flaw = BY_NAME[row["distortion"]].flaw(float(row["severity"]))
                writer.writerow({**row, "flaw": flaw, "split": _split(content), "fold": content_fold(content)})
    if failures := [
        f"{content.path}: {error}" for content, (_, error) in zip(contents, outcomes, strict=True) if error
    ]:
        raise SetupError(
            f"{len(failures)} of {len(contents)} contents failed, the others are in {ratings}:\n" + "\n".join(failures)
        )
    if empty := {"train", *SPLITS.values()} - {_split(content) for content in contents}:
        logger.warning(
            "No content for the splits %s: a content's split goes by its name, so a dozen contents or more fill all.",
            ", ".join(sorted(empty)),
        )
    logger.info("%d copies of %d contents in %s", sum(len(rows) for rows, _ in outcomes), len(contents), ratings)
    return ratings


def find_contents(sources: Iterable[Path]) -> Iterable[Content]:
    for source in sources:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        yield from (Content(file) for file in files if file.suffix.lower() in PHOTOGRAPH_SUFFIXES | VIDEO_SUFFIXES)


def seed_of(*key: str) -> int:
    """64 bits that depend on the key alone, so that what is drawn by it is the same on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(key).encode()).digest()[:8], "big")


def _draw(*key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return seed_of(*key) / 2**64


def content_fold(content: Content) -> int:
    """Depends on the name alone, so that no content changes its fold when others are added."""
    return int(NUM_FOLDS * _draw("fold", content.path.stem))


def _split(content: Content) -> str:
    return SPLITS.get(content_fold(content), "train")


def _distortions(content: Content) -> list[Distortion]:
    """The distortions that this content gets."""
    distortions = [distortion for distortion in DISTORTIONS if not distortion.group]
    for group, count in DRAWN.items():
        candidates = [distortion for distortion in DISTORTIONS if distortion.group == group]
        distortions += sorted(candidates, key=lambda distortion: _draw("rung", content.name, distortion.name))[:count]
    if content.still:
        distortions = [each for each in distortions if each.family != "temporal" and "stutter" not in each.flaws]
    first, *rest = distortions
    return [
        first,
        *sorted(rest, key=lambda distortion: _draw("kept", content.name, distortion.name))[: KEPT[content.kind] - 1],
    ]


def _make_content(content: Content, output: Path) -> tuple[list[dict[str, str]], str]:
    """All copies of a content; those that could be made, and what went wrong."""
    rows: list[dict[str, str]] = []
    try:
        _make_reference(content, output)
        for distortion in _distortions(content):
            rows.append(_make_copy(content, distortion, output))
    except (RuntimeError, OSError) as error:
        return rows, str(error)
    logger.info(
        "%s %s: VMAF %s",
        content.name,
        content.size,
        " ".join(f"{row['distortion']} {float(row['mos']):.0f}" for row in rows),
    )
    return rows, ""


def run_ffmpeg(*arguments: str) -> str:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise SetupError(f"ffmpeg failed on {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done.stderr


def _duration(path: Path) -> float:
    import av

    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def _source_size(content: Content) -> tuple[int, int]:
    if content.kind == "photograph":
        from PIL import Image, ImageOps

        with Image.open(content.path) as picture:
            return ImageOps.exif_transpose(picture).size
    import av

    with av.open(str(content.path)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


def _make_reference(content: Content, output: Path) -> None:
    """What copies are made of and rated against, kept without loss: `SECONDS` from the middle of a video, or a view of
    the photograph that stands still or moves. Nothing is done if it is there."""
    reference = output / content.name / "reference.mkv"
    if reference.exists():
        return
    reference.parent.mkdir(exist_ok=True)
    width, height = content.size
    frames = PHOTOGRAPH_FPS * SECONDS
    repeat = f"format=yuv420p,loop=loop={frames - 1}:size=1,setpts=N/{PHOTOGRAPH_FPS}/TB"
    cut, rate = ("-i", str(content.path)), ("-r", str(PHOTOGRAPH_FPS))
    if content.kind == "video":
        start = max(0.0, (_duration(content.path) - SECONDS) / 2)
        cut, rate = ("-ss", f"{start:.3f}", "-t", str(SECONDS), *cut), ()
        frame = f"scale={width}:{height}:flags=lanczos"
    elif content.still:
        frame = f"scale={width}:{height}:flags=lanczos,{repeat}"
    elif content.size in SIZES:
        # The window moves over a canvas of twice the final size, so that motion is smooth to half a pixel.
        frame = (
            f"scale={CANVAS * width}:{CANVAS * height}:force_original_aspect_ratio=increase:flags=lanczos,"
            f"crop={CANVAS * width}:{CANVAS * height},{repeat},{_camera(content)},scale={width}:{height}:flags=lanczos"
        )
    else:
        places = [
            f"{SMALL_STEP}*n" if _draw("direction", axis, content.name) < 0.5 else f"{SMALL_STEP}*({frames - 1}-n)"
            for axis in "xy"
        ]
        frame = f"{repeat},crop={width}:{height}:x='{places[0]}':y='{places[1]}'"
    partial = reference.with_suffix(".partial.mkv")
    run_ffmpeg(
        *cut,
        "-an",
        "-vf",
        f"{frame},setsar=1,format=yuv420p",
        "-fps_mode",
        "cfr",
        *rate,
        "-threads",
        "1",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-qp",
        "0",
        str(partial),
    )
    partial.rename(reference)


def _camera(content: Content) -> str:
    """A slow pan or zoom that ends in a window of twice the final size."""
    name = content.name
    width, height = (2 * side for side in content.size)
    if _draw("zoom", name) < 1 / 3:
        progress = f"t/{SECONDS}" if _draw("inwards", name) < 0.5 else f"(1-t/{SECONDS})"
        factor = f"(0.7+{0.05 + 0.25 * _draw('speed', name):.3f}*{progress})"
        size = f"w='2*trunc(iw*{factor}/2)':h='2*trunc(ih*{factor}/2)'"
        return f"scale={size}:eval=frame:flags=bicubic,crop={width}:{height}"
    places = []
    for axis in "xy":
        travel = (0.1 + 0.6 * _draw("travel", axis, name)) * (1 if _draw("direction", axis, name) < 0.5 else -1)
        places.append(f"{(1 - travel) / 2:.3f}+({travel:.3f})*t/{SECONDS}")
    return f"crop={width}:{height}:x='(iw-ow)*({places[0]})':y='(ih-oh)*({places[1]})'"


def _make_copy(content: Content, distortion: Distortion, output: Path) -> dict[str, str]:
    folder = output / content.name
    record = folder / f"{distortion.name}.json"
    if record.exists():
        return json.loads(record.read_text())
    low, high = distortion.span
    severity = low + (high - low) * _draw(content.name, distortion.name)
    if distortion.whole_steps:
        severity = low + int((high - low + 1) * _draw(content.name, distortion.name))
    reference, copy = folder / "reference.mkv", folder / f"{distortion.name}.mp4"
    run_ffmpeg(
        "-i",
        str(reference),
        "-vf",
        distortion.filters(severity, content),
        "-fps_mode",
        "cfr",
        "-threads",
        "1",
        "-pix_fmt",
        "yuv420p",
        *distortion.encoder(severity),
        str(copy),
    )
    metrics = compare(copy, reference, features=("psnr_hvs",) if distortion.second_rating == "psnr_hvs" else ())
    second = (
        fresh_frames(copy) if distortion.second_rating == "fresh_frames" else metrics.get(distortion.second_rating, "")
    )
    row = {
        "video": f"{content.name}/{distortion.name}.mp4",
        "mos": f"{metrics['vmaf']:.3f}",
        "content": content.path.stem,
        "kind": content.kind,
        "family": distortion.family,
        "distortion": distortion.name,
        "severity": f"{severity:.3f}",
        "second_rating": f"{second:.3f}" if second != "" else "",
        "second_rating_kind": distortion.second_rating,
    }
    record.write_text(json.dumps(row))
    return row


def compare(copy: Path, reference: Path, features: Iterable[str] = ()) -> dict[str, float]:
    """Means over the frames of a copy against its reference: "vmaf" (0 to 100) and the `features` of libvmaf that are
    asked for, such as "psnr_hvs" (dB). Both videos must have the same size, frame rate and first frame."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        wanted = ":feature=" + "|".join(f"name={feature}" for feature in features) if features else ""
        # Frames are paired by number: containers round time stamps differently, and a pair off by one frame looks
        # like a distortion.
        run_ffmpeg(
            "-i",
            str(copy),
            "-i",
            str(reference),
            "-lavfi",
            f"[0:v]settb=1/25,setpts=N[a];[1:v]settb=1/25,setpts=N[b];"
            f"[a][b]libvmaf=log_fmt=json:log_path={log}:n_threads=1:shortest=1{wanted}",
            "-f",
            "null",
            "-",
        )
        return {name: pooled["mean"] for name, pooled in json.loads(log.read_text())["pooled_metrics"].items()}


def fresh_frames(copy: Path) -> float:
    """Percentage of frames that show another picture than the frame before (mean luma difference above 0.2 of 255)."""
    import av
    import numpy as np

    with av.open(str(copy)) as container:
        luma = [frame.to_ndarray(format="gray")[::2, ::2].astype(np.int16) for frame in container.decode(video=0)]
    moved = [np.abs(after - before).mean() > 0.2 for before, after in pairwise(luma)]
    return 100 * sum(moved) / max(1, len(moved))
