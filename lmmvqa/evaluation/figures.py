"""The pictures of a report, each drawn from predictions or runs and given back as a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hub_cards.results import FEW_VIDEOS
from lmmvqa.evaluation.motion import Motion
from lmmvqa.evaluation.table_cells import SAYS_NOTHING
from lmmvqa.evaluation.vqa_metric.vqa_metric import logistic
from processing.quality_prompts import LEVELS

matplotlib.use("Agg")

# Readable for the colour-blind, and apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Row = Mapping[str, Any]


def _figure(width: float = 5.0, height: float = 4.0, columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def _counted(count: int) -> str:
    return f"n = {count:,}" + (f": {SAYS_NOTHING}" if count < FEW_VIDEOS else "")


def scatter(rows: Sequence[Row], metrics: Row, unit: str) -> Figure:
    """Prediction against rating, with the logistic fit."""
    figure, axis = _figure()
    kinds = sorted({str(row.get("family") or "") for row in rows})
    for number, kind in enumerate(kinds):
        members = [row for row in rows if str(row.get("family") or "") == kind]
        x, y = [row["predicted"] for row in members], [row["mos"] for row in members]
        axis.scatter(
            x,
            y,
            s=16,
            alpha=0.65,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linewidths=0,
            label=kind or None,
        )
    if metrics.get("logistic"):
        low, high = (bound([row["predicted"] for row in rows]) for bound in (min, max))
        along = np.linspace(low, high, 200)
        axis.plot(along, logistic(along, metrics["logistic"]), color="black", linewidth=1.5, label="logistic fit")
    agreement = f"SRCC {_said(metrics.get('srcc'))}, PLCC after the fit {_said(metrics.get('plcc_fitted'))}, "
    few = metrics["n"] < FEW_VIDEOS
    axis.set(xlabel="prediction", ylabel=unit, title=("" if few else agreement) + _counted(metrics["n"]))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, framealpha=0.8)
    return figure


def residuals(rows: Sequence[Row], metrics: Row, unit: str) -> Figure | None:
    """Rating less fitted prediction, by content (where copies share one) or else by rated level, and by duration."""
    if not metrics.get("logistic"):
        return None
    left = np.array([row["mos"] for row in rows]) - logistic(
        np.array([row["predicted"] for row in rows]), metrics["logistic"]
    )
    durations = np.array([row.get("duration_s") or np.nan for row in rows])
    by_content = len({row.get("content") for row in rows}) > 1
    groups: dict[str, list[float]] = {}
    for row, residual in zip(rows, left, strict=True):
        groups.setdefault(str(row["content"] if by_content else row["level"]), []).append(residual)
    names = sorted(groups, key=lambda name: np.median(groups[name]))
    names = names if len(names) <= 30 else names[:15] + names[-15:]
    known = np.isfinite(durations)
    # Where all videos last about as long, or nobody knows, there is nothing to see by duration.
    varies = known.any() and np.ptp(durations[known]) > 0.05 * np.median(durations[known])
    height = max(3.5, 0.22 * len(names) + 1.2)
    figure, axes = _figure(10 if varies else 6, height, columns=2 if varies else 1)
    first = np.atleast_1d(axes)[0]
    first.boxplot(
        [groups[name] for name in names],
        orientation="horizontal",
        flierprops={"markersize": 3},
        medianprops={"color": COLOURS[1]},
        widths=0.6,
    )
    first.set_yticks(
        range(1, len(names) + 1), [name if len(name) < 28 else f"{name[:26]}.." for name in names], fontsize=7
    )
    first.axvline(0, color="black", linewidth=0.8)
    first.set(xlabel=f"residual ({unit})", title="by content" if by_content else "by rated level")
    if not varies:
        return figure
    second = axes[1]
    second.xaxis.set_major_locator(MaxNLocator(6))
    second.ticklabel_format(axis="x", useOffset=False)
    second.scatter(durations[known], left[known], s=14, alpha=0.6, color=COLOURS[0], linewidths=0)
    second.axhline(0, color="black", linewidth=0.8)
    second.set(xlabel="duration (s)", ylabel=f"residual ({unit})", title="by duration")
    return figure


def confusion(
    matrix: Sequence[Sequence[int]], title: str, words: Sequence[str] = LEVELS, what: str = "level"
) -> Figure:
    """Rated against predicted word, shaded by the share of the row."""
    counts = np.array(matrix)
    figure, axis = _figure(1.5 + 0.8 * len(words), 1.2 + 0.8 * len(words))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axis.text(
            column,
            row,
            f"{count}\n{share[row, column]:.0%}",
            ha="center",
            va="center",
            color="white" if share[row, column] > 0.55 else "black",
        )
    axis.set_xticks(range(len(words)), words, rotation=45 if len(words) > 5 else 0)
    axis.set_yticks(range(len(words)), words)
    axis.grid(False)
    axis.set(xlabel=f"predicted {what}", ylabel=f"rated {what}", title=title)
    return figure


def calibration(
    rows: Sequence[Row], pairs: Sequence[Sequence[float]] | None = None, interval_scale: float = 1.0
) -> Figure | None:
    """How many ratings the central intervals of the read-out hold, against what they state.

    Args:
        pairs, interval_scale: the model's `answer_map` and `interval_scale`, which stand between the
            distribution of the answer and the stated interval.
    """
    known = [row for row in rows if row.get("score_probabilities")]
    if not known:
        return None
    stated = np.linspace(0, 0.99, 100)
    targets = np.concatenate([(1 - stated) / 2, (1 + stated) / 2])
    # Each whole score is spread evenly over its point.
    edges = np.arange(len(known[0]["score_probabilities"]) + 1) - 0.5
    inside = []
    for row in known:
        quantiles = np.interp(targets, np.concatenate([[0], np.cumsum(row["score_probabilities"])]), edges).clip(
            0, edges[-1] - 0.5
        )
        if pairs is not None:
            quantiles = np.interp(quantiles, *np.transpose(pairs))
        quantiles = row["predicted"] + interval_scale * (quantiles - row["predicted"])
        low, high = quantiles.reshape(2, -1).clip(0, edges[-1] - 0.5)
        inside.append((low <= row["score"]) & (row["score"] <= high))
    held = np.mean(inside, axis=0)
    figure, axis = _figure(4.6, 4.2)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="as stated")
    axis.plot(stated, held, color=COLOURS[0], linewidth=2, label="central interval of the read-out")
    intervals = [row for row in known if row.get("interval")]
    if intervals:
        share = np.mean([row["interval"][0] <= row["score"] <= row["interval"][1] for row in intervals])
        axis.plot(
            0.9,
            share,
            color=COLOURS[1],
            marker="D",
            linestyle="none",
            label=f"the stated 90 % interval holds {share:.0%}",
        )
    axis.set(
        xlabel="stated probability",
        ylabel="share of ratings inside",
        xlim=(0, 1),
        ylim=(0, 1),
        title=_counted(len(known)),
    )
    axis.legend(fontsize=8, loc="upper left")
    return figure


def training_curves(runs: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Loss of the score against steps of each run, from the log of its `trainer_state.json`, and the SRCC on the
    validation videos where that was measured."""
    panels = (("loss of the score", "loss_score"), ("SRCC, validation", "eval_srcc"))
    curves = {
        label: {
            name: curve
            for name, log in runs.items()
            if (curve := [(row["step"], row[key]) for row in log if key in row])
        }
        for label, key in panels
    }
    curves = {label: found for label, found in curves.items() if found}
    if not curves:
        return None
    figure, axes = _figure(6 * len(curves), 3.8, columns=len(curves))
    for axis, (label, found) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        for name, curve in found.items():
            number = list(runs).index(name)
            marker = "o" if len(curve) < 20 else None
            axis.plot(
                *zip(*curve, strict=True),
                color=COLOURS[number % 6],
                linestyle=("-", "--", ":")[number // 6 % 3],
                marker=marker,
                markersize=3,
                label=name,
            )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="step", ylabel=label)
        axis.legend(fontsize=8)
    return figure


