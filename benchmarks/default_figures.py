"""Every figure of the default checkpoint's card, of what is named: `python benchmarks/default_figures.py
[--rated FOLDER] [--copies FOLDER] [--views FOLDER] [--clips FOLDER] [--model FOLDER] [--feature-cache FOLDER]
[--natural-scene 400] [--learned 10000]`.

RATED is the folder of BIQ2021. People: on its test part, SRCC and PLCC with 95 % intervals, beside ridge regression and
gradient boosting on the same features (fitted on `--learned` photographs of the train part), and NIQE and BRISQUE on
the first `--natural-scene` photographs, with the paired bootstrap of what ours is ahead; levels, interval, and how sure
`compare` is of pairs.
COPIES is that of `lmmvqa make-copies`. Of its split "test", whose contents nothing learned from: the order within
content and family, SRCC with VMAF, the temporal evidence switched off, and the flaw.
VIEWS is that of `lmmvqa make-views --split test`, and needs RATED: a photograph as a still, a pan and mirrored.
CLIPS is a folder of clean clips: by how much the score moves when nothing is seen to change.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from dataset_builders import register
from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.default_making.graded_copies import run_ffmpeg
from lmmvqa.default_making.tower_training import copy_rows
from lmmvqa.evaluation.natural_scene import BASELINES, mean_over_key_frames
from lmmvqa.evaluation.vqa_metric.vqa_metric import paired_difference, vqa_metrics
from lmmvqa.scoring.scorer import Scorer
from lmmvqa.training.feature_cache import FeatureCache
from modeling_lmmvqa.comparing import compare
from modeling_lmmvqa.feature_batches import assessment_inputs
from modeling_lmmvqa.tower_features import Features
from modeling_lmmvqa.video_score import VideoScore
from processing.questions import SEPARATOR
from processing.video_names import is_video
from processing.video_reader import open_video

# VMAF, and points of people's ratings: where a smaller difference would be chance.
APART, POINTS_APART = 10, 5
PAIRS, RESAMPLES = 20_000, 2_000
RIDGE, LIMIT = 3000.0, 2.0
# Between these, `compare` calls itself 90 % sure.
SURE = (0.85, 0.95)
CHANGES = {
    "re-encoded": (),
    "mirrored": ("-vf", "hflip"),
    "first half second cut off": ("-ss", "0.5"),
    "two thirds as large": ("-vf", "scale=trunc(iw/3)*2:trunc(ih/3)*2"),
}
# A smaller clip is seen to lose by becoming smaller still.
LARGE = 720
console = Console(width=150)


def encode(cache: FeatureCache, videos: Sequence[str]) -> Iterator[Features]:
    keys = cache.keys(videos)
    missing = [(key, video) for key, video in zip(keys, videos, strict=True) if key in set(cache.missing(keys))]
    for _, error in track(cache.fill(missing), "Encoding", len(missing), transient=True):
        if error:
            raise ValueError(error)
    return (cache.load(key) for key in keys)


def assess(model: Any, processor: Any, features: Sequence[Features]) -> list[dict[str, dict[str, Any]]]:
    """The answers about each video, by the question's name."""
    answers: list[dict[str, dict[str, Any]]] = []
    for start in track(range(0, len(features), 16), "Assessing", transient=True):
        answers += model.assess(**assessment_inputs(processor, features[start : start + 16])).as_dicts()
    return answers


def values(answers: list[dict[str, dict[str, Any]]], name: str, part: str = "value") -> np.ndarray:
    return np.array([answer[name][part] for answer in answers])


def pooled(features: Features) -> np.ndarray:
    return torch.cat([features[name].flatten(0, -2).mean(0) for name in sorted(features)]).numpy()


def regressors(x: np.ndarray, y: np.ndarray, tested: np.ndarray) -> dict[str, np.ndarray]:
    """What ridge regression and gradient boosting, fitted on `x` (rows, channels) and `y`, say of `tested`."""
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    known, asked = (((rows - mean) / deviation).clip(-LIMIT, LIMIT) for rows in (x, tested))
    boosting = HistGradientBoostingRegressor(max_iter=200, learning_rate=0.05, max_features=0.2, random_state=0)
    return {
        "ridge": Ridge(alpha=RIDGE).fit(known, y).predict(asked),
        "boosting": boosting.fit(x, y).predict(tested),
    }


