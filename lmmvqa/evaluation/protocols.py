"""The field's protocols: sets and a method -> predictions in Parquet -> tables of figures.

A run is a folder: `run.json` (what was evaluated, how), `predictions.parquet` (one row a video; everything else comes
from it) and `metrics.json`. Stopped and started again, it goes on where it was.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.rated_set_builder import level_of
from lmmvqa.checkpoints.training_record import TrainingRecord, read_record, video_digests
from lmmvqa.console import pictures_are_expected
from lmmvqa.evaluation.further_questions import COLUMNS as QUESTION_COLUMNS
from lmmvqa.evaluation.further_questions import label_columns, question_figures
from lmmvqa.evaluation.methods import Method, watched
from lmmvqa.evaluation.rated_sets import PARTS, RatedRow
from lmmvqa.evaluation.vqa_metric.vqa_metric import FEW_PAIRS, says_nothing, vqa_metrics
from lmmvqa.scoring.result_files import Columns, ResultFile, as_written, stored_rows
from processing.errors import InputError
from processing.quality_prompts import LEVELS
from processing.questions import MAX_SCORE, Question

logger = logging.getLogger(__name__)

RUN, PREDICTIONS, METRICS, READ_OUT = "run.json", "predictions.parquet", "metrics.json", "read_out.json"
# A row of a run; `PARTS` are among them. What a method does not give is None.
COLUMNS: Columns = {
    "key": "string",
    "set": "string",
    "split": "string",
    "fold": "int64",
    "id": "string",
    "video": "string",
    "mos": "float64",
    "score": "float64",
    "level": "string",
    "content": "string",
    **dict.fromkeys(PARTS, "string"),
    "seen": "bool",
    "seconds": "float64",
    "error": "string",
    "unparsable": "bool",
    "predicted": "float64",
    "predicted_level": "string",
    "predicted_std": "float64",
    "interval": "list<float64>",
    "level_probabilities": "list<float64>",
    "score_probabilities": "list<float64>",
    "answers": "list<string>",
    "duration_s": "float64",
    **QUESTION_COLUMNS,
}
# Methods whose predictions are on the scale of the scores, 0 to 100; others may have any.
ON_SCORE_SCALE = ("lmm-vqa", "zero-shot")


def open_run(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what the run is; a folder holds one run.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    file = folder / RUN
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if changed := [name for name in sorted({*before, *settings}) if before.get(name) != settings.get(name)]:
            name = changed[0]
            raise InputError(
                f"{folder} holds another run ({name} was {before.get(name)!r}, is {settings.get(name)!r}): name "
                "another folder, or remove it."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def predict(
    method: Callable[[], Method],
    rows: Sequence[RatedRow],
    folder: Path,
    title: str = "Predicting",
    questions: Sequence[Question] = (),
) -> None:
    """Append the prediction of every row that has none yet to the run, with the seconds that it took (where the method
    is timed), and whether the checkpoint has learned from the video (where its training record says). Videos that
    failed in an earlier run are tried again; an answer that says no score stays.

    Args:
        method: makes the method; not called where nothing is left to predict.
        questions: beside score and level, whose labels and answers are kept.
    """
    with ResultFile(folder / PREDICTIONS, COLUMNS) as results:
        asked = {as_written(row.key) for row in rows}
        results.drop(lambda row: row["error"] is not None and not row["unparsable"] and row["key"] in asked)
        missing = [row for row in rows if row.key not in results]
        if not missing:
            return
        if len(missing) < len(rows):
            logger.info("%d of %d predictions are there already.", len(rows) - len(missing), len(rows))
        made = method()
        if calibration := getattr(made, "calibration", None):
            (folder / READ_OUT).write_text(json.dumps(calibration) + "\n", encoding="utf-8")
        record = getattr(made, "record", None)
        predictions = _timed(made, missing)
        with pictures_are_expected():
            for row, (prediction, seconds) in zip(missing, watched(predictions, len(missing), title), strict=True):
                if not math.isfinite(prediction.get("predicted") or 0.0):
                    prediction = {"error": f"{row.id}: its prediction is not a finite number."}
                measured = {"seen": _is_seen(row, record), "seconds": seconds} | prediction
                results.append(_as_record(row) | label_columns(questions, row.labels) | measured)


def _timed(method: Method, rows: Sequence[RatedRow]) -> Iterator[tuple[dict[str, Any], float | None]]:
    """Predictions with the seconds since the one before; those of a batch come together, so only their mean tells."""
    before = time.perf_counter()
    for prediction in method.predict(rows):
        now = time.perf_counter()
        yield prediction, round(now - before, 4) if method.timed else None
        before = time.perf_counter()


def _is_seen(row: RatedRow, record: TrainingRecord | None) -> bool | None:
    """Whether a checkpoint learned from a video, or was chosen by it; None where that is not known."""
    if record is None:
        return None
    # Of some sets only their name is known.
    if any(not part.videos and (part.dataset, part.split) == (row.set_name, row.split) for part in record.parts):
        return True
    if not record.videos:
        return False
    (digest,) = video_digests([row.video])
    return digest in record.videos


def _as_record(row: RatedRow) -> dict[str, Any]:
    return {
        "key": row.key,
        "set": row.set_name,
        "split": row.split,
        "fold": row.fold,
        "id": row.id,
        "video": row.video["path"],
        "mos": row.mos,
        "score": row.score,
        "level": row.level,
        "content": row.content,
        **{name: row.parts.get(name) for name in PARTS},
        "seen": None,
        "seconds": None,
        "error": None,
        "unparsable": False,
        "predicted": None,
        "predicted_level": None,
    }


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run is, and its predictions.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    for name in (RUN, PREDICTIONS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} does not exist: {folder} is not the output of `lmmvqa evaluate`, or it was stopped "
                "early: run it again."
            )
    rows = list(stored_rows(folder / PREDICTIONS, COLUMNS))
    return json.loads((folder / RUN).read_text(encoding="utf-8")), rows


def tables(
    settings: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    *,
    resamples: int = 1000,
    parts: bool = True,
    questions: Sequence[Question] = (),
) -> list[dict[str, Any]]:
    """Figures from predictions: a row for each set and split (and fold, and the mean over folds), and for each part of
    it.

    Returns:
        Rows with `set`, `split`, `part`, `videos`, `failed`, `unparsable`, `seen` (videos that the checkpoint learned
        from, None where nobody knows), `scale` (the ratings that are the scores 0 and 100, the unit of RMSE; None
        where rows have scales of their own, and RMSE is in points of the score), `interval_holds` (the share of ratings
        inside the stated 90 % interval), `seconds` a video, `levels_by` ("answer", or "rank" of a method that gives
        scores only), what the metric gives, and of whole sets `questions`: see `question_figures` (under 5fold it is of
        the mean, over the videos of all folds).
    """
    protocol, on_scale = settings["protocol"], settings.get("method", "lmm-vqa") in ON_SCORE_SCALE
    found = []
    for (set_name, split), group in _grouped(
        rows,
        # Levels of a set without a test split are of all of it, whatever its own split is called.
        lambda row: (
            row["set"],
            row["split"] if _is_test(row["split"]) and protocol not in ("ood", "5fold") else "all",
        ),
    ):
        if protocol == "5fold":
            folds = [
                _figures(set_name, f"fold {fold}", members, resamples, on_scale)
                for (fold,), members in _grouped(group, lambda row: (row["fold"],))
            ]
            mean = _mean_of_folds(set_name, folds)
            found += [*folds, mean | {"questions": question_figures(questions, group, resamples)}]
            continue
        whole = _figures(set_name, split, group, resamples, on_scale)
        found.append(whole | {"questions": question_figures(questions, group, resamples)})
        for name in PARTS if parts else ():
            values = sorted({row[name] for row in group if row.get(name)})
            if len(values) > 1:
                found += [
                    _figures(
                        set_name,
                        split,
                        [row for row in group if row.get(name) == value],
                        resamples,
                        on_scale,
                        part=value,
                    )
                    for value in values
                ]
    return found


def _is_test(split: str) -> bool:
    return split.startswith("test")


def _figures(
    set_name: str,
    split: str,
    rows: Sequence[dict[str, Any]],
    resamples: int,
    on_scale: bool,
    part: str | None = None,
) -> dict[str, Any]:
    scored = [row for row in rows if row.get("predicted") is not None]
    seen = [row.get("seen") for row in rows]
    seconds = [row["seconds"] for row in scored if row.get("seconds") is not None]
    scale = rating_scale(scored)
    result: dict[str, Any] = {
        "set": set_name,
        "split": split,
        "part": part,
        "videos": len(rows),
        "failed": len(rows) - len(scored),
        "unparsable": sum(bool(row.get("unparsable")) for row in rows),
        "seen": None if None in seen or not seen else sum(seen),
        "scale": scale and list(scale),
        "interval_holds": None,
        "seconds": float(np.mean(seconds)) if len(seconds) == len(scored) and scored else None,
    }
    held = [row["interval"][0] <= row["score"] <= row["interval"][1] for row in scored if row.get("interval")]
    if held:
        result["interval_holds"] = float(np.mean(held))
    options: dict[str, Any] = {"resamples": resamples}
    if scored and all(row.get("content") for row in scored):
        options["groups"] = [row["content"] for row in scored]
    if scored:
        answered = all(row.get("predicted_level") for row in scored)
        result["levels_by"] = "answer" if answered else "rank"
        options |= {
            "level_predictions": [row["predicted_level"] for row in scored] if answered else levels_by_rank(scored),
            "level_references": [row["level"] for row in scored],
        }
    predicted = np.array([row["predicted"] for row in scored])
    rated = [row["score"] if scale is None else row["mos"] for row in scored]
    try:
        figures = vqa_metrics(_in_units(predicted, scale) if on_scale else predicted, rated, **options)
    except ValueError as error:
        return result | {"n": len(scored), "intervals": {}, "notes": [str(error)]}
    if not on_scale:
        # Predictions on one scale less ratings on another are in no unit.
        figures["rmse"] = figures["intervals"]["rmse"] = None
    elif figures["logistic"] and scale is not None:
        # The curve stands beside predictions as the method gives them.
        high, low, middle, width = figures["logistic"]
        points = MAX_SCORE / (scale[1] - scale[0])
        figures["logistic"] = [high, low, (middle - scale[0]) * points, width * points]
    return result | figures


def rating_scale(rows: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """The ratings that are the scores 0 and 100, the same for all rows; None where rows have scales of their own, or
    all have the same rating."""
    mos, score = (np.array([row[name] for row in rows], dtype=float) for name in ("mos", "score"))
    if not len(rows) or not np.ptp(score):
        return None
    slope = np.ptp(mos) / np.ptp(score)
    low = mos[score.argmin()] - slope * score.min()
    if not np.allclose(low + slope * score, mos, atol=1e-6 * (1 + np.abs(mos).max())):
        return None
    # Adding 0 makes 0 of -0.
    low, high = round(float(low), 6) + 0.0, round(float(low + slope * MAX_SCORE), 6)
    return low, high


def _in_units(predicted: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    return predicted if scale is None else scale[0] + predicted * (scale[1] - scale[0]) / MAX_SCORE


def levels_by_rank(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Levels of a method that gives scores only: its lowest predictions are poor and its highest good, as many of each
    as the set's own thirds have of these videos. Equal predictions get the lower level, as ratings do."""
    rated = [row["level"] for row in rows]
    ordered = np.sort([row["predicted"] for row in rows])
    ends = np.cumsum([rated.count(level) for level in LEVELS])[:-1]
    fair, good = (float(ordered[end - 1]) if end else -np.inf for end in ends)
    return [level_of(row["predicted"], (fair, good)) for row in rows]


