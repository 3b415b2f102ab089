"""The commands `lmmvqa verify`, `push` and `demo`. Thin over the library; heavy imports happen inside."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from lmmvqa.commands.checks import check_port
from lmmvqa.commands.options import Device, Model
from lmmvqa.console import clear_errors, messages, show_error

if TYPE_CHECKING:
    from lmmvqa.release.pushing import RepoType

app = typer.Typer()
push_app = typer.Typer(
    name="push", no_args_is_help=True, help="Upload a model, a data set, the metric or the demo to the Hub."
)
app.add_typer(push_app)


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
        from lmmvqa.release import verifying

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


Repo = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub; made if it is not there.")]
Private = Annotated[bool, typer.Option("--private", help="Only you can see it.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be uploaded and how large it is; upload nothing.")
]


@push_app.command("model")
def push_model(
    repo: Repo,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of a checkpoint or an adapter. Default: the checkpoint that comes with LMM-VQA."),
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Folder of a run of `lmmvqa evaluate`, for the card. May be given again.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the checkpoint that an adapter was trained on.")
    ] = None,
    private: Private = False,
    dry_run: DryRun = False,
) -> None:
    """A checkpoint that works without LMM-VQA: weights, processor, code, pipeline, card, reference scores."""
    with clear_errors():
        from lmmvqa.release.pushing import staged_model

        stage = staged_model(model, repo, results=results or [], base_model=base_model)
        _push(stage, repo, "model", private, dry_run)


@push_app.command("data")
def push_data(
    folder: Annotated[Path, typer.Argument(help="Folder that `lmmvqa data build` wrote.")],
    repo: Repo,
    private: Private = False,
    dry_run: DryRun = False,
) -> None:
    """An exported data set with its card."""
    with clear_errors():
        from lmmvqa.release.pushing import staged_data_set

        _push(staged_data_set(folder), repo, "dataset", private, dry_run)


@push_app.command("metric")
def push_metric(repo: Repo, private: Private = False, dry_run: DryRun = False) -> None:
    """The metric as a Space, for evaluate.load."""
    with clear_errors():
        from lmmvqa.release.pushing import staged_metric

        _push(staged_metric(repo), repo, "space", private, dry_run)


@push_app.command("demo")
def push_demo(
    repo: Repo,
    model: Annotated[str, typer.Option(help="Hub id of the model that it shows.")],
    private: Private = False,
    dry_run: DryRun = False,
) -> None:
    """The demo as a Space."""
    with clear_errors():
        from lmmvqa.release.pushing import staged_demo

        _push(staged_demo(repo, model), repo, "space", private, dry_run)


def _push(stage: AbstractContextManager[Path], repo: str, repo_type: RepoType, private: bool, dry_run: bool) -> None:
    from lmmvqa.release.pushing import push, uploads

    with stage as folder:
        files = uploads(folder)
        count = sum(file.size for file in files)
        size = f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
        if dry_run:
            table = Table("file", "bytes", title=f"{repo_type} {repo}: {len(files)} files, {size}")
            for file in files:
                table.add_row(file.path, f"{file.size:,}")
            Console().print(table)
            return
        messages.print(f"Uploading {len(files)} files, {size}.")
        typer.echo(push(folder, repo, repo_type, private=private))


@app.command()
def demo(
    model: Model = None,
    device: Device = None,
    port: Annotated[int, typer.Option(help="Port of the page; 0 for any that is free.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Who may reach it: 127.0.0.1 is this machine, 0.0.0.0 all of its network.")
    ] = "127.0.0.1",
) -> None:
    """A page in your browser: drop a video, see its score and its quality over time. Needs no network."""
    check_port(host, port)
    with clear_errors():
        from lmmvqa.demo import serve

        serve(model, device, host, port, say=lambda text: messages.print(text, highlight=False, soft_wrap=True))
