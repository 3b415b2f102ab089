"""The commands `lmmvqa evaluate`, `ablate`, `report` and `vcgbench`. Thin over `lmmvqa.evaluation`; heavy imports
happen inside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmmvqa.commands.checks import check_model
from lmmvqa.commands.options import Device, Model, Question, QuestionScale, Scale, parse_scales, parse_settings
from lmmvqa.console import clear_errors, show_error
from lmmvqa.evaluation.table_cells import SAYS_NOTHING, spread, spread_of_words, three_decimals
from processing.errors import InputError
from processing.quality_prompts import LEVELS

if TYPE_CHECKING:
    from lmmvqa.evaluation.predictions_file import PredictionsFile

app = typer.Typer()

Sets = Annotated[
    list[str],
    typer.Option(
        "--data",
        help="NAME=FOLDER for a set as its owners release it (rated_videos=FOLDER for your own), or an exported "
        "folder; may be given again.",
    ),
]


@app.command()
def evaluate(
    protocol: Annotated[
        Literal["in-sample", "ood", "5fold", "levels"],
        typer.Option(help="Which videos are tested, and how the table is made."),
    ],
    data: Sets,
    output: Annotated[Path, typer.Option(help="Folder for predictions and metrics; a run that was stopped goes on.")],
    method: Annotated[
        str,
        typer.Option(
            help="lmm-vqa, zero-shot, niqe, brisque, or a file with the columns video and prediction (.csv, .parquet, "
            "...): then the labels alone are enough."
        ),
    ] = "lmm-vqa",
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint: folder or Hub id. Default, for lmm-vqa: the one that comes with LMM-VQA."),
    ] = None,
    read_out: Annotated[
        Literal["distribution", "generate", "level-words"] | None,
        typer.Option(
            "--read-out",
            "--readout",
            help="lmm-vqa: distribution (default) or generate. zero-shot: level-words (default) or generate.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The method's name in tables.")] = None,
    levels: Annotated[
        Literal["tertiles", "authors"], typer.Option(help="Where the levels poor, fair and good part.")
    ] = "tertiles",
    scale: Scale = None,
    question: Question = None,
    question_scale: QuestionScale = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="5fold of lmm-vqa: settings of the fine-tuning, as `lmmvqa train` takes them; none for no fine-tuning."
        ),
    ] = "none",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the fine-tuning that differs, key=value.")
    ] = None,
    feature_cache: Annotated[
        Path | None,
        typer.Option(help="lmm-vqa: features of a run of `lmmvqa train` on the same videos; what is missing is added."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the intervals.")] = 1000,
    device: Device = None,
) -> None:
    """Evaluate a method by one of the field's protocols: predictions to Parquet, then the table.

    Run again, it goes on where it was stopped, and tries failed videos again.

    Exit code 0: every video has a prediction. 1: some have none, or nothing in a file of predictions matches. 2: the
    command itself failed.
    """
    with clear_errors():
        from dataset_builders.set_specs import SetSpec

        # Before the imports that take seconds.
        specs = [SetSpec.parse(text) for text in data]
        if method == "lmm-vqa":
            check_model(model)

        from lmmvqa.evaluation import protocols, rated_sets

        file = _predictions_file(method)
        label = name or (Path(method).stem if file else method)
        read_out = read_out or {"lmm-vqa": "distribution", "zero-shot": "level-words"}.get(method)
        settings = {
            "name": label,
            "method": method,
            "model": model,
            "readout": read_out,
            "protocol": protocol,
            "data": data,
            "levels": levels,
            "scale": scale and list(scale),
            "recipe": recipe,
            "settings": setting or [],
        }
        if question:
            settings["questions"] = question
        if question and method != "lmm-vqa":
            raise InputError("--question goes with --method lmm-vqa: others give scores, and perhaps levels.")
        asked = _questions(question or [], model, recipe if protocol == "5fold" else "none", parse_settings(setting))
        scales = parse_scales(question_scale)
        make = (lambda: file) if file else _method(method, model, read_out, device, feature_cache, question or [])
        chosen = {
            spec: rated_sets.select(
                rated_sets.read_set(
                    spec, levels=levels, scale=scale, scales=scales, questions=asked, videos=file is None
                ),
                protocol,
            )
            for spec in specs
        }
        mismatch = file and next(filter(None, map(file.mismatch, chosen.values())), None)
    # Known before a folder is made. The command did what it was asked, so this is no failure of its own.
    if mismatch:
        show_error(mismatch)
        raise typer.Exit(1)
    with clear_errors():
        protocols.open_run(output, settings)
        for spec, rows in chosen.items():
            if protocol == "5fold" and method == "lmm-vqa" and recipe != "none":
                features = feature_cache or output / "features"
                for fold in sorted({row.fold for row in rows}):
                    options = {"fold": fold, "levels": levels} | ({"scale": list(scale)} if scale else {})
                    options |= {"scales": {name: list(ends) for name, ends in scales.items()}} if scales else {}
                    overrides = {
                        **parse_settings(setting),
                        "data": str(spec),
                        "data_options": options,
                        "folds": None,
                        "feature_cache": str(features),
                    }
                    place = output / spec.name / f"fold_{fold}"
                    tuned = _fine_tuned(recipe, overrides, model, place, read_out, features, question or [])
                    tested = [row for row in rows if row.fold == fold]
                    protocols.predict(tuned, tested, output, f"Predicting {spec.name}, fold {fold}", asked)
            else:
                protocols.predict(make, rows, output, f"Predicting {spec.name}", asked)
        settings, predictions = protocols.read_run(output)
        found = protocols.tables(settings, predictions, resamples=resamples, questions=asked)
        protocols.save_metrics(output, found)
        _print(label, found)
    raise typer.Exit(1 if any(row["failed"] for row in found) else 0)


def _predictions_file(method: str) -> PredictionsFile | None:
    """The file that an option names; None where it names a method of ours."""
    if "." not in method:
        return None
    from lmmvqa.evaluation.predictions_file import SUFFIXES, PredictionsFile

    if not method.lower().endswith(SUFFIXES):
        raise InputError(f"{method} is no file of predictions: let its name end with {', '.join(SUFFIXES)}.")
    if not Path(method).is_file():
        raise InputError(f"{method} does not exist: name a file with the columns video and prediction.")
    return PredictionsFile(Path(method))


def _questions(names: list[str], model: str | None, recipe: str, settings: Mapping[str, Any]) -> list[Any]:
    """What a checkpoint was taught, or the fine-tuning will teach, by these names; its processor alone is read."""
    if not names:
        return []
    if recipe != "none":
        from lmmvqa.training.arguments import read_arguments

        will_know = {question.name: question for question in read_arguments(recipe, settings).questions}
        if set(names) <= set(will_know):
            return [will_know[name] for name in names]
    from lmmvqa.checkpoints.loading import taught_questions

    return taught_questions(model, names)


def _method(
    method: str,
    model: str | None,
    read_out: str | None,
    device: str | None,
    feature_cache: Path | None,
    questions: list[str],
) -> Any:
    """Makes the method when it is needed; what can be known to be wrong is an error now."""
    from lmmvqa.evaluation import methods

    if method in ("niqe", "brisque"):
        return lambda: methods.Baseline(method)
    if method == "zero-shot":
        if model is None:
            raise InputError("--method zero-shot needs --model: a Hub id or folder of a video or image language model.")
        return lambda: methods.ZeroShot(model, read_out, device=device or "cpu")
    if method != "lmm-vqa":
        raise InputError(
            f"--method {method} is unknown: choose lmm-vqa, zero-shot, niqe, brisque, or a file of predictions."
        )

    def ours() -> methods.LmmVqa:
        from lmmvqa.checkpoints.assembling import default_checkpoint
        from lmmvqa.checkpoints.loading import load_checkpoint
        from lmmvqa.checkpoints.training_record import read_record

        record = read_record(model or str(default_checkpoint()))
        settings = dict(features=feature_cache, record=record, questions=questions)
        return methods.LmmVqa(*load_checkpoint(model, device), read_out, **settings)

    return ours


def _fine_tuned(
    recipe: str,
    overrides: dict[str, Any],
    model: str | None,
    output: Path,
    read_out: str | None,
    features: Path,
    questions: list[str],
) -> Any:
    def tuned() -> Any:
        from lmmvqa.evaluation.methods import LmmVqa
        from lmmvqa.evaluation.protocols import train_fold

        network, processor, record = train_fold(recipe, overrides, model, output)
        return LmmVqa(network, processor, read_out, features=features, record=record, questions=questions)

    return tuned


def _print(title: str, found: list[dict[str, Any]]) -> None:
    """The figures, and under them the accuracy of each level, in 80 columns."""
    table = Table("set", "n", "SRCC", "95 %", "KRCC", "PLCC", "RMSE", title=title, box=box.SIMPLE, padding=(0, 1))
    levels = Table("set", *LEVELS, "total", "levels", title="Accuracy of each level", box=box.SIMPLE, padding=(0, 1))
    for row in found:
        where = _where(row)
        cells = [three_decimals(row.get(name)) for name in ("krcc", "plcc_fitted", "rmse_fitted")]
        table.add_row(
            escape(where), f"{row['n']:,}", three_decimals(row.get("srcc")), _red(spread(row, "srcc")), *cells
        )
        if accuracy := row.get("level_accuracy"):
            shares = [three_decimals(accuracy.get(level)) for level in (*LEVELS, "total")]
            levels.add_row(escape(where), *shares, "as answered" if row["levels_by"] == "answer" else "by rank")
    console = Console()
    console.print(table)
    if levels.row_count:
        console.print(levels)
    _print_questions(console, found)
    console.print("PLCC and RMSE are after the four-parameter logistic fit, RMSE in the units of the ratings.")
    for row in found:
        for line in _remarks(row):
            typer.echo(f"{_where(row)}: {line}")


def _print_questions(console: Console, found: list[dict[str, Any]]) -> None:
    """What further questions were answered, where any were asked."""
    numbers = Table("set", "question", "n", "SRCC", "95 %", "PLCC", title="Dimensions", box=box.SIMPLE, padding=(0, 1))
    words = Table(
        "set", "question", "n", "balanced", "95 %", "chance", "majority", title="First answer right", box=box.SIMPLE
    )
    for row in found:
        for name, of in (row.get("questions") or {}).items():
            where = (escape(_where(row)), name, f"{of['n']:,}")
            if "confusion" in of:
                cells = [three_decimals(of[each]) for each in ("balanced_accuracy", "chance", "majority")]
                words.add_row(*where, cells[0], _red(spread_of_words(of)), *cells[1:])
            else:
                figures = (three_decimals(of.get(each)) for each in ("srcc", "plcc_fitted"))
                numbers.add_row(*where, next(figures), _red(spread(of, "srcc")), *figures)
    for table in (numbers, words):
        if table.row_count:
            console.print(table)


def _red(spread: str) -> str:
    """A spread, so that one that says nothing is seen."""
    return f"[red]{spread}[/]" if spread == SAYS_NOTHING else spread


def _where(row: Mapping[str, Any]) -> str:
    """The set, the split where it is not all of it, and the part of it."""
    split = "" if row["split"] == "all" else f" {row['split']}"
    return f"{row['set']}{split}" + (f", {row['part']}" if row["part"] else "")


def _remarks(row: Mapping[str, Any]) -> Iterator[str]:
    if row["failed"]:
        unparsable = f" ({row['unparsable']} gave an unparsable answer)" if row["unparsable"] else ""
        yield f"{row['failed']} of {row['videos']} have no prediction{unparsable}; the figures are of the others"
    if row["seen"]:
        yield (
            f"the checkpoint has learned from {row['seen']} of these {row['videos']} videos: this says nothing about "
            "videos that it has not seen"
        )
    if (held := row.get("interval_holds")) is not None:
        yield f"the stated 90 % interval holds {held:.0%} of the ratings"
    yield from row["notes"]


@app.command()
def ablate(
    grid: Annotated[Path, typer.Argument(help="YAML file, as lmmvqa/evaluation/ablations.yaml.")],
    output: Annotated[Path, typer.Option(help="Folder for the rows; a grid that was stopped goes on.")],
    data: Annotated[str | None, typer.Option(help="NAME=FOLDER or an exported folder, in place of the grid's.")] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="A table of the grid to run; may be repeated. Default: all.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A training setting of all rows, key=value.")
    ] = None,
    feature_cache: Annotated[
        Path | None,
        typer.Option(help="Features of a run of `lmmvqa train` on the same videos; what is missing is added."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the intervals.")] = 1000,
) -> None:
    """Train and evaluate every row of a grid of ablations."""
    with clear_errors():
        from lmmvqa.evaluation.ablation import read_grid, run_grid

        results = run_grid(read_grid(grid, data, parse_settings(setting), table), output, resamples, feature_cache)
        shown = Table("table", "row", "set", "n", "SRCC", "95 %", "PLCC", "level", box=box.SIMPLE, padding=(0, 1))
        for result in results:
            for row in result["figures"]:
                if row["part"] is None:
                    level = (row.get("level_accuracy") or {}).get("total")
                    where = f"{row['set']} {row['split']}"
                    shown.add_row(
                        result["table"],
                        result["name"],
                        where,
                        str(row["n"]),
                        three_decimals(row.get("srcc")),
                        _red(spread(row, "srcc")),
                        three_decimals(row.get("plcc_fitted")),
                        three_decimals(level),
                    )
        Console().print(shown)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Outputs of `lmmvqa evaluate`, `ablate`, `train` and `vcgbench`.")
    ],
    output: Annotated[Path, typer.Option(help="The page; its tables go beside it as Markdown.")] = Path("report.html"),
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures as PNG files too.")] = None,
    unit: Annotated[str, typer.Option(help="What the ratings are, such as MOS or VMAF.")] = "MOS",
    motion: Annotated[
        bool, typer.Option(help="Scores with and without temporal tokens beside the motion (some seconds a video).")
    ] = True,
) -> None:
    """One self-contained page and Markdown tables in the paper's form, from runs and ablations."""
    with clear_errors():
        try:
            from lmmvqa.evaluation.report import write_report
        except ImportError as error:
            raise InputError(f"A report needs {error.name}: pip install 'lmmvqa[evaluation]'.") from error

        for file in write_report(folders, output, pictures=pictures, unit=unit, motion=motion):
            typer.echo(file)


