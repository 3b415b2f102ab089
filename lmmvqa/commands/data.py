"""The commands `lmmvqa data`: build, check, templates. Thin over the builders; heavy imports happen inside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dataset_builders import RATED_SETS
from lmmvqa.commands.options import QuestionScale, Scale, parse_scales
from lmmvqa.console import clear_errors, messages

if TYPE_CHECKING:
    from dataset_builders.rated_set_builder import Survey
    from dataset_builders.set_specs import SetSpec

app = typer.Typer(name="data", no_args_is_help=True, help="Rated video sets as question-and-answer data.")

Data = Annotated[
    str,
    typer.Argument(
        metavar="NAME=FOLDER",
        help=f"A set and its folder, as the owners release it. Sets: {', '.join(RATED_SETS)}.",
    ),
]
Levels = Annotated[Literal["tertiles", "authors"], typer.Option(help="Where the levels poor, fair and good part.")]


@app.command()
def build(
    data: Data,
    out: Annotated[Path, typer.Option(help="New or empty folder for the Parquet files and their card.")],
    embed_videos: Annotated[
        bool, typer.Option("--embed-videos", help="Put the videos themselves into the files.")
    ] = False,
    levels: Levels = "tertiles",
    question: Annotated[
        list[str] | None,
        typer.Option(help="Also ask this, a column of the label file, such as flaw or sharpness; may be given again."),
    ] = None,
    question_scale: QuestionScale = None,
    wording: Annotated[
        Literal["drawn", "fixed"], typer.Option(help="Of each question: varied, or that of evaluation.")
    ] = "drawn",
    seed: Annotated[int, typer.Option(help="Draws the questions, and LSVQ's validation split.")] = 0,
    scale: Scale = None,
    num_proc: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Export a set as Parquet that load_dataset reads without LMM-VQA."""
    with clear_errors():
        from dataset_builders.export_set import export_set
        from dataset_builders.rated_set_builder import describe_levels
        from hub_cards.data_set_card import data_set_card

        spec = _built(data)
        scales = _scale_options(spec, scale, parse_scales(question_scale))
        options = {"levels": levels, "question": wording, "seed": seed, "questions": question or [], **scales}
        export = export_set(spec, out, embed_videos=embed_videos, num_proc=num_proc, **options)
        builder, survey = export.builder, export.builder.survey()
        used = [video.mos for video in survey.videos if video.path is not None]
        card = data_set_card(
            title=builder.TITLE,
            source=builder.SOURCE,
            licence=builder.LICENCE,
            infos=export.infos,
            data_files=export.data_files,
            default=builder.DEFAULT_CONFIG_NAME,
            further=builder.config.further,
            embedded=embed_videos,
            root=spec.folder,
            left_out=len(survey.videos) + len(survey.unrated) - len(used),
            scale=(min(used), max(used)),
            levels=describe_levels(survey),
            folds=builder.HAS_FOLDS,
            groups=builder.GROUPS,
            validation="validation" in export.infos["score"].splits,
            options=options,
        )
        card.save(out / "README.md")
        table = Table("configuration", "split", "rows", title=f"{builder.TITLE} in {out}")
        for configuration, info in export.infos.items():
            for split, part in info.splits.items():
                table.add_row(configuration, split, f"{part.num_examples:,}")
        Console().print(table)
        typer.echo(describe_levels(survey))