def people(model: Any, processor: Any, cache: FeatureCache, rated: str, learned: int, natural_scene: int) -> None:
    rows = {
        split: list(datasets.load_dataset("biq2021", "score", data_dir=rated, split=split))
        for split in ("train", "test")
    }
    test, train = rows["test"], rows["train"][:learned]
    rating = np.array([row["score"] for row in test])
    parts = np.array([row["id"][:4] for row in test])
    features = list(encode(cache, [row["video"]["path"] for row in test]))
    ours = assess(model, processor, features)
    x = np.stack([pooled(each) for each in encode(cache, [row["video"]["path"] for row in train])])
    methods = {"LMM-VQA": values(ours, "score")}
    methods |= regressors(x, np.array([row["score"] for row in train]), np.stack([pooled(each) for each in features]))
    some = np.arange(len(test)) < natural_scene
    for name, measure in BASELINES.items():
        found = [
            -mean_over_key_frames(row["video"]["path"], measure)[0]
            for row in track([row for row, one in zip(test, some, strict=True) if one], name, transient=True)
        ]
        methods[name.upper()] = np.concatenate([found, np.full(len(test) - len(found), np.nan)])

    table = Table("method", "photographs", "SRCC", "95 %", "PLCC", "95 %", "ours is ahead by (SRCC, 95 %)")
    for name, scores in methods.items():
        known = np.isfinite(scores)
        figures = vqa_metrics(scores[known], rating[known])
        ahead = paired_difference(methods["LMM-VQA"][known], scores[known], rating[known], resamples=RESAMPLES)
        table.add_row(
            name,
            str(known.sum()),
            *(text for metric in ("srcc", "plcc") for text in (f"{figures[metric]:.3f}", of(figures, metric))),
            "" if name == "LMM-VQA" else "{:.3f} to {:.3f}".format(*ahead["interval"]),
        )
    console.print(table)

    bounds = values(ours, "score", "interval")
    inside = (bounds[:, 0] <= rating) & (rating <= bounds[:, 1])
    right = values(ours, "level") == np.array([row["level"] for row in test])
    table = Table("part", "photographs", "SRCC", "95 %", "PLCC", "95 %", "right level", "in the 90 % interval")
    for name in ("all", *sorted(set(parts))):
        part = (parts == name) | (name == "all")
        figures = vqa_metrics(methods["LMM-VQA"][part], rating[part])
        table.add_row(
            name,
            str(part.sum()),
            *(text for metric in ("srcc", "plcc") for text in (f"{figures[metric]:.3f}", of(figures, metric))),
            f"{right[part].mean():.3f}",
            f"{inside[part].mean():.3f}",
        )
    console.print(table)
    pairs_of_people(ours, rating)


def pairs_of_people(ours: list[dict[str, dict[str, Any]]], rating: np.ndarray) -> None:
    random = np.random.default_rng(0)
    drawn = random.integers(len(rating), size=(PAIRS, 2))
    drawn = drawn[np.abs(rating[drawn[:, 0]] - rating[drawn[:, 1]]) >= POINTS_APART]
    scores = [VideoScore(path="", score=answer["score"]["value"], score_std=answer["score"]["std"]) for answer in ours]
    first = np.array([compare(scores[a], scores[b]).probability for a, b in drawn])
    right = (first > 0.5) == (rating[drawn[:, 0]] > rating[drawn[:, 1]])
    sureness = np.maximum(first, 1 - first)
    table = Table("pairs of photographs at least 5 points apart", "pairs", "right")
    for name, low, high in (
        ("all", 0.5, 1.01),
        ("50 to 65 % sure", 0.5, 0.65),
        ("65 to 85 % sure", 0.65, 0.85),
        ("85 to 95 % sure", *SURE),
        ("95 % sure and more", 0.95, 1.01),
    ):
        part = (low <= sureness) & (sureness < high)
        table.add_row(name, str(part.sum()), f"{right[part].mean():.3f}" if part.any() else "-")
    console.print(table)


