"""What `torch.compile` and bfloat16 do to the towers, which are most of the time of a video: time against eager float32, and how
far features move.

`python benchmarks/towers.py [--model M] [--video FILE]` encodes one second of video by each way in turn, on one core as bulk
scoring does, and prints ratios of the best of the repeats.
"""

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch

from lmmvqa.scoring import load_checkpoint

CLIP = Path(__file__).parent.parent / "tests" / "data" / "flower.mp4"


def compiled(model: Any) -> Any:
    model = copy.deepcopy(model)
    model.vision_tower = torch.compile(model.vision_tower)
    model.temporal_tower = torch.compile(model.temporal_tower)
    return model


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--video", default=str(CLIP))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=["eager", "compiled", "bfloat16"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, processor = load_checkpoint(arguments.model)
    inputs = next(processor.video_processor.stream(arguments.video)).as_batch()
    makers = {"eager": lambda model: model, "compiled": compiled, "bfloat16": lambda model: copy.deepcopy(model).to(torch.bfloat16)}
    models = {way: makers[way](network.base_model) for way in arguments.ways}
    features, times = {}, {way: [] for way in models}
    for repeat in range(arguments.repeats + 1):
        for way, model in models.items():
            began = time.perf_counter()
            features[way] = torch.cat([stream.float().flatten() for stream in model.encode_videos(**inputs) if stream is not None])
            if repeat:
                times[way].append(time.perf_counter() - began)
            else:
                print(f"{way}: first call {time.perf_counter() - began:.1f} s", flush=True)
    for way in models:
        moved = ((features[way] - features["eager"]).abs().max() / features["eager"].abs().max()).item()
        print(f"{way}: {min(times[way]) * 1000:.0f} ms for a second of video, {min(times[way]) / min(times['eager']):.2f} of eager; features move by {moved:.1e}")


if __name__ == "__main__":
    main()