def ablation_bars(tables: Mapping[str, Sequence[tuple[str, float, Sequence[float] | None, float | None]]]) -> Figure:
    """SRCC of each row, with its interval, and the paper's figure as a mark.

    Args:
        tables: {table: [(row, SRCC, interval, the paper's SRCC)]}.
    """
    count = sum(len(rows) + 1 for rows in tables.values())
    figure, axis = _figure(7, 0.36 * count + 1)
    place, ticks = 0.0, []
    for number, (table, rows) in enumerate(tables.items()):
        ticks.append((place, f"$\\bf{{{table.replace(' ', chr(92) + ' ')}}}$"))
        place += 1
        for name, srcc, interval, published in rows:
            axis.barh(place, srcc, color=COLOURS[number % 6], height=0.7)
            if interval:
                axis.plot(interval, [place, place], color="black", linewidth=1.2)
            if published is not None:
                axis.plot(published, place, marker="|", markersize=14, markeredgewidth=2.5, color="grey")
            ticks.append((place, name))
            place += 1
    axis.plot([], [], color="black", linewidth=1.2, label="95 % interval")
    axis.plot(
        [],
        [],
        marker="|",
        markersize=10,
        markeredgewidth=2.5,
        color="grey",
        linestyle="none",
        label="the paper, on LSVQ-test",
    )
    axis.set_yticks(*zip(*ticks, strict=True))
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_ylim(place - 0.3, -0.7)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("SRCC")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


def score_and_motion(videos: Sequence[tuple[str, Motion, float, float, float]]) -> Figure:
    """The paper's Figure 6: the motion of some videos, and their scores with and without temporal tokens beside the
    rating.

    Args:
        videos: (name, motion, score with, score without, rating), all on 0 to 100.
    """
    figure = Figure(figsize=(9, 1.9 * len(videos) + 0.4), layout="constrained", dpi=110)
    for row, (axes, (name, motion, with_tokens, without, rating)) in enumerate(
        zip(figure.subplots(len(videos), 2, width_ratios=(2, 1), squeeze=False), videos, strict=True)
    ):
        left, right = axes
        left.plot(motion.times_s, motion.speed, color=COLOURS[0], linewidth=1)
        left.fill_between(motion.times_s, motion.speed, color=COLOURS[0], alpha=0.2)
        left.set_ylim(bottom=0)
        left.set_ylabel("flow (% of width / s)", fontsize=8)
        left.set_title(name, fontsize=9, loc="left")
        bars = (
            ("rating", rating, "grey"),
            ("without", without, COLOURS[1]),
            ("with temporal tokens", with_tokens, COLOURS[0]),
        )
        right.barh([bar[0] for bar in bars], [bar[1] for bar in bars], color=[bar[2] for bar in bars])
        for place, bar in enumerate(bars):
            right.text(bar[1] + 1, place, f"{bar[1]:.0f}", va="center", fontsize=8)
        right.set_xlim(0, 112)
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
        if row == len(videos) - 1:
            left.set_xlabel("time (s)")
            right.set_xlabel("score (0 to 100)")
    return figure


def _said(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
