"""Side by side in one run: this project, DOVER, DOVER-Mobile, FAST-VQA, NIQE, BRISQUE, and bare decoding.

`python benchmarks/peers.py --dover CHECKOUT --fast-vqa CHECKOUT [--clips 540p 1080p 4k] [--repeats 3]` makes clips
of one video, scores each by one method after the other, several times, and prints the least seconds (what else a
machine does only adds to them), the least processor time, the peak memory, and the size of what each method needs to be
installed.

Each method has a process of its own, which has loaded and scored the clip once before it is measured. The networks of
others are built from checkouts of their repositories (VQAssessment/DOVER, VQAssessment/FAST-VQA-and-FasterVQA) with
random weights, on which speed does not depend; they need `pip install timm einops opencv-python-headless sk-video`.
Without a checkout, a method is left out. What was measured is kept in OUTPUT/measured.jsonl, so that a long run can be
made in pieces.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

import psutil
from decode import ffmpeg
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
# Height and seconds of each clip.
CLIPS = {"540p": (540, 8), "1080p": (1080, 10), "4k": (2160, 10)}
# Name, and what it needs beside Python.
METHODS = {
    "this project, torch": ["lmmvqa[torch]"],
    "this project, ONNX": ["lmmvqa"],
    "this project, ONNX of 8 bits": ["lmmvqa"],
    "DOVER": ["torch", "torchvision", "decord", "timm", "einops", "opencv-python-headless", "sk-video", "tqdm"],
    "DOVER-Mobile": ["torch", "torchvision", "decord", "timm", "einops", "opencv-python-headless", "sk-video", "tqdm"],
    "FAST-VQA": ["torch", "torchvision", "decord", "timm", "einops", "opencv-python-headless", "sk-video", "tqdm"],
    "NIQE": ["av", "numpy", "scipy", "torch"],
    "BRISQUE": ["av", "numpy", "scipy", "torch"],
    "decoding": ["av"],
}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Score = Callable[[str], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dover", type=Path, help="checkout of VQAssessment/DOVER")
    parser.add_argument("--fast-vqa", type=Path, help="checkout of VQAssessment/FAST-VQA-and-FasterVQA")
    parser.add_argument(
        "--video", type=Path, default=ROOT / "tests" / "data" / "flower.mp4", help="clips are made of it"
    )
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "peers")
    parser.add_argument("--work", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    checkouts = {"DOVER": arguments.dover, "DOVER-Mobile": arguments.dover, "FAST-VQA": arguments.fast_vqa}
    if arguments.work:
        work(arguments.work, checkouts.get(arguments.work), arguments.output)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    measured = arguments.output / "measured.jsonl"
    clips = {clip: make_clip(arguments.video, clip, arguments.output) for clip in arguments.clips}
    # One after the other: together they would take more memory than many machines have.
    for name in arguments.methods:
        if checkouts.get(name, ROOT) is None:
            continue
        worker = Worker(name, checkouts.get(name))
        for clip, file in clips.items():
            # The first time, what is compiled or fetched when it is needed is made ready, and counts for nothing.
            worker.measure(file)
            with measured.open("a") as lines:
                for _ in range(arguments.repeats):
                    lines.write(json.dumps({"clip": clip, "method": name, **worker.measure(file)}) + "\n")
        worker.process.kill()
    print_table([json.loads(line) for line in measured.read_text().splitlines()])


def make_clip(video: Path, clip: str, folder: Path) -> Path:
    """H.264 at 30 frames a second, repeated where the video is shorter."""
    file = folder / f"{clip}.mp4"
    if not file.exists():
        height, seconds = CLIPS[clip]
        scaled = f"scale={height * 16 // 9}:{height}:flags=lanczos,setsar=1"
        making = folder / f".{clip}-{os.getpid()}.mp4"
        coding = ("-r", "30", "-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p")
        ffmpeg("-stream_loop", "-1", "-i", video, "-t", str(seconds), "-an", "-vf", scaled, *coding, making)
        making.replace(file)
    return file


class Worker:
    """A process that has loaded a method and waits for clips."""

    def __init__(self, name: str, checkout: Path | None):
        command = [sys.executable, __file__, "--work", name]
        if checkout is not None:
            command += ["--fast-vqa" if name == "FAST-VQA" else "--dover", str(checkout)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def measure(self, file: Path) -> dict[str, float]:
        """Seconds, processor seconds and peak megabytes, the last two of the process with its children."""
        for process in self._family():
            # Linux starts counting the peak anew (proc(5), clear_refs).
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        before = self._processor_seconds()
        self.process.stdin.write(f"{file}\n")
        self.process.stdin.flush()
        seconds = float(self._answer())
        return {
            "seconds": seconds,
            "processor_seconds": self._processor_seconds() - before,
            "megabytes": sum(_peak_megabytes(process.pid) for process in self._family()),
        }

    def _processor_seconds(self) -> float:
        times = [process.cpu_times() for process in self._family()]
        return sum(time.user + time.system for time in times)

    def _family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def _answer(self) -> str:
        # Others print what they do.
        for line in self.process.stdout:
            if line.startswith("answer "):
                return line.removeprefix("answer ")
        raise SystemExit("A method ended; what it said is above.")


def _peak_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def work(name: str, checkout: Path | None, output: Path) -> None:
    """The other end of `Worker`."""
    score = {
        "this project, torch": torch_scorer,
        "this project, ONNX": graph_scorer,
        "this project, ONNX of 8 bits": lambda: graph_scorer(eight_bits(output / "int8")),
        "DOVER": lambda: dover(checkout, "dover.yml"),
        "DOVER-Mobile": lambda: dover(checkout, "dover-mobile.yml"),
        "FAST-VQA": lambda: fast_vqa(checkout),
        "NIQE": lambda: natural_scene("niqe"),
        "BRISQUE": lambda: natural_scene("brisque"),
        "decoding": lambda: decode,
    }[name]()
    print("answer ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        score(line.strip())
        print("answer", time.perf_counter() - began, flush=True)


def torch_scorer() -> Score:
    import lmmvqa
    from lmmvqa.checkpoints.assembling import default_checkpoint

    return lmmvqa.load(str(default_checkpoint()))


def graph_scorer(folder: Path | None = None) -> Score:
    import lmmvqa

    return lmmvqa.load(None if folder is None else str(folder), device="cpu")


def eight_bits(folder: Path) -> Path:
    """The default checkpoint there, exported if it isn't yet."""
    if not folder.exists():
        export = [sys.executable, "-m", "lmmvqa", "export", "default", str(folder), "--int8"]
        subprocess.run(export, check=True, stdout=sys.stderr)
    return folder


