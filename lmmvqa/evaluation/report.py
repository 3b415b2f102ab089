"""Runs, predictions and ablations to one self-contained page and Markdown tables in the paper's form."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader

from lmmvqa.evaluation import figures
from lmmvqa.evaluation.motion import motion_curve
from lmmvqa.evaluation.protocols import METRICS, READ_OUT, read_run
from lmmvqa.evaluation.table_cells import interval_or_deviation, three_decimals
from lmmvqa.evaluation.vcgbench import ASPECTS, SCORES
from processing.quality_prompts import LEVELS

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
ABLATIONS, TRAINING = "ablations.json", "trainer_state.json"
PROTOCOL_TITLES = {
    "in-sample": "In-sample: the test splits",
    "ood": "Out of distribution: sets that training never saw",
    "5fold": "Fine-tuned, mean of five folds",
    "levels": "Accuracy of the quality level",
}
MOVING_VIDEOS = 4


@dataclass(frozen=True)
class GridTable:
    """A title, the head and the body of a table, as text."""

    title: str
    head: list[str]
    body: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", f"| {' | '.join(self.head)} |", "| --- " * len(self.head) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in self.body]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


@dataclass
class Picture:
    """A figure with a name for its file and a sentence under it."""

    name: str
    figure: Any
    caption: str

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return buffer.getvalue()


@dataclass
class Run:
    """The output of one `lmmvqa evaluate`."""

    folder: Path
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    read_out: dict[str, Any]

    @property
    def name(self) -> str:
        return self.settings["name"]


@dataclass
class Ablations:
    """The output of one `lmmvqa ablate`."""

    folder: Path
    rows: list[dict[str, Any]]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Training:
    """The output of one `lmmvqa train`."""

    folder: Path


@dataclass
class Benchmark:
    """The output of one `lmmvqa vcgbench`."""

    scores: dict[str, Any]


def read_folder(folder: Path) -> Run | Ablations | Training | Benchmark:
    """
    Raises:
        FileNotFoundError: the folder is the output of none of our commands.
    """
    if (folder / TRAINING).is_file():
        return Training(folder)
    if (folder / SCORES).is_file():
        return Benchmark(json.loads((folder / SCORES).read_text(encoding="utf-8")))
    if (folder / ABLATIONS).is_file():
        rows = json.loads((folder / ABLATIONS).read_text(encoding="utf-8"))
        settings = {
            row["run"]: json.loads((folder / row["run"] / "run.json").read_text(encoding="utf-8")) for row in rows
        }
        return Ablations(folder, rows, settings)
    settings, rows = read_run(folder)
    if not (folder / METRICS).is_file():
        raise FileNotFoundError(
            f"{folder / METRICS} does not exist: `lmmvqa evaluate` was stopped early, run it again."
        )
    read_out = folder / READ_OUT
    settled = json.loads(read_out.read_text(encoding="utf-8")) if read_out.is_file() else {}
    return Run(folder, settings, rows, json.loads((folder / METRICS).read_text(encoding="utf-8")), settled)


def _read_finished(folders: Sequence[Path]) -> list[Run | Ablations | Training | Benchmark]:
    """`runs/*` may hold runs that still go on, and features."""
    read, left_out = [], []
    for folder in folders:
        try:
            read.append(read_folder(folder))
        except FileNotFoundError as error:
            left_out.append(error)
    if not read:
        raise FileNotFoundError("\n".join(map(str, left_out)))
    for error in left_out:
        logger.warning("Left out: %s", error)
    return read


def write_report(
    folders: Sequence[Path], output: Path, *, pictures: Path | None = None, unit: str = "MOS", motion: bool = True
) -> list[Path]:
    """Write the page and, beside it, its tables as Markdown.

    Args:
        folders: outputs of `lmmvqa evaluate`, `ablate`, `train` and `vcgbench`.
        output: the page, such as report.html.
        pictures: a folder for the pictures as PNG files too.
        unit: what the ratings are, as axes say it: "MOS", or "VMAF" for graded copies.
        motion: draw the paper's Figure 6 where the ablations hold a row without temporal tokens.

    Returns:
        The files that were written.

    Raises:
        FileNotFoundError: none of the folders is a finished output of ours; others are left out with a warning.
    """
    read = _read_finished(folders)
    runs = [item for item in read if isinstance(item, Run)]
    ablations = [item for item in read if isinstance(item, Ablations)]
    published = yaml.safe_load((HERE / "published.yaml").read_text(encoding="utf-8"))

    protocols = [protocol for protocol in PROTOCOL_TITLES if any(run.settings["protocol"] == protocol for run in runs)]
    tables = [_paper_table(protocol, runs, published) for protocol in protocols]
    tables += [_detail_table(run) for run in runs]
    tables += [_ablation_table(item, published) for item in ablations]
    if benchmarks := [item for item in read if isinstance(item, Benchmark)]:
        tables.append(_benchmark_table(benchmarks, published))
    drawn = [picture for run in runs for picture in _run_pictures(run, unit)]
    drawn += [picture for item in read if not isinstance(item, Benchmark) for picture in _training_pictures(item)]
    drawn += [_ablation_picture(item, published) for item in ablations]
    if motion:
        drawn += [picture for item in ablations for picture in _motion_pictures(item)]

    output.parent.mkdir(parents=True, exist_ok=True)
    template = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.jinja")
    images = {picture.name: picture.png() for picture in drawn}
    page = template.render(
        tables=tables,
        pictures=[(picture, base64.b64encode(images[picture.name]).decode()) for picture in drawn],
        runs=[run.settings for run in runs],
        sources=published["sources"],
        unit=unit,
    )
    output.write_text(page, encoding="utf-8")
    markdown = output.with_suffix(".md")
    markdown.write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
    written = [output, markdown]
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            (pictures / f"{name}.png").write_bytes(image)
            written.append(pictures / f"{name}.png")
    return written


def _whole(run: Run) -> list[dict[str, Any]]:
    """Figures of whole splits: of the folds, their mean."""
    return [row for row in run.metrics if row["part"] is None and not row["split"].startswith("fold ")]


def _column(row: Mapping[str, Any], protocol: str) -> str:
    return row["set"] if protocol in ("ood", "5fold") else f"{row['set']} {row['split']}"


def _paper_table(protocol: str, runs: Sequence[Run], published: Mapping[str, Any]) -> GridTable:
    """Methods as rows, sets as columns, SRCC / PLCC after the fit: ours first, then the published ones with their
    source."""
    runs = [run for run in runs if run.settings["protocol"] == protocol]
    ours = [(run.name, {_column(row, protocol): row for row in _whole(run)}) for run in runs]
    theirs = published.get(protocol, [])
    key = "total" if protocol == "levels" else "figures"
    columns = list(
        dict.fromkeys(
            [*(column for _, row in ours for column in row), *(column for row in theirs for column in row[key])]
        )
    )
    if protocol == "levels":
        head, body = ["method", "set", *LEVELS, "total", "n"], []
        for name, rows in ours:
            for column, row in rows.items():
                accuracy = row.get("level_accuracy") or {}
                body.append(
                    [
                        name,
                        published["sets"].get(column, column),
                        *(three_decimals(accuracy.get(level)) for level in (*LEVELS, "total")),
                        str(row["n"]),
                    ]
                )
        body += [
            [f"{row['method']} ({row['source']})", published["sets"].get(c, c), "-", "-", "-", three_decimals(v), "-"]
            for row in theirs
            for c, v in row["total"].items()
        ]
        return GridTable(PROTOCOL_TITLES[protocol], head, body)
    body = [[name, *(_pair(rows.get(column)) for column in columns), "measured"] for name, rows in ours]
    for row in theirs:
        cells = [
            " / ".join(map(three_decimals, row["figures"][column])) if column in row["figures"] else "-"
            for column in columns
        ]
        body.append([row["method"], *cells, row["source"]])
    note = (
        "SRCC / PLCC; ours: PLCC after the four-parameter logistic fit. Published figures are on the sets that their "
        "column names and on no other."
    )
    return GridTable(
        PROTOCOL_TITLES[protocol],
        ["method", *(published["sets"].get(column, column) for column in columns), "source"],
        body,
        note,
    )


def _pair(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else f"{three_decimals(row.get('srcc'))} / {three_decimals(row.get('plcc_fitted'))}"


def _detail_table(run: Run) -> GridTable:
    head = [
        "set",
        "split",
        "part",
        "n",
        "SRCC",
        "95 %",
        "KRCC",
        "PLCC raw",
        "PLCC fitted",
        "RMSE fitted",
        *LEVELS,
        "total",
        "in 90 %",
        "failed",
        "unparsable",
    ]
    body, notes = [], []
    for row in run.metrics:
        accuracy = row.get("level_accuracy") or {}
        figures_ = [three_decimals(row.get(name)) for name in ("krcc", "plcc", "plcc_fitted", "rmse_fitted")]
        levels = [three_decimals(accuracy.get(level)) for level in (*LEVELS, "total")]
        body.append(
            [
                row["set"],
                row["split"],
                row["part"] or "all",
                str(row["n"]),
                three_decimals(row.get("srcc")),
                interval_or_deviation(row, "srcc"),
                *figures_,
                *levels,
                three_decimals(row.get("interval_holds")),
                str(row["failed"]),
                str(row["unparsable"]),
            ]
        )
        notes += [f"{row['set']} {row['split']} {row['part'] or ''}: {note}" for note in row["notes"]]
    read_out = f", read-out: {run.settings['readout']}" if run.settings.get("readout") else ""
    return GridTable(f"{run.name}: every figure ({run.settings['protocol']}{read_out})", head, body, " ".join(notes))


def _ablation_table(item: Ablations, published: Mapping[str, Any]) -> GridTable:
    head = ["ablation", "row", "set", "n", "SRCC", "95 %", "PLCC fitted", "level", "the paper, LSVQ-test"]
    body = []
    for row in item.rows:
        paper = published["ablations"].get(row["table"], {}).get(row["name"])
        known = "-" if paper is None else " / ".join(three_decimals(value) for value in paper if value is not None)
        for part in row["figures"]:
            if part["part"] is None:
                level = (part.get("level_accuracy") or {}).get("total")
                body.append(
                    [
                        row["table"],
                        row["name"],
                        f"{part['set']} {part['split']}",
                        str(part["n"]),
                        three_decimals(part.get("srcc")),
                        interval_or_deviation(part, "srcc"),
                        three_decimals(part.get("plcc_fitted")),
                        three_decimals(level),
                        known,
                    ]
                )
    note = "SRCC / PLCC; the paper compares temporal tokens with Llama-2, all else with Llama-3."
    return GridTable("Ablations (the paper's Tables VII and VIII)", head, body, note)


def _benchmark_table(items: Sequence[Benchmark], published: Mapping[str, Any]) -> GridTable:
    body = []
    for item in items:
        means = [entry["mean"] for entry in item.scores["aspects"].values()]
        body.append(
            [
                item.scores["model"],
                *(_mark(mean) for mean in (*means, item.scores["mean"])),
                item.scores["judge"],
                "measured",
            ]
        )
    for row in published["vcgbench"]:
        body.append(
            [row["method"], *(_mark(mark) for mark in (*row["marks"], fmean(row["marks"]))), "-", row["source"]]
        )
    note = "Marks from 0 to 5. Those of different judges don't compare."
    return GridTable("Video understanding: VCGBench", ["method", *ASPECTS, "mean", "judge", "source"], body, note)


def _mark(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _run_pictures(run: Run, unit: str) -> list[Picture]:
    drawn = []
    for figures_ in _whole(run):
        rows = [row for row in run.rows if row["set"] == figures_["set"] and row.get("predicted") is not None]
        if run.settings["protocol"] in ("in-sample", "levels"):
            rows = [row for row in rows if row["split"] == figures_["split"]]
        if len(rows) < 2:
            continue
        key = _slug(f"{run.name} {figures_['set']} {figures_['split']}")
        where = f"{run.name} on {figures_['set']}, {figures_['split']}"
        found = [
            ("scatter", figures.scatter(rows, figures_, unit), f"Prediction against {unit}: {where}."),
            ("residuals", figures.residuals(rows, figures_, unit), f"{unit} less fitted prediction: {where}."),
            ("calibration", figures.calibration(rows, **run.read_out), f"Calibration of the stated interval: {where}."),
        ]
        if figures_.get("confusion"):
            found.append(
                ("levels", figures.confusion(figures_["confusion"], figures_["level_accuracy"]), f"Levels: {where}.")
            )
        drawn += [Picture(f"{kind}_{key}", figure, caption) for kind, figure, caption in found if figure is not None]
    return drawn


def _training_pictures(item: Run | Ablations | Training) -> list[Picture]:
    named: dict[str, Path] = {}
    if isinstance(item, Ablations):
        for row in item.rows:
            file = item.folder / row["run"] / "trained" / TRAINING
            # Rows that mean the same share a run; the first of them names its curve.
            if file not in named.values():
                named[f"{row['table']}: {row['name']}"] = file
    else:
        found = [
            file
            for file in sorted(item.folder.glob(f"**/{TRAINING}"))
            if not file.parent.name.startswith("checkpoint-")
        ]
        named = {" ".join(file.relative_to(item.folder).parts[:-1]) or item.folder.name: file for file in found}
    figure = figures.training_curves(
        {name: json.loads(file.read_text(encoding="utf-8"))["log_history"] for name, file in named.items()}
    )
    return (
        []
        if figure is None
        else [Picture(f"training_{_slug(item.folder.name)}", figure, f"Training: {item.folder.name}.")]
    )


def _ablation_picture(item: Ablations, published: Mapping[str, Any]) -> Picture:
    tables: dict[str, list[Any]] = {}
    for row in item.rows:
        whole = next(part for part in row["figures"] if part["part"] is None)
        if whole.get("srcc") is not None:
            paper = published["ablations"].get(row["table"], {}).get(row["name"])
            tables.setdefault(row["table"], []).append(
                (row["name"], whole["srcc"], (whole.get("intervals") or {}).get("srcc"), paper and paper[0])
            )
    return Picture(
        f"ablations_{_slug(item.folder.name)}",
        figures.ablation_bars(tables),
        "Ablations, SRCC; the paper's figures are on another set.",
    )


def _motion_pictures(item: Ablations) -> list[Picture]:
    """Of the videos that a row without temporal tokens and one with them judge most differently."""
    without = next(
        (row for row in item.rows if item.settings[row["run"]]["config"].get("num_temporal_tokens") == 0), None
    )
    if without is None:
        return []
    with_tokens = next(
        (row for row in item.rows if row["table"] == without["table"] and row["run"] != without["run"]), None
    )
    if with_tokens is None:
        return []
    scores = [
        {row["key"]: row for row in read_run(item.folder / row["run"])[1] if row.get("predicted") is not None}
        for row in (with_tokens, without)
    ]
    shared = [key for key in scores[0] if key in scores[1] and Path(scores[0][key]["video"]).is_file()]
    temporal = [key for key in shared if scores[0][key].get("family") == "temporal"] or shared
    temporal.sort(key=lambda key: -abs(scores[0][key]["predicted"] - scores[1][key]["predicted"]))
    chosen: dict[str, str] = {}
    for key in temporal:
        chosen.setdefault(str(scores[0][key].get("content") or key), key)
    videos = []
    for key in list(chosen.values())[:MOVING_VIDEOS]:
        row = scores[0][key]
        videos.append(
            (row["id"], motion_curve(row["video"]), row["predicted"], scores[1][key]["predicted"], row["score"])
        )
    if not videos:
        return []
    caption = (
        "Score with and without temporal tokens, and motion: mean length of the TV-L1 optical flow (the paper's Figure "
        "6)."
    )
    return [Picture(f"motion_{_slug(item.folder.name)}", figures.score_and_motion(videos), caption)]


def _slug(text: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
