"""What quality over time costs, against decoding and the towers of the same video, and against windows scored anew.

`python benchmarks/timeline.py [--model M] [--seconds 60] [FILE]` makes a video of so many seconds from FILE, and prints the ratios of one
run.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg

from lmmvqa.scoring import load_checkpoint
from modeling_lmmvqa.quality_timeline import assess_timeline, encode_stream

CLIP = Path(__file__).parent.parent / "tests" / "data" / "flower.mp4"


def looped(clip: str, seconds: int, folder: Path) -> str:
    target = folder / "long.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-stream_loop", "-1", "-i", clip, "-t", str(seconds), "-an", "-c", "copy", str(target)]
    subprocess.run(command, check=True)
    return str(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("video", nargs="?", default=str(CLIP))
    arguments = parser.parse_args()

    model, processor = load_checkpoint(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        video = looped(arguments.video, arguments.seconds, Path(folder))
        # A short one first, so that nothing below pays for what is done once.
        short = encode_stream(model, processor.video_processor.stream(video, max_chunks=5))
        assess_timeline(model, processor, short)
        marks = [time.perf_counter()]
        encoded = encode_stream(model, processor.video_processor.stream(video))
        marks.append(time.perf_counter())
        windows = assess_timeline(model, processor, encoded)["windows"]
        marks.append(time.perf_counter())
    towers, read_out = marks[1] - marks[0], marks[2] - marks[1]
    anew = towers / len(encoded.starts_s) * sum(min(len(encoded.starts_s), 4) for _ in windows)
    print(f"{arguments.seconds} s of {Path(arguments.video).name}, {len(windows)} windows: decoding and towers {towers:.1f} s, language model {read_out:.1f} s")
    print(f"timeline against decoding and towers: {(towers + read_out) / towers:.2f} x")
    print(f"timeline against windows encoded one by one (reckoned): {(towers + read_out) / (anew + read_out):.2f} x")


if __name__ == "__main__":
    main()
