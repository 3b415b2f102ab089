"""What the default checkpoint knows: `python experiments/default_checkpoint.py COPIES [--model FOLDER] [--feature-cache
FOLDER]`.

On the test contents of graded copies (fold 0), which nothing of the checkpoint has seen: SRCC with VMAF by family (the
metric's 95 % intervals, over contents), level accuracy and coverage of the interval; beside it ridge regression and
gradient boosting on the same features, averaged over seconds and places (fitted on the contents that the projectors
learned from, the ridge chosen by cross-validation over these), NIQE and BRISQUE; the temporal tokens switched off; the
second rating, where the copies have one; whether the score falls with the rate; and by how much it moves when nothing
visible changes.
"""

import argparse
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.default_making.graded_copies import run_ffmpeg
from lmmvqa.default_making.tower_training import copy_rows
from lmmvqa.evaluation.natural_scene import BASELINES, mean_over_key_frames
from lmmvqa.evaluation.vqa_metric.vqa_metric import vqa_metrics
from lmmvqa.scoring.scorer import Scorer
from lmmvqa.training.feature_cache import FeatureCache
from modeling_lmmvqa.feature_batches import assessment_inputs

CODECS = ("near_lossless", "x264_light", "x264_medium", "x264_strong", "x264_extreme")
# Where a small difference of the ratings would be chance.
APART = 10
CHANGES = {
    "re-encoded (x264, crf 10)": ("-c:v", "libx264", "-preset", "medium", "-crf", "10"),
    "mirrored (x264, crf 10)": ("-vf", "hflip", "-c:v", "libx264", "-preset", "medium", "-crf", "10"),
    "first half second cut off (x264, crf 10)": ("-ss", "0.5", "-c:v", "libx264", "-preset", "medium", "-crf", "10"),
}


def encode(cache: FeatureCache, rows: list[dict[str, str]]) -> list[dict[str, torch.Tensor]]:
    keyed = [(cache.key(row["video"]), row["video"]) for row in rows]
    for _, error in track(cache.fill(keyed), "Encoding", len(keyed), transient=True):
        if error:
            raise ValueError(error)
    return [cache.load(key) for key, _ in keyed]


def pooled(features: dict[str, torch.Tensor]) -> np.ndarray:
    return torch.cat([features[name].flatten(0, -2).mean(0) for name in sorted(features)]).numpy()


def fit_regressors(x: np.ndarray, y: np.ndarray, contents: np.ndarray) -> dict[str, Any]:
    ridge = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": np.logspace(1, 6, 11)}, cv=GroupKFold(5)
    )
    boosting = HistGradientBoostingRegressor(max_iter=200, learning_rate=0.05, random_state=0)
    return {"ridge": ridge.fit(x, y, groups=contents), "boosting": boosting.fit(x, y)}


