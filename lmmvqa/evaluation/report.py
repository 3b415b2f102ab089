"""Runs, predictions and ablations to one self-contained page and Markdown tables in the paper's form."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from lmmvqa.evaluation import figures, report_tables
from lmmvqa.evaluation.finished_runs import TRAINING, Ablations, Benchmark, Run, Training, read_finished
from lmmvqa.evaluation.motion import motion_curve
from lmmvqa.evaluation.protocols import read_run
from lmmvqa.evaluation.published import Published, read_published

HERE = Path(__file__).parent
MOVING_VIDEOS = 4
# The paper's name of the row that stands beside a row of a grid, for the pictures.
_PAPER_ROWS = {
    "temporal tokens": ("VII", {"without": "Llama-2, no temporal tokens", "with": "Llama-2, temporal tokens"}),
    "decoder": ("VII", {"Llama-2": "Llama-2, temporal tokens", "Llama-3": "Llama-3, temporal tokens"}),
    "tasks": (
        "VII",
        {"score only": "Llama-3, temporal tokens", "score + level": "Llama-3, temporal tokens, score and level"},
    ),
    "slow tokens": ("VIII temporal tokens", {}),
    "spatial projector": ("VIII projector", {}),
    "training data": ("VIII training data", {}),
}


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
    read = read_finished(folders)
    runs = [item for item in read if isinstance(item, Run)]
    ablations = [item for item in read if isinstance(item, Ablations)]
    benchmarks = [item for item in read if isinstance(item, Benchmark)]
    published = read_published()

    found = report_tables.differences(runs)
    said = report_tables.conclusions(runs, found, published)
    papers = report_tables.paper_tables(runs, ablations, benchmarks, published)
    # What is ours comes first; tables of others alone are there to look things up in.
    tables = [table for table in papers if table.ours]
    tables += filter(
        None,
        [
            report_tables.dimension_table(runs, published),
            report_tables.word_table(runs, published),
            report_tables.difference_table(found, published),
            report_tables.reserved_table(runs, published),
        ],
    )
    tables += [report_tables.detail_table(run) for run in runs]
    tables += [table for table in papers if not table.ours]
    drawn = [picture for run in runs for picture in _run_pictures(run, unit)]
    drawn += [picture for item in read if not isinstance(item, Benchmark) for picture in _training_pictures(item)]
    drawn += [_ablation_picture(item, published) for item in ablations]
    if motion:
        drawn += [picture for item in ablations for picture in _motion_pictures(item)]

    output.parent.mkdir(parents=True, exist_ok=True)
    template = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.jinja")
    images = [picture.png() for picture in drawn]
    page = template.render(
        conclusions=said,
        tables=tables,
        pictures=[(picture, base64.b64encode(image).decode()) for picture, image in zip(drawn, images, strict=True)],
        runs=[run.settings for run in runs],
        sources=published.sources,
        unit=unit,
    )
    output.write_text(page, encoding="utf-8")
    markdown = output.with_suffix(".md")
    summary = ["### What it shows", "", *(f"- {sentence}" for sentence in said), ""] if said else []
    markdown.write_text("\n".join([*summary, *(table.markdown() for table in tables)]), encoding="utf-8")
    written = [output, markdown]
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        times: Counter[str] = Counter()
        for picture, image in zip(drawn, images, strict=True):
            times[picture.name] += 1
            # Runs may have one name.
            again = f"_{times[picture.name]}" if times[picture.name] > 1 else ""
            written.append(pictures / f"{picture.name}{again}.png")
            written[-1].write_bytes(image)
    return written


def _run_pictures(run: Run, unit: str) -> list[Picture]:
    drawn = []
    for figures_ in run.whole:
        rows = run.scored(figures_)
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
            title = f"total accuracy {figures_['level_accuracy']['total']:.3f}"
            found.append(("levels", figures.confusion(figures_["confusion"], title), f"Levels: {where}."))
        for name, of in (figures_.get("questions") or {}).items():
            if "confusion" in of:
                title = f"balanced accuracy {of['balanced_accuracy']:.3f}"
                figure = figures.confusion(of["confusion"], title, of["words"], name)
                found.append((name, figure, f"{name.capitalize()}, first answer: {where}."))
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


def _ablation_picture(item: Ablations, published: Published) -> Picture:
    tables: dict[str, list[Any]] = {}
    for row in item.rows:
        whole = next(part for part in row["figures"] if part["part"] is None)
        if whole.get("srcc") is not None:
            interval = (whole.get("intervals") or {}).get("srcc")
            bar = (row["name"], whole["srcc"], interval, _paper_srcc(row["table"], row["name"], published))
            tables.setdefault(row["table"], []).append(bar)
    return Picture(
        f"ablations_{_slug(item.folder.name)}",
        figures.ablation_bars(tables),
        "Ablations, SRCC; the paper's figures are on another set.",
    )


def _paper_srcc(table: str, row: str, published: Published) -> float | None:
    """The paper's SRCC on LSVQ-test of the row that a row of a grid repeats; None where it has none."""
    paper_table, names = _PAPER_ROWS.get(table, ("", {}))
    # Grids write "25 %", the paper "25%".
    name = names.get(row, row.replace(" %", "%"))
    return published.rows(paper_table).get((name, "paper"), {}).get("lsvq_test", {}).get("srcc")


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
