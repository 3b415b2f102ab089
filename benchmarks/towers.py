"""What a memory format, `torch.compile` and bfloat16 do to the towers, which are most of the time of a video.

`python benchmarks/towers.py [--model M] [--video FILE] [--rounds N]` encodes one second of video by each way in turn,
on one core as bulk scoring does, and prints the processor time of each tower, its ratio to the plain way (the best of
the rounds), and how far features move, against the largest of them. It takes a few minutes; most of it is compiling.

    plain          as it is: float32, the spatial tower's maps with colours innermost
    colours apart  the spatial tower's maps as PyTorch has them by itself
    compiled       plain, through torch.compile
    bfloat16       plain, in half precision
"""

import argparse
import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lmmvqa.checkpoints.loading import load_checkpoint

CLIP = Path(__file__).parent.parent / "tests" / "data" / "flower.mp4"


def colours_apart(model: Any) -> Any:
    model = copy.deepcopy(model)
    model.vision_tower.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return model


def compiled(model: Any) -> Any:
    model = copy.deepcopy(model)
    for tower in (model.vision_tower, model.temporal_tower):
        tower.compile()
    return model


def bfloat16(model: Any) -> Any:
    return copy.deepcopy(model).to(torch.bfloat16)


WAYS: dict[str, Callable[[Any], Any]] = {
    "plain": copy.deepcopy, "colours apart": colours_apart, "compiled": compiled, "bfloat16": bfloat16,
}  # fmt: skip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--video", default=str(CLIP))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Where the compiler gives up on a part of a tower it runs as it is, and a page of reasons is printed.
    torch._logging.set_logs(dynamo=logging.CRITICAL)
    network, processor = load_checkpoint(arguments.model)
    chunk = next(processor.video_processor.stream(arguments.video))
    models = {way: make(network.base_model) for way, make in WAYS.items()}
    for tower, values in (("encode_key_frames", chunk.pixel_values), ("encode_chunks", chunk.temporal_values)):
        if values is None:
            continue
        times: dict[str, list[float]] = {way: [] for way in models}
        features: dict[str, torch.Tensor] = {}
        for way, model in models.items():
            began = time.perf_counter()
            features[way] = getattr(model, tower)(values[None]).float()
            print(f"{tower}, {way}: first call {time.perf_counter() - began:.1f} s", flush=True)
        for _ in range(arguments.rounds):
            for way, model in models.items():
                began = time.process_time()
                getattr(model, tower)(values[None])
                times[way].append(time.process_time() - began)
        for way in models:
            best, moved = (
                min(times[way]),
                (features[way] - features["plain"]).abs().max() / features["plain"].abs().max(),
            )
            print(
                f"{tower}, {way}: {1000 * best:.0f} ms a second of video, {best / min(times['plain']):.2f} of plain; "
                f"features move by {moved:.0e}"
            )


if __name__ == "__main__":
    main()
