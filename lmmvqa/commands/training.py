"""The commands `lmmvqa train`, `features` and `memory`. Thin over `lmmvqa.training`; heavy imports happen inside."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from lmmvqa.commands.options import parse_settings
from lmmvqa.console import clear_errors, show_error

app = typer.Typer()

Config = Annotated[str, typer.Argument(help="YAML file, or the name of a recipe in lmmvqa/training/recipes.")]
Override = Annotated[list[str] | None, typer.Argument(help="key=value pairs that replace its settings.")]


def _begin(config: str, override: list[str] | None) -> dict[str, Any]:
    """Find data and model before the imports that take seconds; what replaces the settings of the file."""
    from lmmvqa.training.settings import check_data_and_model, read_settings

    # Of several processes, which know the same, the first one speaks.
    if os.environ.get("RANK", "0") != "0":
        logging.disable(logging.WARNING)
    overrides = parse_settings(override)
    settings = read_settings(config, overrides)
    check_data_and_model(settings.get("data"), settings.get("model"))
    return overrides


@app.command()
def train(config: Config, override: Override = None) -> None:
    """Train on rated videos. Stopped and started again, it goes on.

    Recipes: own_videos, lsvq_score, lsvq_score_and_level, finetune_5fold, align, instruct, default_checkpoint.

    For example: lmmvqa train own_videos data=rated_videos=mine num_train_epochs=5
    """
    with clear_errors():
        settings = _begin(config, override)

        from accelerate import PartialState

        from lmmvqa.training.arguments import read_arguments
        from lmmvqa.training.run import run_training
        from lmmvqa.training.telling import next_commands

        run_training(config, settings)
        if PartialState().is_main_process:
            arguments = read_arguments(config, settings)
            typer.echo("Next:")
            for command in next_commands(Path(arguments.output_dir), arguments.trains, folds=bool(arguments.folds)):
                typer.echo(f"  {command}")


@app.command()
def features(config: Config, override: Override = None) -> None:
    """Encode the videos of a training run into its feature cache, once; `train` then reads them.

    Exit code 0: all are encoded. 1: some can't be read.
    """
    with clear_errors():
        settings = _begin(config, override)

        from lmmvqa.checkpoints.loading import load_base
        from lmmvqa.training.arguments import read_arguments
        from lmmvqa.training.encoding import encode
        from lmmvqa.training.run import open_cache
        from lmmvqa.training.training_data import load_training_data

        arguments = read_arguments(config, settings)
        arguments.check()
        data = load_training_data(arguments)
        cache = open_cache(arguments, *load_base(arguments.model, device=str(arguments.device)))
        _, failures = encode(data, cache, arguments.encoding_workers)
        for error in failures.values():
            show_error(error)
        count = len(list(cache.folder.glob("*.safetensors")))
        size = sum(file.stat().st_size for file in cache.folder.iterdir()) / 2**20
        typer.echo(f"{cache.folder}: {count} videos, {size:.1f} MiB")
    raise typer.Exit(1 if failures else 0)


@app.command()
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
        from lmmvqa.training.memory import STRATEGIES, estimate_memory
        from lmmvqa.training.settings import read_settings
        from modeling_lmmvqa import LmmVqaConfig

        settings = read_settings(config, parse_settings(override))
        model = settings.get("model") or ""
        known = Path(model, "config.json").is_file()
        network = AutoConfig.from_pretrained(model) if known else LmmVqaConfig()
        trains, batch = settings.get("trains", "projectors"), settings.get("per_device_train_batch_size", 8)
        whose = model if known else "the paper"
        title = f"GiB on one of {gpus} GPUs: {trains}, {batch} videos of 10 s each, {whose}'s model"
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
