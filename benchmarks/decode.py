"""Decode and preprocess 1080p video, against bare decoding of the same file and against what one would write by hand.

`python benchmarks/decode.py [FILE ...] [--source CLIP] [--repeats N]`. Without FILE, ten seconds of 1080p in H.264, HEVC, VP9 and
AV1 are made from the source clip, and ten minutes by repeating the H.264 packets. Every measurement is a process of its own;
the ways take turns, and the best of the repeats counts:

    bare      PyAV decodes every frame and throws it away
    pyav      the video processor with its defaults (key frames, and 32 frames of 224 x 224 a second), second by second
    decord    the same by its other backend
    by hand   decord's get_batch for each second, then torch: resize, scale, normalise, for both streams
    library   transformers' load_video with all frames, then the same

The targets, on two free cores: pyav 1.3 x the wall time of bare, and at most 600 MB whatever the length. On a busy machine the
ratio of processor times is the one to look at: it bounds what two cores can reach.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg

REPOSITORY = Path(__file__).resolve().parents[1]
ENCODERS = {
    "h264.mp4": ["libx264", "-preset", "veryfast", "-crf", "20"],
    "hevc.mp4": ["libx265", "-preset", "ultrafast", "-crf", "24", "-x265-params", "log-level=none"],
    "vp9.webm": ["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1", "-b:v", "5M"],
    "av1.mp4": ["libsvtav1", "-preset", "10", "-crf", "30"],
}
WAYS = ("bare", "pyav", "decord", "by hand", "library")
# The peak is read as VmHWM: unlike the maximum of getrusage, it does not carry over from the process that started this one.
MEASURE = """
import json, sys, time
path, way = sys.argv[1:]
if way == "bare":
    import av
else:
    import torch
    from transformers.video_utils import load_video
    from processing.video_processing_lmmvqa import LmmVqaVideoProcessor, _normalize
    from torchvision.transforms.v2 import functional as tvf
    processor = LmmVqaVideoProcessor()
    if way in ("decord", "by hand"):
        import decord
        decord.bridge.set_bridge("torch")

def prepare(frames):
    frames = frames.permute(0, 3, 1, 2)
    key = tvf.resize(frames[:1], [224, 224], interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
    picked = frames[torch.linspace(0, len(frames) - 1, 32).round().long()]
    small = tvf.resize(picked, [224, 224], antialias=True)
    return _normalize(key, processor.image_mean, processor.image_std), _normalize(small, [0.45] * 3, [0.225] * 3)

wall, used = time.perf_counter(), time.process_time()
if way == "bare":
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            pass
elif way in ("pyav", "decord"):
    for chunk in processor.stream(path, decoder=way):
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
wall, used = time.perf_counter() - wall, time.process_time() - used
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([wall, used, peak / 1024]))
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
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path), way], cwd=REPOSITORY, capture_output=True, text=True, check=False)
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
            (wall, used, peak), (bare_wall, bare_used, _) = best[way], best["bare"]
            row = f"{path.name:18}{way:10}{wall:8.2f}{wall / bare_wall:8.2f}{used:10.2f}{used / bare_used:8.2f}{peak:10.0f}"
            print(row, flush=True)
        else:
            print(f"{path.name:18}{way:10}   can't read it", flush=True)
    return best


def measure_codecs(source: Path, repeats: int, files: Sequence[Path] = ()) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Every way on every file, and the long one by ours alone, by the name of the file."""
    print(f"{'':28}{'wall, s':>8}{'ratio':>8}{'cores, s':>10}{'ratio':>8}{'peak, MB':>10}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = {path.name: compare(path.resolve(), WAYS, repeats) for path in files or make_clips(source, folder)}
        if not files:
            long = folder / "h264_10min.mp4"
            ffmpeg("-stream_loop", "59", "-i", folder / "h264.mp4", "-c", "copy", long)
            found[long.name] = compare(long, ("bare", "pyav"), repeats=1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--source", type=Path, default=REPOSITORY / "tests" / "data" / "flower.mp4")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    measure_codecs(arguments.source, arguments.repeats, arguments.files)


if __name__ == "__main__":
    main()