def _mean_of_folds(set_name: str, folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the folds, as the field reports them; the standard deviation stands in place of an interval."""
    mean: dict[str, Any] = {"set": set_name, "split": "mean of folds", "part": None, "intervals": {}, "notes": []}
    mean |= {name: sum(fold[name] for fold in folds) for name in ("videos", "failed", "unparsable", "n")}
    mean["seen"] = None if any(fold["seen"] is None for fold in folds) else sum(fold["seen"] for fold in folds)
    scales = {tuple(fold["scale"] or ()) for fold in folds}
    mean["scale"] = folds[0]["scale"] if len(scales) == 1 else None
    mean["levels_by"] = folds[0].get("levels_by")
    if mean["n"] < FEW_PAIRS * len(folds):
        mean["notes"].append(f"Folds of some {mean['n'] // len(folds)} videos: {says_nothing(mean['n'] // len(folds))}")
    for name in ("srcc", "krcc", "plcc", "plcc_fitted", "rmse", "rmse_fitted", "interval_holds", "seconds"):
        values = [fold[name] for fold in folds if fold.get(name) is not None]
        mean[name] = float(np.mean(values)) if len(values) == len(folds) else None
        mean.setdefault("deviations", {})[name] = float(np.std(values)) if len(values) == len(folds) else None
        if values and len(values) < len(folds):
            mean["notes"].append(f"{name} is undefined in {len(folds) - len(values)} of {len(folds)} folds.")
    if all("level_accuracy" in fold for fold in folds):
        confusion = np.sum([fold["confusion"] for fold in folds], axis=0)
        counts = confusion.sum(1)
        levels = [level for level in folds[0]["level_accuracy"] if level != "total"]
        right = {level: float(confusion[i, i] / counts[i]) if counts[i] else None for i, level in enumerate(levels)}
        mean |= {
            "confusion": confusion.tolist(),
            "level_accuracy": {**right, "total": float(np.trace(confusion) / confusion.sum())},
        }
    return mean


def save_metrics(folder: Path, found: list[dict[str, Any]]) -> None:
    (folder / METRICS).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _grouped(
    rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], tuple]
) -> list[tuple[tuple, list[dict[str, Any]]]]:
    return [
        (name, list(members)) for name, members in groupby(sorted(rows, key=lambda row: tuple(map(str, key(row)))), key)
    ]


def train_fold(recipe: str, overrides: dict[str, Any], base: str | None, output: Path) -> tuple[Any, Any, Any]:
    """Fine-tune on one fold, or take the weights of a run that has ended; model, processor and training record.

    Args:
        recipe: a YAML file or the name of a recipe of `lmmvqa train`.
        overrides: its settings that differ, with data and fold.
        base: the checkpoint to start from; the default one without it.
    """
    from lmmvqa.checkpoints.assembling import default_checkpoint
    from lmmvqa.checkpoints.loading import load_checkpoint
    from lmmvqa.training.run import run_training

    finished = output / "finished"
    if not finished.exists():
        run_training(
            recipe, {**overrides, "model": base or str(default_checkpoint()), "output_dir": str(output)}, test=False
        )
        finished.touch()
    return (*load_checkpoint(str(output)), read_record(str(output)))
