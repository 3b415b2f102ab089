"""The command `lmmvqa score`. Heavy imports happen inside."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.console import Console

from lmmvqa.commands.options import Confidence, Device, Model, Precision, Summary
from lmmvqa.commands.score_table import Tally, in_order, print_table
from lmmvqa.console import clear_errors, messages, show_error, show_missed, warnings_stand_in_rows

if TYPE_CHECKING:
    from modeling_lmmvqa.video_score import VideoScore

T = TypeVar("T")

app = typer.Typer()


@app.command()
def score(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Videos and pictures: files, folders, quoted glob patterns such as 'clips/*.mp4', or URLs (https, s3, "
            "...)."
        ),
    ],
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a CSV file.")] = None,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with pictures and quality over time, all in one file."),
    ] = None,
    sort: Annotated[
        Literal["score", "path"] | None, typer.Option(help="Order of the table and the page: worst first, or by name.")
    ] = None,
    device: Device = None,
    dtype: Annotated[
        Precision,
        typer.Option(
            help="Precision; auto: as the checkpoint was saved. bfloat16 is for GPUs and processors made for it, and "
            "many times slower on others."
        ),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Videos that the language model sees at once.")] = 8,
    decoder: Annotated[
        Literal["auto", "pyav", "decord"], typer.Option(help="auto: PyAV, and decord for what PyAV can't open.")
    ] = "auto",
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Also quality over time: one value for every second.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also a sentence: how good, what is wrong, and when it is worst.")
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
    min_score: Annotated[
        float | None, typer.Option(min=0, max=100, help="Exit with 3 if a video is below this many points.")
    ] = None,
    confidence: Confidence = 0.5,
    summary: Summary = None,
) -> None:
    """Score videos: 0 (worst) to 100 (best), with a level and how sure the model is.

    Exit code 0: every video has a score. 1: some have an error instead. 2: the command itself failed. 3: one is below
    --min-score.
    """
    files = [file for file in (csv_file, html_file, output) if file is not None]
    if as_json + len(files) > 1:
        raise typer.BadParameter("Choose one of --json, --csv, --html and --output.")
    if timeline and (csv_file or output):
        raise typer.BadParameter("--timeline goes with the table or with --json: files of rows have no place for it.")
    if explain and (as_json or csv_file or output):
        raise typer.BadParameter("--explain goes with the table; the page of --html has the sentence anyway.")
    if retry_errors and output is None:
        raise typer.BadParameter("--retry-errors goes with --output.")
    if sort and (as_json or csv_file or output):
        raise typer.BadParameter("--sort goes with the table or with --html: rows are written as they are done.")
    if min_score is not None and output is not None:
        raise typer.BadParameter("--min-score goes with the table, --json, --csv and --html.")
    if summary is not None and min_score is None:
        raise typer.BadParameter("--summary goes with --min-score.")
    for file in files:
        if file.is_dir() or not (file.parent.is_dir() or file == output):
            raise typer.BadParameter(f"{file} can't be written: name a file in a folder that is there.")
    with clear_errors(), warnings_stand_in_rows():
        from lmmvqa.scoring import gates
        from lmmvqa.scoring.finding import find_videos
        from lmmvqa.scoring.result_files import check_replaceable, check_suffix

        if output is not None:
            check_suffix(output)
        if csv_file is not None:
            from lmmvqa.scoring.bulk_runs import result_columns

            check_replaceable(csv_file, result_columns())
        if html_file is not None:
            from lmmvqa.demo import score_page

            score_page.check_replaceable(html_file)
        if summary is not None:
            gates.check_summary_suffix(summary)
        checks: list[gates.Check] = []
        videos, tally = find_videos(paths), Tally()
        if output is not None:
            from lmmvqa.scoring.bulk_runs import local_engine, ray_engine, score_to_file

            def run(left: Sequence[str]) -> Iterator[VideoScore]:
                from lmmvqa.scoring.reading_workers import ReadingLimits

                limits = ReadingLimits(time_limit, memory_limit)
                settings = dict(dtype=dtype, batch_size=batch_size, decoder=decoder, workers=workers, limits=limits)
                if engine == "local":
                    return local_engine(model, device, **settings)(left)
                return ray_engine(model, address, **settings)(left)

            failed = score_to_file(
                videos,
                output,
                run,
                lambda scores, count: tally.count(_watched(scores, count)),
                retry_errors=retry_errors,
            )
            messages.print(f"{output}: {len(videos):,} videos, {failed:,} with an error.", soft_wrap=True)
        else:
            from lmmvqa.scoring.loading import load
            from lmmvqa.scoring.reading_workers import ReadingLimits
            from modeling_lmmvqa.video_score import describe_levels

            limits = ReadingLimits(time_limit, memory_limit)
            settings = dict(dtype=dtype, batch_size=batch_size, decoder=decoder, limits=limits)
            drawn = html_file is not None
            with load(model, device=device, **settings) as scorer:
                parts = scorer.processor.levels, scorer.processor.level_bounds
                results = tally.count(
                    scorer.scores(
                        _watched(videos, len(videos)), timeline=timeline or drawn or explain, key_frames=drawn
                    )
                )
                if min_score is not None:
                    results = gates.watch(results, min_score, confidence, checks)
                if as_json:
                    _write_json(results)
                elif csv_file is not None:
                    _write_csv(results, csv_file)
                elif drawn:
                    score_page.write_page(in_order(results, sort), html_file, parts)
                else:
                    print_table(in_order(results, sort), describe_levels(*parts), timeline=timeline, explained=explain)
            if written := csv_file or html_file:
                messages.print(f"Written to {written}.", soft_wrap=True)
            failed = tally.failed
        shown = not (as_json or csv_file or output)
        for error in tally.errors if shown else ():
            show_error(error)
        if tally.seen:
            (Console() if shown else messages).print(tally.sentence(), highlight=False, soft_wrap=True)
        if summary is not None:
            gates.write_summary(checks, summary)
        # What is wrong with a video is said above, or in its row.
        show_missed(check for check in checks if not check.is_error)
    missed = any(not check.passed for check in checks)
    raise typer.Exit(1 if failed else gates.MISSED if missed else 0)


def _watched(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items, with a bar that moves as each goes by."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("Scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages, disable=not messages.is_terminal, transient=True) as bar:
        yield from bar.track(items, total=count)


def _write_json(scores: Iterator[VideoScore]) -> None:
    for result in scores:
        # File names may hold bytes that are no text; JSON can still name them.
        sys.stdout.write(json.dumps(result.as_row()) + "\n")
        sys.stdout.flush()


def _write_csv(scores: Iterator[VideoScore], path: Path) -> None:
    from lmmvqa.scoring.result_files import as_written, csv_line

    with path.open("wb") as file:
        for number, result in enumerate(scores):
            row = result.as_row()
            if number == 0:
                file.write(csv_line(row))
            file.write(csv_line(as_written(value) if isinstance(value, str) else value for value in row.values()))
            file.flush()
