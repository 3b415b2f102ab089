"""A tiny network that was taught further questions, by a training on real clips."""

from pathlib import Path
from typing import Any, NamedTuple

from inputs import DATA
from tiny_models import make_tiny

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.checkpoints.merging import merge
from lmmvqa.training.arguments import LmmVqaTrainingArguments
from lmmvqa.training.run import build_trainer
from processing.quality_prompts import FLAWS

# Asked in one way only: a tiny random decoder takes any other words for another question.
TASKS = [
    "score",
    "level",
    {
        "name": "flaw",
        "kind": "words",
        "answers": list(FLAWS),
        "instructions": ["What is wrong?"],
        "restrictions": ["Say."],
    },
    {"name": "sharpness", "kind": "number", "instructions": ["How sharp is it?"], "restrictions": ["Say."]},
]
# A label may name two flaws, and a row need not have one.
ROWS = (
    ("0", "toy_monster", 90, "train", "", 1),
    ("1", "flower", 80, "train", "noise;blur", 5),
    ("2", "toy_monster", 70, "train", "flicker", 1),
    ("3", "flower", 60, "train", "Noise", 5),
    ("4", "toy_monster", 50, "test", "flicker", 1),
    ("5", "flower", 40, "test", "noise", 5),
)


class Taught(NamedTuple):
    """Model and processor, the folder that they are saved in, and the folder of the rated clips."""

    model: Any
    processor: Any
    checkpoint: Path
    labels: Path


def write_labels(folder: Path) -> None:
    """Two real clips under several names: to the model, the flower is noisy and sharp, and the toy flickers."""
    folder.mkdir()
    lines = ["video,mos,split,flaw,sharpness"]
    for name, clip, mos, split, flaw, sharpness in ROWS:
        (folder / f"{name}.mp4").symlink_to(DATA / f"{clip}.mp4")
        lines.append(f"{name}.mp4,{mos},{split},{flaw},{sharpness}")
    (folder / "ratings.csv").write_text("\n".join(lines))


def settings(base: Path, labels: Path, output: Path, **changed: Any) -> LmmVqaTrainingArguments:
    """Of a training that takes seconds."""
    return LmmVqaTrainingArguments(
        **dict(
            model=str(base),
            data=f"rated_videos={labels}",
            data_options={"scales": {"sharpness": [1, 5]}},
            tasks=TASKS,
            loss="read_out",
            trains="projectors+lora",
            output_dir=str(output),
            max_steps=60,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=2,
            learning_rate=1e-2,
            warmup_steps=0,
            lr_scheduler_type="constant",
            standardize_features=True,
            save_strategy="no",
            logging_steps=1,
            use_cpu=True,
        )
        | changed
    )


def make_taught(folder: Path) -> Taught:
    base, labels, output = (folder / name for name in ("base", "labels", "run"))
    for part in make_tiny():
        part.save_pretrained(base)
    write_labels(labels)
    trainer = build_trainer(settings(base, labels, output))
    trainer.train()
    trainer.save_model()
    merge(output, folder / "checkpoint")
    return Taught(*load_checkpoint(str(folder / "checkpoint"), "cpu"), folder / "checkpoint", labels)