def assess(model, processor, features: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    found: dict[str, list] = {"score": [], "probabilities": [], "level": [], "low": [], "high": []}
    for start in range(0, len(features), 16):
        quality = model.assess(**assessment_inputs(processor, features[start : start + 16]))
        found["score"] += quality.score.tolist()
        found["probabilities"] += quality.score_probabilities.tolist()
        found["level"] += quality.level
        found["low"] += quality.score_interval[:, 0].tolist()
        found["high"] += quality.score_interval[:, 1].tolist()
    return {name: np.array(values) for name, values in found.items()}


def without_motion(
    features: list[dict[str, torch.Tensor]], known: list[dict[str, torch.Tensor]]
) -> list[dict[str, torch.Tensor]]:
    """With the mean of the temporal features of the `known` videos in the place of each video's own."""
    middle = torch.stack([item["temporal_features"].mean(0) for item in known]).mean(0)
    return [{**item, "temporal_features": middle.expand_as(item["temporal_features"])} for item in features]


def natural_scene_scores(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """NIQE and BRISQUE of each copy, negated, so that higher is better."""
    return {
        name.upper(): np.array(
            [-mean_over_key_frames(row["video"], measure)[0] for row in track(rows, name, transient=True)]
        )
        for name, measure in BASELINES.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--model", help="default: the checkpoint that comes with LMM-VQA")
    parser.add_argument("--feature-cache", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--without-baselines", action="store_true", help="leave out NIQE and BRISQUE, which take minutes"
    )
    options = parser.parse_args()
    console = Console(width=150)
    rows = copy_rows(options.copies / "ratings.csv")
    train, test = [r for r in rows if r["split"] == "train"], [r for r in rows if r["split"] == options.split]
    model, processor = load_checkpoint(options.model)
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), model, processor)

    features = encode(cache, test)
    rated, contents, families, distortions = (
        np.array([row[name] for row in test]) for name in ("mos", "content", "family", "distortion")
    )
    rated = rated.astype(float)
    ours = assess(model, processor, features)
    known = encode(cache, train)
    x, y = np.stack([pooled(item) for item in known]), np.array([float(row["mos"]) for row in train])
    tested = np.stack([pooled(item) for item in features])
    methods = {"LMM-VQA": ours["score"]}
    for name, regressor in fit_regressors(x, y, np.array([row["content"] for row in train])).items():
        methods[name] = regressor.predict(tested)
    if not options.without_baselines:
        methods |= natural_scene_scores(test)
    if "temporal_features" in features[0]:
        methods["temporal tokens off"] = assess(model, processor, without_motion(features, known))["score"]

    low, high = np.quantile(y, (1 / 3, 2 / 3))
    levels = np.where(rated <= low, "poor", np.where(rated <= high, "fair", "good"))
    table = Table(
        "family",
        "copies",
        *(f"{name}" for name in methods),
        "95 %",
        "right level",
        "in the 90 % interval",
        title="SRCC with VMAF",
    )
    parts = {"all": np.ones(len(test), bool)} | {family: families == family for family in dict.fromkeys(families)}
    for name, part in parts.items():
        correlations = [f"{spearmanr(scores[part], rated[part]).statistic:.3f}" for scores in methods.values()]
        inside = (ours["low"] <= rated) & (rated <= ours["high"])
        table.add_row(
            name,
            str(part.sum()),
            *correlations,
            interval(ours["score"][part], rated[part], contents[part]),
            f"{(ours['level'] == levels)[part].mean():.2f}",
            f"{inside[part].mean():.2f}",
        )
    console.print(table)

    seconds = Table(
        "family",
        "second rating",
        "copies",
        "SRCC",
        "of VMAF with it",
        title="Where VMAF is blind: SRCC with the second rating",
    )
    second = np.array([float(row["second_rating"] or "nan") for row in test])
    kinds = np.array([row["second_rating_kind"] for row in test])
    for family, kind in dict.fromkeys((f, k) for f, k in zip(families, kinds, strict=True) if k):
        part = (families == family) & (kinds == kind)
        seconds.add_row(
            family,
            kind,
            str(part.sum()),
            f"{spearmanr(ours['score'][part], second[part]).statistic:.3f}",
            f"{spearmanr(rated[part], second[part]).statistic:.3f}",
        )
    console.print(seconds)

    print_distortions(console, ours["score"], contents, distortions, rated)
    print_stability(
        console,
        [row for row in test if row["distortion"] in ("near_lossless", "x264_medium", "blur", "rescale_strong")],
        model,
        processor,
    )


def interval(scores: np.ndarray, rated: np.ndarray, contents: np.ndarray) -> str:
    """The metric's 95 % interval of SRCC over draws of contents; of fewer than five of these it gives none."""
    bounds = vqa_metrics(scores, rated, groups=contents)["intervals"]["srcc"]
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else "-"


def print_distortions(
    console: Console, scores: np.ndarray, contents: np.ndarray, distortions: np.ndarray, rated: np.ndarray
) -> None:
    """Whether the score falls with the rate, and both ends of the scale."""
    falls = [
        (scores[a] - scores[b]) * (rated[a] - rated[b]) > 0
        for content in dict.fromkeys(contents)
        for a, b in neighbours(content, contents, distortions, rated)
    ]
    console.print(
        f"The score falls with the rate in {np.mean(falls):.1%} of {len(falls)} neighbouring pairs of x264 at least "
        f"{APART} VMAF apart."
    )
    for distortion in (CODECS[0], CODECS[-1]):
        part = distortions == distortion
        console.print(
            f"Median score of {distortion}: {np.median(scores[part]):.1f} (VMAF {np.median(rated[part]):.1f})"
        )


def neighbours(content: str, contents: np.ndarray, distortions: np.ndarray, rated: np.ndarray) -> list[tuple[int, int]]:
    """Places of copies of a content next to each other in order of their x264 rate, of those at least `APART` apart."""
    # A photograph has only some of the distortions.
    places = [
        int(place)
        for distortion in CODECS
        for place in np.flatnonzero((contents == content) & (distortions == distortion))
    ]
    chain = places[:1]
    for place in places[1:]:
        if abs(rated[chain[-1]] - rated[place]) >= APART:
            chain.append(place)
    return [(a, b) for (i, a), (j, b) in combinations(enumerate(chain), 2) if j == i + 1]


def print_stability(console: Console, rows: list[dict], model, processor) -> None:
    videos = [row["video"] for row in rows]
    before = [score.score for score in Scorer(model, processor).scores(videos)]
    for name, arguments in CHANGES.items():
        with tempfile.TemporaryDirectory() as folder:
            changed = [Path(folder) / f"{number}.mp4" for number in range(len(videos))]
            for video, copy in zip(videos, changed, strict=True):
                # As an option of the output, so that frames are cut off exactly.
                run_ffmpeg("-i", video, *arguments, "-pix_fmt", "yuv420p", str(copy))
            after = [score.score for score in Scorer(model, processor).scores(map(str, changed))]
        moved = np.abs(np.array(after) - np.array(before))
        console.print(
            f"{name}: the score of {len(videos)} copies moves by {np.median(moved):.2f} (median), "
            f"{np.quantile(moved, 0.9):.2f} (nine in ten)"
        )


if __name__ == "__main__":
    main()
