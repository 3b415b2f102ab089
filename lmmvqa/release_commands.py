"""The commands `lmmvqa verify`, `push` and `demo`. Thin over the library; heavy imports happen inside."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from lmmvqa.console import clear_errors, messages, show_error

app = typer.Typer(no_args_is_help=True)

Model = Annotated[str | None, typer.Option(help="Checkpoint: folder or Hub id. Default: the one that comes with LMM-VQA.")]
Device = Annotated[str | None, typer.Option(help="For example cpu, cuda, cuda:1. Default: a GPU if there is one.")]


@app.command()
def verify(
    model: Model = None,
    device: Device = None,
    decoder: Annotated[Literal["auto", "pyav", "decord"], typer.Option(help="pyav, decord or auto.")] = "auto",
    write: Annotated[bool, typer.Option("--write", help="Store the scores of this machine as the reference.")] = False,
) -> None:
    """Check your installation: score the clips that ship with a checkpoint and compare.

    Exit code 0: all scores agree with the stored ones. 1: some don't. 2: the check itself failed.
    """
    with clear_errors():
        from lmmvqa import verifying

        if write:
            messages.print(f"Reference scores in {verifying.write_reference(model, device)}.", soft_wrap=True)
            return
        verification = verifying.verify(model, device, decoder)
        table = Table("clip", "score here", "reference", "difference", "")
        for row in verification.comparisons:
            found = "-" if row.found is None else f"{row.found:.4f}"
            difference = "-" if row.found is None else f"{row.found - row.expected:+.4f}"
            verdict = "agrees" if row.agrees(verification.tolerance) else "[red]differs[/]"
            table.add_row(row.clip, found, f"{row.expected:.4f}", difference, verdict)
        Console().print(table)
        for row in verification.comparisons:
            if row.error is not None:
                show_error(row.error)
        typer.echo(f"Tolerance: {verification.tolerance} points (scores go from 0 to 100).")
        for name, there, here in verification.differences:
            typer.echo(f"Differs from where the reference was made: {name} is {here} here, was {there} there.")
        if verification.passed:
            typer.echo("The installation gives the reference scores.")
    raise typer.Exit(0 if verification.passed else 1)
