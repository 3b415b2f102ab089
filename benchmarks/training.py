"""What training costs: an epoch from cached features against one that encodes, and a projector step against the bare
decoder.

`python benchmarks/training.py [VIDEO...] [--epochs-of 8] [--rounds 12]` trains the projectors of the default checkpoint
on the videos (default: those of tests/data). It prints

- the time of an epoch that encodes over that of a cached one (to be at least 10), and the largest difference of their
losses;
- the time of a whole training step (batch from the cache, forward, backward, AdamW) over that of a bare forward and
backward of
  the decoder on the same tokens (at most 1.15): the same embeddings, the same positions of the head, gradients down to
  the embeddings. Steps alternate, medians are compared;
- the peak memory of each, measured in a process of its own.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import TrainerCallback

from lmmvqa.training.arguments import LmmVqaTrainingArguments
from lmmvqa.training.run import build_trainer

CLIPS = sorted((Path(__file__).parent.parent / "tests" / "data").glob("*.mp4"))
BATCH = 8


def make_set(videos: list[Path], folder: Path, count: int) -> Path:
    """A rated set of `count` videos; a video that comes again is another link to it."""
    with (folder / "ratings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "mos"])
        for number in range(count):
            video = videos[number % len(videos)].absolute()
            (folder / f"{number}{video.suffix}").symlink_to(video)
            rows.writerow([f"{number}{video.suffix}", (37 * number) % 101])
    return folder


def trainer_for(folder: Path, *, cached: bool, epochs: int = 1):
    """A trainer of the projectors, without dropout, so that losses can be compared."""
    arguments = LmmVqaTrainingArguments(
        output_dir=str(folder / f"run_{cached}"),
        feature_cache=str(folder / "features"),
        data=f"rated_videos={folder}",
        tasks="score",
        cache_features=cached,
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        warmup_steps=0,
    )
    trainer = build_trainer(arguments)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return trainer


class EpochClock(TrainerCallback):
    """Seconds of each epoch, and processor seconds: where other work shares the machine, these tell more."""

    def __init__(self):
        self.epochs: list[tuple[float, float]] = []

    def on_epoch_begin(self, *_, **__):
        self.start = (time.perf_counter(), time.process_time())

    def on_epoch_end(self, *_, **__):
        now = (time.perf_counter(), time.process_time())
        self.epochs.append(tuple(after - before for after, before in zip(now, self.start, strict=True)))


def epochs(trainer) -> tuple[float, float, list[float]]:
    """Seconds and processor seconds of the fastest epoch, and the losses."""
    clock = EpochClock()
    trainer.add_callback(clock)
    trainer.train()
    return *(min(column) for column in zip(*clock.epochs, strict=True)), [
        entry["loss"] for entry in trainer.state.log_history if "loss" in entry
    ]


class Steps:
    """A training step and the bare decoder on the same batch."""

    def __init__(self, trainer):
        self.trainer, self.rows = trainer, [trainer.train_dataset[i] for i in range(BATCH)]
        trainer.create_optimizer_and_scheduler(1000)
        trainer.current_gradient_accumulation_steps = 1
        trainer.model_wrapped = trainer.model
        self.model = trainer.model.get_base_model()
        batch = trainer.data_collator(self.rows)
        self.labels, self.kept, self.mask = batch["labels"], batch["logits_to_keep"], batch["attention_mask"]
        self.embeddings = torch.randn(*batch["input_ids"].shape, self.model.config.text_config.hidden_size) * 0.1

    def whole(self) -> None:
        batch = self.trainer.data_collator(self.rows)
        self.trainer.training_step(self.trainer.model, batch)
        torch.nn.utils.clip_grad_norm_([p for p in self.trainer.model.parameters() if p.requires_grad], 1.0)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()

    def bare(self) -> None:
        embeddings = self.embeddings.clone().requires_grad_()
        hidden = self.model.model.language_model(
            inputs_embeds=embeddings, attention_mask=self.mask, use_cache=False
        ).last_hidden_state
        logits = self.model.lm_head(hidden[:, -self.kept :])
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), self.labels[:, 1:].flatten()).backward()


def seconds(work) -> tuple[float, float]:
    start = (time.perf_counter(), time.process_time())
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def peak(what: str, folder: Path) -> float:
    """Peak memory in MiB of a process that does only this."""
    command = [sys.executable, __file__, "--only", what, "--folder", str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def only(what: str, folder: Path) -> None:
    if what in ("cached", "encoding"):
        trainer_for(folder, cached=what == "cached").train()
    else:
        steps = Steps(trainer_for(folder, cached=True))
        for _ in range(2):
            getattr(steps, what)()
    # Not the maximum of getrusage: that carries over from the process that started this one.
    with open("/proc/self/status", encoding="ascii") as status:
        print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path, default=CLIPS)
    parser.add_argument("--epochs-of", type=int, default=8, help="videos in an epoch")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each kind")
    parser.add_argument("--only", choices=("cached", "encoding", "whole", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        only(arguments.only, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = make_set(arguments.videos, Path(name), arguments.epochs_of)
        # The first batch of a process pays for memory that all later ones use again, so each kind of epoch comes twice.
        cached, cached_cpu, cached_losses = epochs(trainer_for(folder, cached=True, epochs=2))
        encoding, encoding_cpu, losses = epochs(trainer_for(folder, cached=False, epochs=2))
        difference = max(abs(a - b) for a, b in zip(cached_losses, losses, strict=True))
        print(
            f"epoch of {arguments.epochs_of} videos: encoding {encoding:.1f} s, cached {cached:.2f} s: "
            f"{encoding / cached:.1f} x "
            f"(processor time {encoding_cpu:.1f} s, {cached_cpu:.2f} s: {encoding_cpu / cached_cpu:.1f} x)",
            flush=True,
        )
        print(
            f"largest difference of their losses: {difference:.5f} (losses of {min(losses):.2f} to {max(losses):.2f}; "
            "the cache is in half precision)",
            flush=True,
        )
        steps = Steps(trainer_for(folder, cached=True))
        steps.whole(), steps.bare()
        tokens = int(steps.mask.sum())
        times = [(*seconds(steps.whole), *seconds(steps.bare)) for _ in range(arguments.rounds)]
        whole, whole_cpu, bare, bare_cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"step of {BATCH} videos, {tokens} tokens: whole {1000 * whole:.0f} ms, bare decoder {1000 * bare:.0f} "
            f"ms: {whole / bare:.2f} x "
            f"(processor time {1000 * whole_cpu:.0f} ms, {1000 * bare_cpu:.0f} ms: {whole_cpu / bare_cpu:.2f} x)",
            flush=True,
        )
        peaks = {what: peak(what, folder) for what in ("cached", "encoding", "whole", "bare")}
        print("peak memory: " + ", ".join(f"{what} {size:.0f} MiB" for what, size in peaks.items()))


if __name__ == "__main__":
    main()
