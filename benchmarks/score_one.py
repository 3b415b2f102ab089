"""Where the time of one video goes: decode and preprocess, towers, language model; and the peak memory.

`python benchmarks/score_one.py [--model M] [FILE ...]` prints the shares of one run.
"""

import argparse
import resource
import time
from pathlib import Path

from lmmvqa.checkpoints.loading import load_checkpoint
from modeling_lmmvqa.feature_batches import assessment_inputs
from modeling_lmmvqa.tower_features import tower_features

CLIP = Path(__file__).parent.parent / "tests" / "data" / "flower.mp4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("videos", nargs="*", default=[str(CLIP)])
    arguments = parser.parse_args()

    start = time.perf_counter()
    model, processor = load_checkpoint(arguments.model)
    print(f"loading {time.perf_counter() - start:.1f} s")
    for video in [arguments.videos[0], *arguments.videos]:
        marks = [time.perf_counter()]
        inputs = processor.video_processor(video, return_tensors="pt", return_metadata=True)
        info = inputs.pop("video_metadata")[0]
        marks.append(time.perf_counter())
        features = tower_features(model.base_model, inputs)
        marks.append(time.perf_counter())
        model.assess(**assessment_inputs(processor, [features]))
        marks.append(time.perf_counter())
        total = marks[-1] - marks[0]
        parts = zip(("decode + preprocess", "towers", "language model"), marks, marks[1:], strict=False)
        shares = ", ".join(f"{name} {end - begin:.2f} s ({(end - begin) / total:.0%})" for name, begin, end in parts)
        print(f"{Path(video).name} ({info.width} x {info.height}, {info.duration_s:.1f} s): {total:.2f} s: {shares}")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB (the first video ran twice, "
        "to warm up)"
    )


if __name__ == "__main__":
    main()
