"""The command `lmmvqa compare`. Heavy imports happen inside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmmvqa.commands.options import Confidence, Device, Model, Summary
from lmmvqa.console import clear_errors, show_error, show_missed

if TYPE_CHECKING:
    from modeling_lmmvqa.comparing import Comparison

app = typer.Typer()


@app.command()
def compare(
    videos: Annotated[list[str], typer.Argument(help="Two or more videos or pictures.")],
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a pair on standard output.")] = False,
    device: Device = None,
    timeline: Annotated[
        bool, typer.Option("--timeline/--no-timeline", help="Also when two of them differ most.")
    ] = True,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Points: exit with 3 if another video is more than this below the first, the reference."
        ),
    ] = None,
    confidence: Confidence = 0.5,
    summary: Summary = None,
) -> None:
    """Compare videos: which one people would prefer, how sure that is, and when they differ.

    Exit code 0: all have a score, and none misses the tolerance. 1: one has an error. 2: the command itself failed.
    3: one misses the tolerance.
    """
    if len(videos) < 2:
        raise typer.BadParameter("Name at least two videos.")
    if summary is not None and tolerance is None:
        raise typer.BadParameter("--summary goes with --tolerance.")
    with clear_errors():
        from lmmvqa.scoring import gates
        from lmmvqa.scoring.loading import load
        from modeling_lmmvqa import comparing

        if summary is not None:
            gates.check_summary_suffix(summary)
        with load(model, device=device) as scorer:
            scores = list(scorer.scores(videos, timeline=timeline))
        failed = [score for score in scores if score.error is not None]
        for score in failed:
            show_error(score.error)
        if failed:
            raise typer.Exit(1)
        pairs = comparing.rank(scores) if len(scores) > 2 else [comparing.compare(*scores)]
        if as_json:
            for pair in pairs:
                typer.echo(json.dumps(pair.as_row()))
        else:
            _print_ranking(pairs)
        if tolerance is not None:
            against_first = [comparing.compare(scores[0], score) for score in scores[1:]]
            checks = [gates.check_comparison(pair, tolerance, confidence) for pair in against_first]
            if summary is not None:
                gates.write_summary(checks, summary)
            show_missed(checks)
            if not all(check.passed for check in checks):
                raise typer.Exit(gates.MISSED)


def _print_ranking(pairs: list[Comparison]) -> None:
    if len(pairs) > 1:
        table = Table("", "video", "score (0-100)", "90 % interval", "better than the next")
        ranked = [pair.first for pair in pairs] + [pairs[-1].second]
        sure = [f"{pair.probability:.0%} sure" for pair in pairs] + [""]
        for place, (score, better) in enumerate(zip(ranked, sure, strict=True), start=1):
            low, high = score.interval
            table.add_row(str(place), escape(score.path), f"{score.score:.1f}", f"{low:.0f} to {high:.0f}", better)
        Console().print(table)
        return
    Console().print(escape(pairs[0].verdict()), highlight=False, soft_wrap=True)
