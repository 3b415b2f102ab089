"""What quality over time costs, against decoding and the towers of the same video, and against bare passes of the
language model over the same tokens.

`python benchmarks/timeline.py [--model M] [--seconds 60] [FILE]` makes a video of so many seconds from FILE, and prints
the ratios of one run.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from decode import ffmpeg

from lmmvqa.checkpoints.loading import load_checkpoint
from modeling_lmmvqa.answer_tries import AnswerTrie, lay_out_branches
from modeling_lmmvqa.feature_batches import assessment_inputs
from modeling_lmmvqa.quality_timeline import SECONDS_AT_ONCE, assess_timeline
from modeling_lmmvqa.torch_network import TorchNetwork
from modeling_lmmvqa.video_features import VideoFeatures, extract_features

CLIP = Path(__file__).parent.parent / "tests" / "data" / "flower.mp4"


def looped(clip: str, seconds: int, folder: Path) -> str:
    target = folder / "long.mp4"
    ffmpeg("-stream_loop", "-1", "-i", clip, "-t", str(seconds), "-an", "-c", "copy", target)
    return str(target)


def tokens_of_second(model: Any, processor: Any, video: VideoFeatures) -> int:
    """What the language model reads of each second behind the template: visual tokens, the question, the nodes of its
    trie."""
    inputs = assessment_inputs(processor, video.part([0]))
    template = model.cache_template(inputs["input_ids"][0])
    (question,) = processor.ask(["score"])
    branches = lay_out_branches([question.token_ids], [AnswerTrie(question.answer_ids)])
    return inputs["input_ids"].shape[1] - len(template.token_ids) + len(branches.token_ids)


@torch.no_grad()
def bare_passes(model: Any, seconds: int, tokens: int) -> float:
    """Seconds of plain passes over so many rows of so many tokens."""
    rows = torch.zeros(seconds, tokens, dtype=torch.long, device=model.device)
    start = time.perf_counter()
    for batch in rows.split(SECONDS_AT_ONCE):
        model.model.language_model(input_ids=batch, use_cache=False)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("video", nargs="?", default=str(CLIP))
    arguments = parser.parse_args()

    model, processor = load_checkpoint(arguments.model)
    network = TorchNetwork(model, processor)
    with tempfile.TemporaryDirectory() as folder:
        video = looped(arguments.video, arguments.seconds, Path(folder))
        # A short one first, so that nothing below pays for what is done once.
        short = extract_features(network.encode_each, video, processor.video_processor.stream(video, max_chunks=5))
        assess_timeline(network, short, 50.0)
        marks = [time.perf_counter()]
        encoded = extract_features(network.encode_each, video, processor.video_processor.stream(video))
        marks.append(time.perf_counter())
        seconds = assess_timeline(network, encoded, 50.0)["seconds"]
        marks.append(time.perf_counter())
    tokens = tokens_of_second(model, processor, encoded)
    bare = bare_passes(model, len(seconds), tokens)
    towers, read_out = marks[1] - marks[0], marks[2] - marks[1]
    print(
        f"{arguments.seconds} s of {Path(arguments.video).name}: decoding and towers {towers:.1f} s, language model "
        f"{read_out:.1f} s"
    )
    print(f"language model against bare passes over {len(seconds)} x {tokens} tokens: {read_out / bare:.2f} x")
    print(f"timeline against decoding and towers: {(towers + read_out) / towers:.2f} x")


if __name__ == "__main__":
    main()
