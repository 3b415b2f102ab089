"""Does a downloaded set hold what was published? Counts, missing and unreadable videos, ratings by level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dataset_builders.rated_set_builder import Survey
from processing.quality_prompts import LEVELS

_BINS = 10
_LEVEL_COLOURS = ("#c0504d", "#e0b050", "#5a9e6f")


def split_counts(survey: Survey, published: dict[str, tuple[int, ...]]) -> list[tuple[str, int, int, tuple[int, ...]]]:
    """(split, rows, rows whose video is there, rows in published copies) of each split.

    LSVQ's published counts are those before the validation split is drawn, so "train and validation" is counted too.
    """
    rows = Counter(video.split for video in survey.videos)
    there = Counter(video.split for video in survey.videos if video.path is not None)
    together = [name for name in published if " and " in name]
    groups = {name: name.split(" and ") for name in [*together, *rows]}
    return [
        (name, sum(rows[part] for part in parts), sum(there[part] for part in parts), published.get(name, ()))
        for name, parts in groups.items()
    ]


def unreadable(paths: Iterable[str], workers: int) -> Iterator[tuple[str, str | None]]:
    """Each path with the reason why no frame of it can be read, or None if one can."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda path: (path, _fault(path)), paths)


def unit(survey: Survey) -> str:
    """What the histogram counts: the ratings as they are, or scores where the rows have scales of their own."""
    return "score" if survey.scale is None else "rating"


def histogram(survey: Survey) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Edges (11,) of ten equal bins between the lowest and the highest rating (or score: see `unit`), and the count
    (10,) of each level in them."""
    values = np.array([video.score if survey.scale is None else video.mos for video in survey.videos])
    levels = np.array([video.level for video in survey.videos])
    edges = np.histogram_bin_edges(values, _BINS)
    return edges, {level: np.histogram(values[levels == level], edges)[0] for level in LEVELS}


def draw_histogram(survey: Survey, title: str, path: Path) -> None:
    """Save the histogram as a picture, in the format that the suffix of `path` names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    edges, counts = histogram(survey)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    base = np.zeros(_BINS)
    for (level, count), colour in zip(counts.items(), _LEVEL_COLOURS, strict=True):
        axes.bar(edges[:-1], count, np.diff(edges), base, align="edge", label=f"{level}: {count.sum()}", color=colour)
        base += count
    axes.set(title=title, xlabel="rating" if survey.scale is not None else "score, 0 to 100", ylabel="videos")
    axes.legend()
    figure.savefig(path, dpi=120)


def _fault(path: str) -> str | None:
    from processing.video_reader import VideoError, open_video

    try:
        with open_video(path, max_chunks=1) as video:
            return None if next(iter(video), None) is not None else "it has no frame"
    except VideoError as error:
        return str(error)