def of_copies(model: Any, processor: Any, cache: FeatureCache, copies: Path) -> None:
    everything = copy_rows(copies / "ratings.csv")
    rows = [row for row in everything if row["split"] == "test"]
    features = list(encode(cache, [row["video"] for row in rows]))
    answers = assess(model, processor, features)
    vmaf = np.array([float(row["mos"]) for row in rows])
    contents = np.array([row["content"] for row in rows])
    known = encode(cache, [row["video"] for row in everything if row["split"] == "train"])
    middle = torch.stack([each["temporal_features"].mean(0) for each in known]).mean(0)
    still = [{**each, "temporal_features": middle.expand_as(each["temporal_features"])} for each in features]
    methods = {
        "LMM-VQA": values(answers, "score"),
        "temporal evidence off": values(assess(model, processor, still), "score"),
    }
    families = list(dict.fromkeys(row["family"] for row in rows))
    table = Table("pairs of a content and family, 10 VMAF apart or more", *families)
    for name, scores in methods.items():
        table.add_row(name, *(in_order(rows, scores, vmaf, family) for family in families))
    console.print(table)
    figures = vqa_metrics(methods["LMM-VQA"], vmaf, groups=contents)
    console.print(
        f"SRCC with VMAF over {len(rows)} copies of {len(set(contents))} contents: {figures['srcc']:.3f} "
        f"({of(figures, 'srcc')})"
    )
    if "flaw" in answers[0]:
        flaws(rows, answers)


def in_order(rows: list[dict[str, str]], scores: np.ndarray, vmaf: np.ndarray, family: str) -> str:
    right = [
        (scores[a] - scores[b]) * (vmaf[a] - vmaf[b]) > 0
        for a, b in combinations([place for place, row in enumerate(rows) if row["family"] == family], 2)
        if rows[a]["content"] == rows[b]["content"] and abs(vmaf[a] - vmaf[b]) >= APART
    ]
    return f"{sum(right)} of {len(right)}"


def flaws(rows: list[dict[str, str]], answers: list[dict[str, dict[str, Any]]]) -> None:
    words = list(answers[0]["flaw"]["probabilities"])
    probabilities = np.array([list(answer["flaw"]["probabilities"].values()) for answer in answers])
    ranked = np.array(words)[np.argsort(-probabilities, axis=1)]
    truth = [row["flaw"].split(SEPARATOR) for row in rows]
    one, two = (np.array([len(each) == count for each in truth]) for count in (1, 2))
    table = Table("what was done", *words, title="What the answer is")
    recalls = {}
    for word in words:
        said = Counter(ranked[[each == [word] for each in truth], 0])
        table.add_row(word, *(str(said[answer] or "") for answer in words))
        if said:
            recalls[word] = said[word] / said.total()
    console.print(table)
    majority = Counter(each[0] for each, single in zip(truth, one, strict=True) if single).most_common(1)[0]
    interval = np.quantile(
        [balanced(draw, truth, ranked) for draw in content_draws([row["content"] for row in rows], one)], (0.025, 0.975)
    )
    console.print(
        f"Flaw of {one.sum()} copies: balanced accuracy {np.mean(list(recalls.values())):.3f} "
        f"({interval[0]:.2f} to {interval[1]:.2f}); chance {1 / len(recalls):.2f}; the answer {majority[0]} for all "
        f"{1 / len(recalls):.2f}, or {majority[1] / one.sum():.2f} of the copies. "
        f"Pristine copies called none: {recalls.get('none', float('nan')):.3f}."
    )
    if two.any():
        places = np.flatnonzero(two)
        first = np.mean([ranked[place, 0] in truth[place] for place in places])
        both = np.mean([set(truth[place]) <= set(ranked[place, :3]) for place in places])
        console.print(
            f"{two.sum()} copies with two faults: one of them first {first:.3f}, both among three {both:.3f}."
        )