def dover(checkout: Path, settings: str) -> Score:
    """As evaluate_one_video.py of the checkout does it."""
    import yaml

    sys.path.insert(0, str(checkout))
    from dover.datasets import UnifiedFrameSampler, spatial_temporal_view_decomposition
    from dover.models import DOVER, conv_backbone, evaluator

    # Weights would be fetched.
    evaluator.convnext_3d_tiny = lambda pretrained: conv_backbone.convnext_3d_tiny()
    options = yaml.safe_load((checkout / settings).read_text())
    network = DOVER(**options["model"]["args"]).eval()
    kinds = options["data"]["val-l1080p"]["args"]["sample_types"]
    samplers = {}
    for kind, sampling in kinds.items():
        parts = sampling.get("t_frag")
        shape = (sampling["clip_len"] // parts, parts) if parts else (sampling["clip_len"], sampling["num_clips"])
        last = (sampling["frame_interval"], sampling["num_clips"]) if parts else (sampling["frame_interval"],)
        samplers[kind] = UnifiedFrameSampler(*shape, *last)

    def score(file: str) -> object:
        views, _ = spatial_temporal_view_decomposition(file, kinds, samplers)
        inputs = {name: _clips(view, kinds[name].get("num_clips", 1)) for name, view in views.items()}
        return [result.mean().item() for result in network(inputs)]

    return score


def fast_vqa(checkout: Path) -> Score:
    """As vqa.py of the checkout does it with `-m FAST-VQA`."""
    import decord
    import numpy as np
    import torch
    import yaml

    sys.path.insert(0, str(checkout))
    # Another network of theirs needs it, which is not built.
    sys.modules["clip"] = ModuleType("clip")
    from fastvqa.datasets import SampleFrames, get_spatial_fragments
    from fastvqa.models import DiViDeAddEvaluator

    options = yaml.safe_load((checkout / "options/fast/fast-b.yml").read_text())
    network = DiViDeAddEvaluator(**options["model"]["args"]).eval()
    kinds = options["data"]["val-kv1k"]["args"]["sample_types"]

    def score(file: str) -> object:
        reader, inputs = decord.VideoReader(file), {}
        for kind, sampling in kinds.items():
            clips = sampling.get("num_clips", 1)
            positions = SampleFrames(clip_len=sampling["clip_len"], num_clips=clips)(len(reader))
            frames = {position: reader[position] for position in np.unique(positions)}
            video = torch.stack([frames[position] for position in positions]).permute(3, 0, 1, 2)
            inputs[kind] = _clips(get_spatial_fragments(video, **sampling), clips)
        return network(inputs).mean().item()

    return score


def _clips(video, count: int):
    """(channels, frames, height, width) normalised, as (clips, channels, frames of a clip, height, width)."""
    import torch

    normal = ((video.permute(1, 2, 3, 0) - torch.tensor(MEAN)) / torch.tensor(STD)).permute(3, 0, 1, 2)
    return normal.reshape(video.shape[0], count, -1, *video.shape[2:]).transpose(0, 1)


def natural_scene(name: str) -> Score:
    from lmmvqa.evaluation import natural_scene

    return lambda file: natural_scene.mean_over_key_frames(file, getattr(natural_scene, name))


def decode(file: str) -> None:
    import av

    with av.open(file) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "AUTO", 0
        for _ in container.decode(stream):
            pass


def installed_megabytes(packages: list[str]) -> float:
    """Files of these packages and of all that they need, where they are installed."""
    waiting, seen, sizes = list(map(Requirement, packages)), set(), {}
    while waiting:
        wanted = waiting.pop()
        name = wanted.name.lower().replace("_", "-")
        if (name, *wanted.extras) in seen:
            continue
        seen.add((name, *wanted.extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        files = map(found.locate_file, found.files or [])
        sizes[name] = sum(path.stat().st_size for path in files if path.is_file())
        for needed in map(Requirement, found.requires or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": x}) for x in ("", *wanted.extras)):
                waiting.append(needed)
    return sum(sizes.values()) / 1e6


def print_table(measured: list[dict]) -> None:
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    print(
        f"{datetime.date.today()}, {len(processors)} cores of {processors[0].partition(': ')[2]}, {platform.system()}"
    )
    clips = [f"{clip}, {seconds} s" for clip, (_, seconds) in CLIPS.items()]
    print("Seconds, and processor seconds in brackets\n")
    print("| method |", " | ".join([*clips, "peak memory, MB", "installed, MB"]), "|\n|", "--- |" * (len(CLIPS) + 3))
    for name, packages in METHODS.items():
        cells = []
        for clip in CLIPS:
            found = [line for line in measured if (line["clip"], line["method"]) == (clip, name)]
            least = [min((line[of] for line in found), default=0.0) for of in ("seconds", "processor_seconds")]
            cells.append(f"{least[0]:.2f} ({least[1]:.2f})" if found else "-")
        peaks = [line["megabytes"] for line in measured if line["method"] == name]
        if peaks:
            print("|", " | ".join([name, *cells, f"{max(peaks):,.0f}", f"{installed_megabytes(packages):,.0f}"]), "|")


if __name__ == "__main__":
    main()
