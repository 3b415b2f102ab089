"""Decode and cut into chunks, against bare decoding of the same file: wall time, processor time and peak memory.

`python benchmarks/decode.py [FILE ...] [--source CLIP] [--backend B]`. Without FILE, ten seconds of 1080p in H.264, HEVC,
VP9 and AV1 are made from the source clip, and ten minutes by repeating the H.264 packets. Every measurement is a process of
its own; bare decoding (PyAV, frames thrown away) and reading (key frames, and 32 frames of 224 x 224 a chunk) take turns,
and the best of the repeats counts. The targets, on two free cores: 1.3 x the wall time, and at most 600 MB whatever the
length. On a busy machine the ratio of processor times is the one to look at: it bounds what two cores can reach.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg

REPOSITORY = Path(__file__).resolve().parents[1]
ENCODERS = {
    "h264.mp4": ["libx264", "-preset", "veryfast", "-crf", "20"],
    "hevc.mp4": ["libx265", "-preset", "ultrafast", "-crf", "24", "-x265-params", "log-level=none"],
    "vp9.webm": ["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1", "-b:v", "5M"],
    "av1.mp4": ["libsvtav1", "-preset", "10", "-crf", "30"],
}
# The peak is read as VmHWM: unlike the maximum of getrusage, it does not carry over from the process that started this one.
MEASURE = """
import json, sys, time
import av
from processing.video_reader import open_video
path, backend = sys.argv[1:]
wall, processor = time.perf_counter(), time.process_time()
if backend == "bare":
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            pass
else:
    with open_video(path, backend=backend, frames_per_chunk=32, frame_size=(224, 224)) as reader:
        for chunk in reader:
            pass
wall, processor = time.perf_counter() - wall, time.process_time() - processor
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([wall, processor, peak / 1024]))
"""


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def make_clips(source: Path, folder: Path) -> list[Path]:
    for name, encoder in ENCODERS.items():
        scaled = ["-stream_loop", "-1", "-i", source, "-t", "10", "-an", "-vf", "scale=1920:1080:flags=bicubic"]
        ffmpeg(*scaled, "-pix_fmt", "yuv420p", "-c:v", *encoder, folder / name)
    return [folder / name for name in ENCODERS]


def measure(path: Path, backend: str) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory in MB; backend "bare" only decodes."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), backend], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return tuple(json.loads(run.stdout))


def compare(path: Path, backend: str, repeats: int) -> None:
    runs = [(measure(path, "bare"), measure(path, backend)) for _ in range(repeats)]
    bare, ours = (tuple(map(min, zip(*kind, strict=True))) for kind in zip(*runs, strict=True))
    row = f"{path.name:16}{bare[0]:10.2f}{ours[0]:10.2f}{ours[0] / bare[0]:8.2f}"
    print(f"{row}{bare[1]:10.2f}{ours[1]:10.2f}{ours[1] / bare[1]:8.2f}{bare[2]:10.0f}{ours[2]:10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--source", type=Path, default=REPOSITORY / "tests" / "data" / "flower.mp4")
    parser.add_argument("--backend", choices=["pyav", "decord"], default="pyav")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    print(f"{'':16}{'wall time, s':>20}{'':8}{'processor time, s':>20}{'':8}{'peak memory, MB':>20}")
    print(f"{'':16}" + "".join(f"{'bare':>10}{'ours':>10}{'ratio':>8}" for _ in range(2)) + f"{'bare':>10}{'ours':>10}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in arguments.files or make_clips(arguments.source, folder):
            # decord's FFmpeg is of 2021 and knows no AV1.
            if arguments.backend != "decord" or path.name != "av1.mp4":
                compare(path.resolve(), arguments.backend, arguments.repeats)
        if not arguments.files:
            long = folder / "h264_10min.mp4"
            ffmpeg("-stream_loop", "59", "-i", folder / "h264.mp4", "-c", "copy", long)
            compare(long, arguments.backend, repeats=1)


if __name__ == "__main__":
    main()