def content_draws(contents: Sequence[str], kept: np.ndarray) -> Iterator[list[int]]:
    """Places of copies, whole contents drawn with replacement."""
    random = np.random.default_rng(0)
    places = {name: [p for p in np.flatnonzero(kept) if contents[p] == name] for name in dict.fromkeys(contents)}
    for _ in range(RESAMPLES // 4):
        yield [p for name in random.choice(list(places), len(places)) for p in places[name]]


def balanced(draw: Sequence[int], truth: Sequence[list[str]], ranked: np.ndarray) -> float:
    right: dict[str, list[bool]] = {}
    for place in draw:
        right.setdefault(truth[place][0], []).append(ranked[place, 0] == truth[place][0])
    return float(np.mean([np.mean(each) for each in right.values()]))


def stability(model: Any, processor: Any, clips: Sequence[Path]) -> None:
    """By how much the score of a video moves when nothing that is seen changes."""
    large = []
    for clip in clips:
        with open_video(clip) as reader:
            if min(reader.info.width, reader.info.height) >= LARGE:
                large.append(clip)
    with Scorer(model, processor) as scorer, tempfile.TemporaryDirectory() as folder:
        before = {score.path: score.score for score in scorer.scores(list(map(str, clips)))}
        for name, arguments in CHANGES.items():
            videos = large if "large" in name else clips
            changed = [str(Path(folder) / f"{name} {number}.mp4") for number in range(len(videos))]
            for video, copy in zip(videos, changed, strict=True):
                # As options of the output, so that frames are cut off exactly.
                run_ffmpeg("-i", video, *arguments, "-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p", copy)
            after = [score.score for score in scorer.scores(changed)]
            moved = np.abs([new - before[str(video)] for new, video in zip(after, videos, strict=True)])
            console.print(
                f"{name}: the score of {len(videos)} clips moves by {np.median(moved):.2f} points (median), "
                f"{np.quantile(moved, 0.9):.2f} (nine in ten)"
            )


def of_views(model: Any, processor: Any, cache: FeatureCache, rated: str, views: Path) -> None:
    rows = copy_rows(views / "ratings.csv")
    pictures = {
        row["id"]: row["video"]["path"]
        for row in datasets.load_dataset("biq2021", "score", data_dir=rated, split="test")
    }
    names = list(dict.fromkeys(row["content"] for row in rows))
    answers = assess(model, processor, list(encode(cache, [pictures[name] for name in names])))
    before = dict(zip(names, values(answers, "score"), strict=True))
    after = values(assess(model, processor, list(encode(cache, [row["video"] for row in rows]))), "score")
    for view in dict.fromkeys(row["family"] for row in rows):
        moved = np.array(
            [a - before[row["content"]] for a, row in zip(after, rows, strict=True) if row["family"] == view]
        )
        console.print(
            f"A photograph as {view}: the score of {len(moved)} moves by {np.median(np.abs(moved)):.2f} points "
            f"(median), {np.mean(moved):+.2f} on average"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rated")
    parser.add_argument("--copies", type=Path)
    parser.add_argument("--views", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--model", help="default: the checkpoint that comes with LMM-VQA")
    parser.add_argument("--feature-cache", type=Path)
    parser.add_argument("--natural-scene", type=int, default=400)
    parser.add_argument("--learned", type=int, default=10_000)
    options = parser.parse_args()
    register()
    model, processor = load_checkpoint(options.model)
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), model, processor)
    if options.rated:
        people(model, processor, cache, options.rated, options.learned, options.natural_scene)
    if options.copies:
        of_copies(model, processor, cache, options.copies)
    if options.views:
        of_views(model, processor, cache, options.rated, options.views)
    if options.clips:
        stability(model, processor, sorted(file for file in options.clips.iterdir() if is_video(file.name)))


def of(figures: dict[str, Any], metric: str) -> str:
    """The interval of a metric."""
    bounds = figures["intervals"][metric]
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else "-"


if __name__ == "__main__":
    main()
