"""The commands `lmmvqa evaluate`, `ablate`, `report` and `vcgbench`. Thin over `lmmvqa.evaluation`; heavy imports
happen inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from lmmvqa.commands.options import Scale, parse_settings
from lmmvqa.console import clear_errors
from lmmvqa.evaluation.table_cells import interval_or_deviation, three_decimals
from processing.errors import InputError

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
        typer.Option(help="lmm-vqa, zero-shot, niqe, brisque, or a CSV file with the columns video and prediction."),
    ] = "lmm-vqa",
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint: folder or Hub id. Default, for lmm-vqa: the one that comes with LMM-VQA."),
    ] = None,
    readout: Annotated[
        Literal["distribution", "generate", "level-words"] | None,
        typer.Option(help="lmm-vqa: distribution (default) or generate. zero-shot: level-words (default) or generate."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The method's name in tables.")] = None,
    levels: Annotated[
        Literal["tertiles", "authors"], typer.Option(help="Where the levels poor, fair and good part.")
    ] = "tertiles",
    scale: Scale = None,
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
    device: Annotated[str | None, typer.Option(help="For example cpu or cuda.")] = None,
) -> None:
    """Evaluate a method by one of the field's protocols: predictions to Parquet, then the table."""
    with clear_errors():
        from dataset_builders.set_specs import SetSpec
        from lmmvqa.evaluation import protocols, rated_sets

        specs = [SetSpec.parse(text) for text in data]
        label = name or (Path(method).stem if method.endswith(".csv") else method)
        readout = readout or {"lmm-vqa": "distribution", "zero-shot": "level-words"}.get(method)
        settings = {
            "name": label,
            "method": method,
            "model": model,
            "readout": readout,
            "protocol": protocol,
            "data": data,
            "levels": levels,
            "scale": scale and list(scale),
            "recipe": recipe,
            "settings": setting or [],
        }
        make = _method(method, model, readout, device, feature_cache)
        chosen = {
            spec: rated_sets.select(rated_sets.read_set(spec, levels=levels, scale=scale), protocol) for spec in specs
        }
        protocols.open_run(output, settings)
        for spec, rows in chosen.items():
            if protocol == "5fold" and method == "lmm-vqa" and recipe != "none":
                features = feature_cache or output / "features"
                for fold in sorted({row.fold for row in rows}):
                    options = {"fold": fold, "levels": levels} | ({"scale": list(scale)} if scale else {})
                    overrides = {
                        **parse_settings(setting),
                        "data": str(spec),
                        "data_options": options,
                        "folds": None,
                        "feature_cache": str(features),
                    }
                    tuned = _fine_tuned(
                        recipe, overrides, model, output / spec.name / f"fold_{fold}", readout, features
                    )
                    protocols.predict(
                        tuned, [row for row in rows if row.fold == fold], output, f"Predicting {spec.name}, fold {fold}"
                    )
            else:
                protocols.predict(make, rows, output, f"Predicting {spec.name}")
        settings, predictions = protocols.read_run(output)
        found = protocols.tables(settings, predictions, resamples=resamples)
        protocols.save_metrics(output, found)
        _print(label, found)


def _method(method: str, model: str | None, readout: str | None, device: str | None, feature_cache: Path | None) -> Any:
    """Makes the method when it is needed; what can be known to be wrong is an error now."""
    from lmmvqa.evaluation import methods

    if method.endswith(".csv"):
        predictions = methods.PredictionsFile(Path(method))
        return lambda: predictions
    if method in ("niqe", "brisque"):
        return lambda: methods.Baseline(method)
    if method == "zero-shot":
        if model is None:
            raise InputError("--method zero-shot needs --model: a Hub id or folder of a video or image language model.")
        return lambda: methods.ZeroShot(model, readout, device=device or "cpu")
    if method != "lmm-vqa":
        raise InputError(
            f"--method {method} is unknown: choose lmm-vqa, zero-shot, niqe, brisque, or a file that ends in .csv."
        )

    def ours() -> methods.LmmVqa:
        from lmmvqa.checkpoints.loading import load_checkpoint

        return methods.LmmVqa(*load_checkpoint(model, device), readout, features=feature_cache)

    return ours


def _fine_tuned(
    recipe: str, overrides: dict[str, Any], model: str | None, output: Path, readout: str | None, features: Path
) -> Any:
    def tuned() -> Any:
        from lmmvqa.evaluation.methods import LmmVqa
        from lmmvqa.evaluation.protocols import train_fold

        return LmmVqa(*train_fold(recipe, overrides, model, output), readout, features=features)

    return tuned


def _print(title: str, found: list[dict[str, Any]]) -> None:
    table = Table(
        "set",
        "split",
        "n",
        "SRCC",
        "95 %",
        "KRCC",
        "PLCC",
        "PLCC fitted",
        "RMSE fitted",
        "level",
        "in 90 %",
        title=title,
    )
    for row in found:
        part = f"{row['split']}, {row['part']}" if row["part"] else row["split"]
        cells = [three_decimals(row.get(key)) for key in ("srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted")]
        level = (row.get("level_accuracy") or {}).get("total")
        table.add_row(
            row["set"],
            part,
            str(row["n"]),
            cells[0],
            interval_or_deviation(row, "srcc"),
            *cells[1:],
            three_decimals(level),
            three_decimals(row.get("interval_holds")),
        )
    _print_wide(table)
    for row in found:
        if row["failed"]:
            typer.echo(
                f"{row['set']} {row['split']} {row['part'] or ''}: {row['failed']} of {row['videos']} without a "
                f"prediction, {row['unparsable']} of them with an unparsable answer"
            )
        for note in row["notes"]:
            typer.echo(f"{row['set']} {row['split']} {row['part'] or ''}: {note}")


def _print_wide(table: Table) -> None:
    """Wide enough for every column where the output is no terminal."""
    Console(width=max(Console().width, 130)).print(table)


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
        shown = Table("table", "row", "set", "n", "SRCC", "95 %", "PLCC fitted", "level")
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
                        interval_or_deviation(row, "srcc"),
                        three_decimals(row.get("plcc_fitted")),
                        three_decimals(level),
                    )
        _print_wide(shown)


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
    model: Annotated[
        str | None, typer.Option(help="Checkpoint: folder or Hub id. Default: the one that comes with LMM-VQA.")
    ] = None,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable that holds the endpoint's key, if it wants one.")
    ] = "OPENAI_API_KEY",
    device: Annotated[str | None, typer.Option(help="For example cpu or cuda.")] = None,
) -> None:
    """Video-ChatGPT's benchmark of video understanding (the paper's Table IX), marked by a judge."""
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
            typer.echo(f"{scores['unanswered']} questions without an answer; answers.jsonl says why.")
