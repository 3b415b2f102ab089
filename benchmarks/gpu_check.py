"""The paper's model on one GPU: what it takes and how fast it is. About ten minutes on a card of 80 GB.

`python benchmarks/gpu_check.py [--video FILE] [--json FILE]` builds the paper's model (CLIP ViT-L/14, SlowFast R50, a
decoder of the shape of Llama-3-8B) with random weights in bfloat16 and prints, with the card's name,

- seconds a video by the read-out, decoding included, and peak memory, at 4, 16, 64 and 256 temporal tokens a second
  (the last column of the paper's Table VIII);
- the same by `generate`, the paper's way;
- videos a second and peak memory of training the projectors: from videos, from videos with activation checkpointing,
  and from cached features;
- the default checkpoint's scores there against those of the processor: they may differ by 0.5 of 100 points.

Random weights say nothing about quality; time and memory are those of trained ones. `--tiny` does the same with a
network of a few thousand weights, on whatever device is there: that is what the test runs. No figure of a GPU stands in
the documents yet, because none was at hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.checkpoints.composing import compose
from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.checkpoints.parts import PartError
from lmmvqa.training.adapters import make_trainable
from lmmvqa.training.collators import AnswerCollator
from lmmvqa.training.feature_cache import FeatureCache
from modeling_lmmvqa import LmmVqaConfig, LmmVqaTemporalModel
from processing.quality_prompts import SCORE, conversation

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS / "support"))

from public_parts import llama_3_tokenizer  # noqa: E402
from tiny_models import make_tiny  # noqa: E402

TEMPORAL_TOKENS = (4, 16, 64, 256)
# The library versions and the order of sums differ between devices; `lmmvqa verify` grants as much.
TOLERANCE = 0.5


def random_model(config: LmmVqaConfig, device: str) -> tuple[Any, Any]:
    """A network with random weights in bfloat16, made where it will be, and its processor."""
    tokenizer = llama_3_tokenizer()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            vision = CLIPVisionModel(CLIPVisionConfig(**config.vision_config.to_diff_dict()))
            decoder = LlamaForCausalLM(LlamaConfig(**config.text_config.to_diff_dict()))
            temporal = LmmVqaTemporalModel(config.temporal_config)
    finally:
        torch.set_default_dtype(torch.float32)
    decoder.generation_config.eos_token_id = decoder.generation_config.pad_token_id = tokenizer.eos_token_id
    model, processor = compose(
        vision_tower=vision.eval(), temporal_tower=temporal.eval(), decoder=decoder.eval(), tokenizer=tokenizer
    )
    return model.to(device), processor


class Meter:
    """Seconds and peak memory of what runs on a device."""

    def __init__(self, device: str) -> None:
        self.device, self.on_gpu = device, device.startswith("cuda")

    def measure(self, work: Callable[[], Any], rounds: int) -> dict[str, float | None]:
        """Median seconds of a round after one that warms up; peak memory in GiB, None where there is no GPU."""
        work()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(rounds):
            start = self._now()
            work()
            seconds.append(self._now() - start)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else None
        return {"seconds": statistics.median(seconds), "peak_gib": peak}

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


def inference(model: Any, processor: Any, video: Path, meter: Meter, rounds: int) -> list[dict[str, Any]]:
    """One row for each number of temporal tokens and each way of reading the answer."""
    rows = []
    asked = conversation(SCORE.fixed, video=str(video))
    for tokens in TEMPORAL_TOKENS:
        with temporal_tokens(model, processor, tokens):

            def read_out() -> None:
                inputs = processor(videos=[str(video)]).to(meter.device)
                model.assess(**inputs)

            def generate() -> None:
                inputs = processor.apply_chat_template(
                    [asked], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
                ).to(meter.device)
                # Random weights never end a turn: as many tokens as a score and its end have.
                model.generate(**inputs, do_sample=False, min_new_tokens=3, max_new_tokens=3)

            for way, work in (("read-out", read_out), ("generate", generate)):
                rows.append({"temporal_tokens": tokens, "way": way} | meter.measure(work, rounds))
    return rows


@contextmanager
def temporal_tokens(model: Any, processor: Any, count: int):
    """Another number of temporal tokens: pooled otherwise, through the same projector."""
    before = model.config.num_temporal_tokens, processor.tokens_per_chunk
    model.config.num_temporal_tokens = model.model.config.num_temporal_tokens = count
    processor.tokens_per_chunk = model.config.tokens_per_chunk
    try:
        yield
    finally:
        model.config.num_temporal_tokens = model.model.config.num_temporal_tokens = before[0]
        processor.tokens_per_chunk = before[1]


def training(model: Any, processor: Any, video: Path, meter: Meter, batch: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each way of feeding the projectors: forward, backward and AdamW of a batch of the same video."""
    answer = conversation(SCORE.fixed, answer="50")
    row = {"video": {"path": str(video), "bytes": None}, "task": "score", "messages": answer, "score": 50.0}
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(folder, model, processor)
        key = cache.key(row["video"])
        list(cache.fill([(key, row["video"])]))
        trained = make_trainable(model, "projectors").train()
        optimizer = torch.optim.AdamW([weight for weight in trained.parameters() if weight.requires_grad], lr=1e-4)
        rows = []
        for name, source in (("from videos", None), ("from videos, recomputed", None), ("cached features", cache)):
            if name.endswith("recomputed"):
                model.activation_checkpointing_enable()
            else:
                model.activation_checkpointing_disable()
            collator = AnswerCollator(source, processor)

            def step(collator: AnswerCollator = collator) -> None:
                inputs = collator([row | {"features": key}] * batch)
                inputs.pop("tasks")
                inputs = {
                    name: value.to(meter.device) if isinstance(value, torch.Tensor) else value
                    for name, value in inputs.items()
                }
                with torch.autocast(meter.device.partition(":")[0], torch.bfloat16, enabled=meter.on_gpu):
                    trained(**inputs).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

            found = meter.measure(step, rounds)
            rows.append({"feeding": name, "videos_per_second": batch / found["seconds"]} | found)
    return rows


