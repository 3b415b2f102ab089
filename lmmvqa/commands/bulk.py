"""The command `lmmvqa bench`: what this machine can score, and how long a library would take."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lmmvqa.commands.options import Device, Model, Precision
from lmmvqa.console import clear_errors, messages
from processing.errors import InputError

app = typer.Typer()


@app.command()
def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Videos like yours, or folders of them. Default: the clips that come with LMM-VQA."),
    ] = None,
    model: Model = None,
    device: Device = None,
    dtype: Annotated[Precision, typer.Option(help="Precision; auto: as the checkpoint was saved.")] = "auto",
    videos: Annotated[int, typer.Option(min=1, help="How many to score; few clips are taken again and again.")] = 24,
    library: Annotated[int, typer.Option(min=1, help="Size of the library whose time is estimated.")] = 100_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Videos that the language model sees at once.")] = 8,
    workers: Annotated[int | None, typer.Option(min=1, help="Videos read at once. Default: one for each core.")] = None,
) -> None:
    """Measure this machine: videos per minute, where the time goes, memory, and the time for a library."""
    with clear_errors():
        from lmmvqa.checkpoints.default_files import REFERENCE
        from lmmvqa.scoring.bulk_bench import measure_bulk
        from lmmvqa.scoring.finding import find_videos
        from lmmvqa.scoring.loading import load_network

        clips = find_videos(paths or [str(REFERENCE)])
        network, processor = load_network(model, device, dtype)
        with messages.status(f"Scoring {videos} videos"):
            figures = measure_bulk(clips, network, processor, count=videos, batch_size=batch_size, workers=workers)
        times = figures.times
        if not times.videos:
            raise InputError(f"None of the {len(clips)} videos has a score: see why with `lmmvqa score`.")
        table = Table("stage", "seconds of one core for a video", "share")
        work = {"decode and preprocess": times.reading, "towers": times.encoding, "language model": times.answering}
        for stage, seconds in work.items():
            table.add_row(stage, f"{seconds / times.videos:.2f}", f"{seconds / sum(work.values()):.0%}")
        Console().print(table)
        per_minute = 60 * times.videos / figures.seconds
        average = times.video_seconds / times.videos
        typer.echo(
            f"{times.videos} videos of {average:.1f} s on average in {figures.seconds:.1f} s: {per_minute:.1f} videos "
            "a minute"
        )
        typer.echo(f"cores in use, on average: {sum(work.values()) / figures.seconds:.2f} of {figures.cores}")
        typer.echo(f"peak memory of all processes: {figures.peak_mb:,.0f} MB")
        typer.echo(f"a library of {library:,} such videos: {_duration(60 * library / per_minute)}")
        if figures.failed:
            typer.echo(f"not counted: {figures.failed} videos with an error")


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