@app.command()
def vcgbench(
    questions: Annotated[
        Path,
        typer.Argument(help="Folder of the benchmark's generic_qa.json, temporal_qa.json and consistency_qa.json."),
    ],
    videos: Annotated[Path, typer.Option(help="Folder of its videos.")],
    judge: Annotated[
        str, typer.Option(help="Endpoint that speaks OpenAI's chat completions, such as http://localhost:8000/v1.")
    ],
    judge_model: Annotated[str, typer.Option(help="The judge's model, as the endpoint names it.")],
    output: Annotated[Path, typer.Option(help="Folder for answers, marks and scores; a run that was stopped goes on.")],
    model: Model = None,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable that holds the endpoint's key, if it wants one.")
    ] = "OPENAI_API_KEY",
    device: Device = None,
) -> None:
    """Video-ChatGPT's benchmark of video understanding (the paper's Table IX), marked by a judge.

    Run again, it goes on where it was stopped, and tries failed videos again.

    Exit code 0: every question has an answer. 1: some have none. 2: the command itself failed.
    """
    with clear_errors():
        from lmmvqa.evaluation.vcgbench import Judge, read_questions, run_vcgbench

        scores = run_vcgbench(
            read_questions(questions),
            videos,
            model,
            Judge(judge, judge_model, os.environ.get(key_variable)),
            output,
            device,
        )
        table = Table("aspect", "mean mark (0 to 5)", "n", "unreadable", title=f"Judge: {judge_model}")
        for aspect, entry in scores["aspects"].items():
            table.add_row(aspect, three_decimals(entry["mean"]), str(entry["n"]), str(entry["unreadable"]))
        table.add_row("mean", three_decimals(scores["mean"]), "", "")
        Console().print(table)
        if scores["unanswered"]:
            typer.echo(f"Questions without an answer: {scores['unanswered']}; answers.jsonl says why.")
    raise typer.Exit(1 if scores["unanswered"] else 0)