def same_scores(device: str, clips: list[Path], checkpoint: str) -> dict[str, Any]:
    """Scores of a checkpoint on the device and on the processor, and the largest difference."""
    scores = []
    for place in (device, "cpu"):
        model, processor = load_checkpoint(checkpoint, device=place, dtype="float32")
        quality = model.assess(**processor(videos=[str(clip) for clip in clips]).to(place))
        scores.append(quality.score.tolist())
    difference = max(abs(first - second) for first, second in zip(*scores, strict=True))
    return {"here": scores[0], "cpu": scores[1], "difference": difference, "agrees": difference <= TOLERANCE}


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and return what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, default=TESTS / "data" / "flower.mp4", help="5 s, 960 x 540 by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4, help="videos of a training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint", help="whose scores are compared; the default checkpoint without it")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--tiny", action="store_true", help="a tiny network in place of the paper's")
    options = parser.parse_args(words)
    device = options.device
    if not options.tiny and not device.startswith("cuda"):
        parser.error("the paper's model needs a GPU of 80 GB; --tiny tries the script on a processor")
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else "no GPU"
    print(f"{card}; torch {torch.__version__}; {options.video.name}", flush=True)
    model, processor = make_tiny() if options.tiny else random_model(LmmVqaConfig(), device)
    model.to(device)
    meter = Meter(device)
    found: dict[str, Any] = {"card": card, "tiny": options.tiny, "video": options.video.name}

    found["inference"] = inference(model, processor, options.video, meter, options.rounds)
    print("\ntemporal tokens a second | answer by | seconds a video | peak GiB")
    for row in found["inference"]:
        print(f"{row['temporal_tokens']:>24} | {row['way']:9} | {row['seconds']:15.3f} | {_gib(row)}")
    found["training"] = training(model, processor, options.video, meter, options.batch, options.rounds)
    print("\ntraining the projectors  | videos/s | peak GiB")
    for row in found["training"]:
        print(f"{row['feeding']:24} | {row['videos_per_second']:8.2f} | {_gib(row)}", flush=True)
    del model
    try:
        clips = [options.video]
        found["scores"] = same_scores(device, clips, options.checkpoint or str(default_checkpoint()))
        verdict = "agrees" if found["scores"]["agrees"] else "DIFFERS"
        print(f"\nscores here and on the processor: {found['scores']['difference']:.4f} points apart, {verdict}")
    except PartError as error:
        print(f"\nscores of the default checkpoint: left out, {error}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _gib(row: dict[str, Any]) -> str:
    return "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"


if __name__ == "__main__":
    main()
