"""Graphs against torch: how far their scores are apart, and how long each takes for a video after loading.

`python benchmarks/graphs.py [--model M] [--int8 FOLDER] FILE ...`. M is a checkpoint, by default the one that comes
along; FOLDER is what `lmmvqa export M FOLDER --int8` wrote. Each video is scored by each of them in turn, and processor
time of this process is what counts, because a busy machine does not change it much; reading, which all do alike in a
process of its own, is not in it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.onnx_export.exporting import export
from lmmvqa.onnx_runtime.loading import load_graphs
from lmmvqa.scoring.scorer import Scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--int8", type=Path)
    parser.add_argument("videos", nargs="+")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graphs = None
        if arguments.model is not None:
            graphs = f"{folder}/graphs"
            export(arguments.model, Path(graphs))
        scorers = {"torch": Scorer(*load_checkpoint(arguments.model, "cpu")), "graphs": Scorer(*load_graphs(graphs))}
        if arguments.int8 is not None:
            scorers["int8"] = Scorer(*load_graphs(str(arguments.int8)))
        compare(scorers, arguments.videos)


def compare(scorers: dict[str, Scorer], videos: list[str]) -> None:
    for scorer in scorers.values():
        scorer(videos[0])
    scores, seconds = {name: [] for name in scorers}, {name: [] for name in scorers}
    for video in videos:
        for name, scorer in scorers.items():
            began = time.process_time()
            result = scorer(video)
            seconds[name].append(time.process_time() - began)
            if result.error is not None:
                raise SystemExit(result.error)
            scores[name].append(result.score)
        print(Path(video).name, *(f"{name} {scores[name][-1]:.3f}" for name in scorers), flush=True)
    for name in scorers:
        apart = np.abs(np.subtract(scores[name], scores["torch"]))
        ratio = np.median(np.divide(seconds[name], seconds["torch"]))
        print(
            f"{name:8} points from torch: median {np.median(apart):.4f}, 95 % {np.quantile(apart, 0.95):.4f}, most "
            f"{apart.max():.4f}; processor time against torch {ratio:.2f} x ({np.mean(seconds[name]):.2f} s a video)"
        )


if __name__ == "__main__":
    main()