@app.command()
def check(
    data: Data,
    levels: Levels = "tertiles",
    scale: Scale = None,
    picture: Annotated[
        Path | None, typer.Option(help="Save the histogram of the ratings here, such as ratings.png.")
    ] = None,
    read_videos: Annotated[bool, typer.Option(help="Decode a frame of each video.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Videos read at once.")] = os.cpu_count() or 1,
) -> None:
    """Compare a downloaded set with what was published.

    Exit code 0: every row has a readable video. 1: some have not. 2: the folder is not the set.
    """
    with clear_errors():
        import datasets

        from dataset_builders import check_set
        from dataset_builders.rated_set_builder import describe_levels

        spec = _built(data)
        builder = datasets.load_dataset_builder(**spec.source, levels=levels, **_scale_options(spec, scale))
        survey = builder.survey()
        _print_counts(builder.TITLE, survey, check_set.split_counts(survey, builder.PUBLISHED_ROWS))
        _print_ratings(check_set.unit(survey), *check_set.histogram(survey))
        typer.echo(describe_levels(survey))
        if picture is not None:
            check_set.draw_histogram(survey, builder.TITLE, picture)
        there = [video.path for video in survey.videos if video.path is not None]
        faults = {}
        if read_videos:
            results = check_set.unreadable(there, workers)
            watched = track(
                results,
                "Reading videos",
                len(there),
                console=messages,
                disable=not messages.is_terminal,
                transient=True,
            )
            faults = {path: fault for path, fault in watched if fault is not None}
        missing = [video.id for video in survey.videos if video.path is None]
        _print_names("rows without a video", missing)
        _print_names("rows without a rating", survey.unrated)
        _print_names("videos without a row", survey.unused)
        if read_videos:
            _print_names("unreadable videos", [f"{path}: {fault}" for path, fault in faults.items()])
    raise typer.Exit(1 if missing or survey.unrated or faults else 0)


@app.command()
def templates() -> None:
    """Print every question that a model is asked, and the answers that it may give."""
    from processing import quality_prompts

    console = Console()
    console.print(f"System prompt: {quality_prompts.SYSTEM_PROMPT}")
    for question in quality_prompts.QUESTIONS.values():
        for title, texts in (("instruction", question.instructions), ("restriction", question.restrictions)):
            table = Table("", f"{question.name}: {title}")
            for number, text in enumerate(texts):
                table.add_row(str(number), text)
            console.print(table)
    console.print("A question is an instruction and a restriction. Evaluation asks the first of each.")


def _built(data: str) -> SetSpec:
    """The set that a builder of ours reads; an exported one is finished."""
    from dataset_builders import register
    from dataset_builders.label_files import LabelError
    from dataset_builders.set_specs import SetSpec

    register()
    spec = SetSpec.parse(data)
    if spec.builder is None:
        raise LabelError(
            f"{data} is not a set as its owners release it: write NAME=FOLDER, such as rated_videos={data}."
        )
    return spec


def _scale_options(
    spec: SetSpec, scale: tuple[float, float] | None, scales: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, Any]:
    """The options of the builder for the scale of the ratings and those of further numbers.

    Raises:
        LabelError: the set's own scales are known.
    """
    from dataset_builders.label_files import LabelError

    stated = {name: value for name, value in (("scale", scale), ("scales", scales)) if value}
    if stated and spec.builder != "rated_videos":
        raise LabelError(f"--scale is for rated_videos; the scales of {spec.builder} are known.")
    return stated


def _print_counts(title: str, survey: Survey, counts: list[tuple[str, int, int, tuple[int, ...]]]) -> None:
    table = Table("split", "rows", "with video", "published", title=title)
    for split, rows, there, published in counts:
        verdict = ""
        if published:
            verdict = " or ".join(f"{count:,}" for count in published) + ("" if rows in published else " (differs)")
        table.add_row(split, f"{rows:,}", f"{there:,}", verdict)
    Console().print(table)


def _print_ratings(unit: str, edges: list[float], counts: dict[str, list[int]]) -> None:
    table = Table(unit, *counts, title="Ratings by level")
    for position, (low, high) in enumerate(pairwise(edges)):
        table.add_row(f"{low:.2f} to {high:.2f}", *(str(count[position]) for count in counts.values()))
    table.add_section()
    table.add_row("all", *(str(sum(count)) for count in counts.values()))
    Console().print(table)


def _print_names(what: str, names: list[str], shown: int = 10) -> None:
    typer.echo(f"{what}: {len(names)}")
    for name in names[:shown]:
        typer.echo(f"  {name}")
    if len(names) > shown:
        typer.echo(f"  and {len(names) - shown} more")
