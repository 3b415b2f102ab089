"""The command `lmmvqa score`. Heavy imports happen inside."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmmvqa.commands.options import Device, Model, Precision
from lmmvqa.console import clear_errors, messages, print_timeline, show_error

if TYPE_CHECKING:
    from modeling_lmmvqa.video_score import VideoScore

app = typer.Typer()


@app.command()
def score(
    paths: Annotated[list[str], typer.Argument(help="Videos, folders, or quoted glob patterns.")],
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a CSV file.")] = None,
    device: Device = None,
    dtype: Annotated[
        Precision,
        typer.Option(
            help="Precision; auto: as the checkpoint was saved. bfloat16 is for GPUs and processors made for it, and "
            "many times slower on others."
        ),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Videos that the language model sees at once.")] = 8,
    decoder: Annotated[str, typer.Option(help="pyav, decord or auto.")] = "auto",
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Also quality over time: one value for every second.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="For many videos: a .parquet, .csv or .jsonl file that grows as they are done; the same command goes "
            "on where it was stopped."
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="With --output: score videos again that had an error.")
    ] = False,
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
    if retry_errors and output is None:
        raise typer.BadParameter("--retry-errors goes with --output.")
    if decoder not in ("auto", "pyav", "decord"):
        raise typer.BadParameter(f"--decoder {decoder} is unknown: choose pyav, decord or auto.")
    with clear_errors():
        from lmmvqa.scoring.finding import find_videos

        videos = find_videos(paths)
        if output is not None:
            from lmmvqa.scoring.bulk_runs import local_engine, ray_engine, score_to_file

            def run(left: Sequence[str]) -> Iterator[VideoScore]:
                from lmmvqa.scoring.reading_workers import ReadingLimits

                limits = ReadingLimits(time_limit, memory_limit)
                settings = dict(dtype=dtype, batch_size=batch_size, decoder=decoder, workers=workers, limits=limits)
                if engine == "local":
                    return local_engine(model, device, **settings)(left)
                return ray_engine(model, address, **settings)(left)

            failed = score_to_file(videos, output, run, _watched, retry_errors=retry_errors)
            messages.print(
                f"{output}: {len(videos):,} videos" + (f", {failed:,} with an error." if failed else "."),
                soft_wrap=True,
            )
        else:
            from lmmvqa.scoring.loading import load
            from lmmvqa.scoring.reading_workers import ReadingLimits

            limits = ReadingLimits(time_limit, memory_limit)
            settings = {"batch_size": batch_size, "decoder": decoder, "limits": limits}
            with load(model, device=device, dtype=dtype, **settings) as scorer:
                results = _watched(scorer.scores(videos, timeline=timeline), len(videos))
                if as_json:
                    failed = _write_json(results)
                elif csv_file is not None:
                    failed = _write_csv(results, csv_file)
                else:
                    failed = _print_table(results)
    raise typer.Exit(1 if failed else 0)


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
        sys.stdout.write(json.dumps(result.as_row()) + "\n")
        sys.stdout.flush()
    return failed


def _write_csv(scores: Iterator[VideoScore], path: Path) -> int:
    from lmmvqa.scoring.result_files import as_written, csv_line

    failed = 0
    with path.open("wb") as file:
        for number, result in enumerate(scores):
            failed += result.error is not None
            row = result.as_row()
            if number == 0:
                file.write(csv_line(row))
            file.write(csv_line(as_written(value) if isinstance(value, str) else value for value in row.values()))
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
