"""The commands `lmmvqa train`, `features`, `merge`, `calibrate` and `memory`. Thin over `lmmvqa.training`; heavy
imports happen inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lmmvqa.console import clear_errors, messages, show_error

Config = Annotated[str, typer.Argument(help="YAML file, or the name of a recipe in lmmvqa/training/recipes.")]
Override = Annotated[list[str] | None, typer.Argument(help="key=value pairs that replace its settings.")]
Scale = Annotated[
    tuple[float, float] | None, typer.Option(help="rated_videos only: the ratings that become the scores 0 and 100.")
]


def train(config: Config, override: Override = None) -> None:
    """Train on rated videos. Stopped and started again, it goes on."""
    with clear_errors():
        from lmmvqa.training.run import run_training

        for name, value in run_training(config, parse_settings(override)).items():
            typer.echo(f"{name}: {value:.4f}")


def features(config: Config, override: Override = None) -> None:
    """Encode the videos of a training run into its feature cache, once; `train` then reads them.

    Exit code 0: all are encoded. 1: some can't be read.
    """
    with clear_errors():
        from lmmvqa.checkpoints.loading import load_base
        from lmmvqa.training.arguments import read_arguments
        from lmmvqa.training.encoding import encode
        from lmmvqa.training.run import open_cache
        from lmmvqa.training.training_data import load_training_data

        arguments = read_arguments(config, parse_settings(override))
        arguments.check()
        data = load_training_data(arguments)
        cache = open_cache(arguments, *load_base(arguments.model, device=str(arguments.device)))
        _, failures = encode(data, cache, arguments.encoding_workers)
        for error in failures.values():
            show_error(error)
        typer.echo(
            f"{cache.folder}: {len(list(cache.folder.glob('*.safetensors')))} videos, {sum(f.stat().st_size for f in cache.folder.iterdir()) / 2**20:.1f} MiB"
        )
    raise typer.Exit(1 if failures else 0)


def merge(
    adapter: Annotated[Path, typer.Argument(help="Output of `lmmvqa train`.")],
    output: Annotated[Path, typer.Argument(help="New or empty folder for the full checkpoint.")],
    share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="How far to go from the base (0) to what was trained (1): in between can lie the best of both.",
        ),
    ] = 1.0,
) -> None:
    """Make a full checkpoint of what was trained and its base."""
    with clear_errors():
        from lmmvqa.checkpoints.merging import merge as merge_checkpoint

        merge_checkpoint(adapter, output, share=share)
        messages.print(f"Full checkpoint in {output}.")


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a full checkpoint; its config.json is changed.")],
    data: Annotated[
        str, typer.Option(help="SET=FOLDER, as for `lmmvqa evaluate`: rated videos that the model did not learn from.")
    ],
    split: Annotated[str, typer.Option(help="Which of them.")] = "validation",
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="A family of the label file's column `family` whose ratings can't be told from the video alone."
        ),
    ] = None,
    scale: Scale = None,
    feature_cache: Annotated[Path | None, typer.Option(help="Features of a run on the same videos.")] = None,
) -> None:
    """Undo the shrinkage of a checkpoint's scores, and make its 90 % interval hold and its levels as sure as they are
    right. Prints what is put into its config."""
    with clear_errors():
        from lmmvqa.evaluation.rated_sets import SetSpec, read_set
        from lmmvqa.release.calibration import calibrate_checkpoint

        rows = [row for row in read_set(SetSpec.parse(data), scale=scale) if row.split == split]
        families = {row.parts.get("family") for row in rows} - {None}
        if rows and (unknown := set(leave_out or ()) - families):
            has = f"the families {', '.join(sorted(families))}" if families else "no column family"
            raise ValueError(f"--leave-out {', '.join(sorted(unknown))}: the split {split} of {data} has {has}.")
        rows = [row for row in rows if row.parts.get("family") not in (leave_out or ())]
        if not rows:
            raise ValueError(
                f"{data} has no videos of the split {split} that are not left out: name another with --split."
            )
        fitted = calibrate_checkpoint(
            checkpoint,
            [row.score for row in rows],
            [row.level for row in rows],
            [row.source for row in rows],
            feature_cache,
        )
        typer.echo(json.dumps(fitted))


def memory(
    config: Config,
    override: Override = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the model where a strategy shares it.")] = 8,
) -> None:
    """Estimate the memory of one GPU for a training run under DDP, FSDP and ZeRO-3, without loading anything.

    The model is that of the settings, or the paper's where they name one that isn't there yet.
    """
    with clear_errors():
        from rich.console import Console
        from rich.table import Table
        from transformers import AutoConfig

        import lmmvqa.registration  # noqa: F401
        from lmmvqa.training.arguments import read_settings
        from lmmvqa.training.memory import STRATEGIES, estimate_memory
        from modeling_lmmvqa import LmmVqaConfig

        settings = read_settings(config, parse_settings(override))
        model = settings.get("model") or ""
        known = Path(model, "config.json").is_file()
        network = AutoConfig.from_pretrained(model) if known else LmmVqaConfig()
        trains, batch = settings.get("trains", "projectors"), settings.get("per_device_train_batch_size", 8)
        title = f"GiB on one of {gpus} GPUs: {trains}, {batch} videos of 10 s each, {model if known else 'the paper'}'s model"
        table = Table("strategy", "weights", "gradients", "AdamW", "gathered", "activations", "all", title=title)
        for strategy in STRATEGIES:
            estimate = estimate_memory(
                network,
                trains=trains,
                strategy=strategy,
                gpus=gpus,
                batch_size=batch,
                checkpointing=bool(settings.get("activation_checkpointing")),
                lora_rank=settings.get("lora_rank", 16),
            )
            parts = (
                estimate.weights,
                estimate.gradients,
                estimate.optimizer,
                estimate.gathered,
                estimate.activations,
                estimate.total,
            )
            table.add_row(strategy, *(f"{part / 2**30:.1f}" for part in parts))
        Console().print(table)


def parse_settings(texts: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs; values are read as YAML.

    Raises:
        ValueError: a text has no "=".
    """
    import yaml

    settings = {}
    for text in texts or []:
        key, found, value = text.partition("=")
        if not found:
            raise ValueError(f"{text!r} is not a setting: write key=value.")
        settings[key] = yaml.safe_load(value)
    return settings
