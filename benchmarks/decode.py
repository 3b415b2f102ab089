"""Decode and preprocess 1080p video, against bare decoding of the same file and against what one would write by hand.

`python benchmarks/decode.py [FILE ...] [--source CLIP] [--repeats N] [--ways WAY ...]`. Without FILE, ten
seconds of 1080p in H.264, HEVC, VP9 and AV1 are made from the source clip, and ten minutes by repeating the H.264
packets. Every measurement is a process of its own; the ways take turns, and the best of the repeats counts:

    bare             PyAV decodes every frame and throws it away
    paper            the video processor with its defaults: key frames, and 32 frames of 224 x 224 a second
    default          the same with the settings of the default checkpoint: key frames of 640 x 360, and 24 frames of
                     64 x 64
    decord           `paper` by the other backend
    by hand          decord's get_batch for each second, then torch: resize, scale, normalise, for both streams
    library          transformers' load_video with all frames, then the same
    bare, 1 thread   and
    reader           `paper` as bulk scoring does it: decoded in a process of its own on one core, prepared in this one;
                     its memory is that of the process that reads
    reader, default  the same with the settings of the default checkpoint

`--against FOLDER` measures something else: reading by this checkout and by another one of this repository, in turns.

The targets: 1.2 x bare, and at most 600 MB whatever the length. On a busy machine the ratio of processor times is the
one to look at: it bounds what two cores can reach.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import imageio_ffmpeg

REPOSITORY = Path(__file__).resolve().parents[1]
ENCODERS = {
    "h264.mp4": ["libx264", "-preset", "veryfast", "-crf", "20"],
    "hevc.mp4": ["libx265", "-preset", "ultrafast", "-crf", "24", "-x265-params", "log-level=none"],
    "vp9.webm": ["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1", "-b:v", "5M"],
    "av1.mp4": ["libsvtav1", "-preset", "10", "-crf", "30"],
}
WAYS = ("bare", "paper", "default", "decord", "by hand", "library", "bare, 1 thread", "reader", "reader, default")
# What each way is held against.
BASES = {"bare, 1 thread": "bare, 1 thread", "reader": "bare, 1 thread", "reader, default": "bare, 1 thread"}
# The peak is read as VmHWM: unlike the maximum of getrusage, it does not carry over from the process that started this
# one.
MEASURE = """
import json, sys, time
path, way = sys.argv[1:]
peak_of, elsewhere = "self", 0.0
if way.startswith("bare"):
    import av
else:
    import torch
    from lmmvqa.scoring.reading_workers import ReadingWorker
    from transformers.video_utils import load_video
    from processing.video_processing_lmmvqa import LmmVqaVideoProcessor
    from torchvision.transforms.v2 import functional as tvf
    settings = {}
    if way.endswith("default"):
        from lmmvqa.checkpoints.default_files import RECIPE, TEMPORAL_TOWER
        tower = json.loads((TEMPORAL_TOWER / "config.json").read_text())
        side = tower["image_size"]
        settings = {"temporal_num_frames": tower["num_frames"], "temporal_size": {"height": side, "width": side}}
        settings |= json.loads(RECIPE.read_text())["video_processor"]
    processor = LmmVqaVideoProcessor(**settings)
    if way in ("decord", "by hand"):
        import decord
        decord.bridge.set_bridge("torch")
    if way.startswith("reader"):
        torch.set_num_threads(1)
        worker = ReadingWorker(processor)
        peak_of = worker._process.pid
        time.sleep(1)

