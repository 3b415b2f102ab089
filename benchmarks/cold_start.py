"""From the command to the row: what a person waits for one short clip, with graphs and with torch.

`python benchmarks/cold_start.py [--clip FILE] [--repeats N]`. Each way is a process of its own, the ways take
turns, and the best of the repeats counts:

    light     `lmmvqa score` with the default checkpoint's graphs: neither torch nor transformers is imported
    torch     the same in torch, with the checkpoint's folder
    imports   torch and the classes of transformers that the model is made of, and nothing else

The targets: light in 2.5 s, torch in 1.15 x imports, on a quiet machine.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.onnx_runtime.loading import default_graphs

REPOSITORY = Path(__file__).resolve().parents[1]
CLIP = REPOSITORY / "tests" / "data" / "flower.mp4"
IMPORTS = """
import torch
from tokenizers import Tokenizer
from transformers.models.dinov2.modeling_dinov2 import Dinov2Model
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.resnet.modeling_resnet import ResNetModel
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    score = [sys.executable, "-m", "lmmvqa", "score", str(arguments.clip.resolve()), "--json"]
    ways = {
        "light": [*score, "--model", str(default_graphs())],
        "torch": [*score, "--model", str(default_checkpoint())],
        "imports": [sys.executable, "-c", IMPORTS],
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(arguments.repeats):
        for name, command in ways.items():
            best[name] = min(best[name], seconds(command))
    for name, value in best.items():
        print(f"{name:10}{value:8.2f} s{value / best['imports']:8.2f} x imports")


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