def prepare(frames):
    frames = frames.permute(0, 3, 1, 2)
    key = tvf.resize(frames[:1], [224, 224], interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
    picked = frames[torch.linspace(0, len(frames) - 1, 32).round().long()]
    small = tvf.resize(picked, [224, 224], antialias=True)
    key, small = key.float() / 255, small.float() / 255
    return tvf.normalize(key, processor.image_mean, processor.image_std), tvf.normalize(small, [0.45] * 3, [0.225] * 3)

wall, used = time.perf_counter(), time.process_time()
if way.startswith("bare"):
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.thread_count = 1 if way.endswith("1 thread") else 0
        for frame in container.decode(stream):
            pass
elif way.startswith("reader"):
    for chunk in worker.read(path):
        pass
    elsewhere = worker.seconds_there
elif way in ("paper", "default", "decord"):
    for chunk in processor.stream(path, decoder="decord" if way == "decord" else "pyav"):
        pass
elif way == "by hand":
    reader = decord.VideoReader(path)
    fps = round(reader.get_avg_fps())
    for start in range(0, len(reader), fps):
        prepare(reader.get_batch(range(start, min(start + fps, len(reader)))))
else:
    frames, metadata = load_video(path, backend="pyav")
    fps = round(metadata.fps)
    for start in range(0, len(frames), fps):
        prepare(torch.from_numpy(frames[start : start + fps]))
wall, used = time.perf_counter() - wall, time.process_time() - used + elsewhere
peak = next(int(line.split()[1]) for line in open(f"/proc/{peak_of}/status") if line.startswith("VmHWM"))
print(json.dumps([wall, used, peak / 1024]))
"""

# Reading alone.
READ = """
import sys, time
from processing.video_reader import open_video
began = time.process_time()
with open_video(sys.argv[1], frames_per_chunk=24, frame_size=(64, 64)) as reader:
    for chunk in reader:
        pass
print(time.process_time() - began)
"""


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def make_clips(source: Path, folder: Path) -> list[Path]:
    for name, encoder in ENCODERS.items():
        scaled = ["-stream_loop", "-1", "-i", source, "-t", "10", "-an", "-vf", "scale=1920:1080:flags=bicubic"]
        ffmpeg(*scaled, "-pix_fmt", "yuv420p", "-c:v", *encoder, folder / name)
    return [folder / name for name in ENCODERS]


def measure(path: Path, way: str) -> tuple[float, float, float] | None:
    """Wall seconds, processor seconds and peak memory in MB; None where the way can't read the file."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), way], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return tuple(json.loads(run.stdout)) if run.returncode == 0 else None


def compare(path: Path, ways: Sequence[str], repeats: int) -> dict[str, tuple[float, float, float]]:
    """The best of the repeats of each way that can read the file; a line of each is printed."""
    rounds = [[measure(path, way) for way in ways] for _ in range(repeats)]
    best = {
        way: tuple(map(min, zip(*runs, strict=True)))
        for way, *runs in zip(ways, *rounds, strict=True)
        if None not in runs
    }
    for way in ways:
        if way in best:
            wall, used, peak = best[way]
            of_wall, of_used = ratios(best, way)
            print(f"{path.name:18}{way:16}{wall:8.2f}{of_wall:8.2f}{used:10.2f}{of_used:8.2f}{peak:10.0f}", flush=True)
        else:
            print(f"{path.name:18}{way:16}   can't read it", flush=True)
    return best


def ratios(best: Mapping[str, tuple[float, float, float]], way: str) -> tuple[float, float]:
    """Of wall time and of processor time to bare decoding; NaN where that was not measured."""
    base = best.get(BASES.get(way, "bare"), (math.nan,) * 3)
    return best[way][0] / base[0], best[way][1] / base[1]


def measure_codecs(
    source: Path, repeats: int, files: Sequence[Path] = (), ways: Sequence[str] = WAYS
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Every way on every file, and the long one by ours alone, by the name of the file."""
    print(f"{'':34}{'wall, s':>8}{'ratio':>8}{'cores, s':>10}{'ratio':>8}{'peak, MB':>10}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = {path.name: compare(path.resolve(), ways, repeats) for path in files or make_clips(source, folder)}
        if not files:
            long = folder / "h264_10min.mp4"
            ffmpeg("-stream_loop", "59", "-i", folder / "h264.mp4", "-c", "copy", long)
            found[long.name] = compare(long, ("reader",), repeats=1)
    return found


def compare_checkouts(path: Path, other: Path, repeats: int) -> float:
    """The ratio of processor times of reading a file, with the settings of the default checkpoint, here and by another
    checkout; of the best of the repeats."""
    seconds: dict[Path, list[float]] = {REPOSITORY: [], other: []}
    for _ in range(repeats):
        for checkout, times in seconds.items():
            command = [sys.executable, "-c", READ, str(path)]
            run = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
            times.append(float(run.stdout))
    ours, theirs = (min(times) for times in seconds.values())
    print(f"{path.name}: {ours:.2f} s here, {theirs:.2f} s there, ratio {ours / theirs:.3f}", flush=True)
    return ours / theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--source", type=Path, default=REPOSITORY / "tests" / "data" / "flower.mp4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="Another checkout of this repository.")
    arguments = parser.parse_args()
    if arguments.against is not None:
        for path in arguments.files or [arguments.source]:
            compare_checkouts(path.resolve(), arguments.against.resolve(), arguments.repeats)
        return
    measure_codecs(arguments.source, arguments.repeats, arguments.files, arguments.ways)


if __name__ == "__main__":
    main()
