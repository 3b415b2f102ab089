"""The default checkpoint, five-fold by content: `python experiments/five_fold.py COPIES [--adapters FOLDER]
[--feature-cache FOLDER]`.

For each fold of the contents, fresh projectors are warmed up on the other four as the recipe says, and their
tokens are read in level words, which is what the decoder learns to say. With the folds that `lmmvqa train
default_checkpoint data=rated_videos=COPIES 'folds=[0, 1, 2, 3, 4]' output_dir=FOLDER` trained (half an hour a fold),
the decoder's answers, too. Beside them ridge regression and gradient boosting on the same features, averaged over
seconds and places, and NIQE and BRISQUE. The towers that ship learned from folds 2 to 4, so folds 0 and 1, which they
never saw, are given by themselves, too; with other towers in lmmvqa/checkpoint, say with --unseen which folds these
never saw. Where each fold has towers of its own, run it for each with the same --scores FILE, from a clone that has its
towers. Prints the SRCC with VMAF of each fold, and by family over all copies but calm views, each with the score that
it got when held out, and the metric's 95 % interval over contents, for real videos and photographs by themselves, too;
and what becomes of the scores of a fold, calibrated by those of the other folds.
"""

import argparse
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from default_checkpoint import (
    assess,
    encode,
    fit_regressors,
    interval,
    natural_scene_scores,
    pooled,
    print_distortions,
    without_motion,
)
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from transformers import set_seed
from warm_up import rated_features

from lmmvqa.checkpoints.adapters import merge_adapter
from lmmvqa.checkpoints.assembling import compose_default
from lmmvqa.default_making.graded_copies import NUM_FOLDS
from lmmvqa.default_making.tower_training import copy_rows
from lmmvqa.evaluation.natural_scene import BASELINES
from lmmvqa.release.calibration import QUANTILES, fit_calibration
from lmmvqa.training.arguments import read_arguments
from lmmvqa.training.collators import AnswerCollator
from lmmvqa.training.encoding import fit_standardizers
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.training_data import TrainingData
from lmmvqa.training.warm_up import warm_up, word_direction, word_scores
from modeling_lmmvqa.feature_batches import stack_features
from modeling_lmmvqa.quality_read_out import read_number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--adapters", type=Path)
    parser.add_argument("--feature-cache", type=Path)
    parser.add_argument(
        "--folds",
        type=int,
        nargs="+",
        choices=range(NUM_FOLDS),
        default=range(NUM_FOLDS),
        help="to be held out, each in its turn; default: all",
    )
    parser.add_argument(
        "--unseen",
        type=int,
        nargs="+",
        choices=range(NUM_FOLDS),
        default=(0, 1),
        help="folds that the towers never saw",
    )
    parser.add_argument(
        "--without-baselines", action="store_true", help="leave out NIQE and BRISQUE, which take minutes"
    )
    parser.add_argument(
        "--scores",
        type=Path,
        help=".npz file that keeps the scores of each fold; the folds in it are not run again, and are in the tables",
    )
    options = parser.parse_args()
    console = Console(width=150)
    rows = copy_rows(options.copies / "ratings.csv")
    rated, folds = (np.array([float(row[name]) for row in rows]) for name in ("mos", "fold"))
    contents, kinds, families = (np.array([row[name] for row in rows]) for name in ("content", "kind", "family"))
    methods = (
        {"projectors", "ridge", "boosting"}
        | ({"answers"} if options.adapters else set())
        | (set() if options.without_baselines else {name.upper() for name in BASELINES})
    )
    scores, answers = load_scores(options.scores, rated, methods)
    finished = {int(fold) for fold in np.unique(folds[np.isfinite(scores["projectors"])])} if scores else set()
    if len(finished | set(options.folds)) == 1:
        parser.error("There must be two folds or more: the scores of one are calibrated by those of the others.")
    # A calm view is for learning; it lies in a folder of its own.
    whole = np.isin(folds, [*finished, *options.folds]) & np.array(
        [Path(row["video"]).parent.name == row["content"] for row in rows]
    )
    recipe = read_arguments("default_checkpoint")
    model, processor = compose_default()
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), model, processor)
    collator = AnswerCollator(cache, processor)
    features = encode(cache, rows)
    x = np.stack([pooled(item) for item in features])
    data = rated_features(cache, rows)

    def keep(kept: dict[str, np.ndarray], found: dict[str, np.ndarray], places: np.ndarray) -> None:
        for name, values in found.items():
            unknown = np.nan if values.dtype.kind == "f" else values.dtype.type()
            kept.setdefault(name, np.full((len(rows), *values.shape[1:]), unknown, values.dtype))[places] = values

    for fold in sorted(set(options.folds) - finished):
        known, held_out = folds != fold, np.flatnonzero((folds == fold) & whole)
        # A fold's projectors don't depend on the folds before it.
        set_seed(recipe.seed)
        fresh, learned = compose_default()[0], data.select(np.flatnonzero(known))
        fit_standardizers(fresh, collator, TrainingData(learned, None, {}))
        warm_up(fresh, collator, learned, recipe.warm_up_epochs, recipe.seed)
        with torch.no_grad():
            words = word_scores(
                fresh.eval().model,
                stack_features([features[index] for index in held_out]),
                word_direction(fresh, processor),
            )
        found = {"projectors": words.numpy()}
        found |= {
            name: method.predict(x[held_out])
            for name, method in fit_regressors(x[known], rated[known], contents[known]).items()
        }
        if options.adapters:
            decoder = merge_adapter(deepcopy(model), options.adapters / f"fold_{fold}").eval()
            said = assess(decoder, processor, [features[index] for index in held_out])
            keep(answers, said, held_out)
            found["answers"] = said["score"]
            moving = held_out[families[held_out] == "temporal"]
            blind = without_motion(
                [features[index] for index in moving], [features[index] for index in np.flatnonzero(known)]
            )
            keep(answers, {"blind": assess(decoder, processor, blind)["score"]}, moving)
        if not options.without_baselines:
            found |= natural_scene_scores([rows[index] for index in held_out])
        keep(scores, found, held_out)
        if options.scores:
            save_scores(options.scores, rated, scores, answers)
        console.print(f"Fold {fold} is done.")
    main_score = "answers" if options.adapters else "projectors"
    groups = {"folds that the towers never saw": whole & np.isin(folds, options.unseen)}
    groups |= {f"contents that are {kind}s": whole & (kinds == kind) for kind in np.unique(kinds)}
    tested = {"all that were held out": whole} | {
        title: part for title, part in groups.items() if part.any() and (part != whole).any()
    }
    for title, part in tested.items():
        table = Table("family", "copies", *scores, f"95 % of {main_score}", title=f"SRCC with VMAF, {title}")
        parts = {"all": part} | {f"fold {fold:.0f}": part & (folds == fold) for fold in np.unique(folds[part])}
        for name, shown in (
            parts | {family: part & (families == family) for family in dict.fromkeys(families)}
        ).items():
            figures = [spearmanr(values[shown], rated[shown]).statistic for values in scores.values()]
            table.add_row(
                name,
                str(shown.sum()),
                *(f"{figure:.3f}" for figure in figures),
                interval(scores[main_score][shown], rated[shown], contents[shown]),
            )
        console.print(table)
    if answers:
        moving = whole & (families == "temporal")
        console.print(
            "Temporal family without its temporal tokens: "
            f"{spearmanr(answers['blind'][moving], rated[moving]).statistic:.3f}"
        )
    print_calibrated(console, scores["projectors"], answers, rows, whole)


def load_scores(
    file: Path | None, rated: np.ndarray, methods: set[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What `save_scores` has kept, or nothing.

    Raises:
        ValueError: the scores are of other copies or of other methods.
    """
    if file is None or not file.exists():
        return {}, {}
    with np.load(file) as kept:
        scores, answers = (
            {name.partition(" ")[2]: kept[name] for name in kept if name.startswith(kind)}
            for kind in ("score ", "answer ")
        )
        if not np.array_equal(kept["rated"], rated):
            raise ValueError(f"{file} has the scores of other copies: name another file with --scores.")
    if set(scores) != methods:
        raise ValueError(
            f"{file} has scores of {', '.join(scores)}, and not of {', '.join(sorted(methods))}: name another file "
            "with --scores."
        )
    return scores, answers


def save_scores(file: Path, rated: np.ndarray, scores: dict[str, np.ndarray], answers: dict[str, np.ndarray]) -> None:
    named = {f"score {name}": values for name, values in scores.items()} | {
        f"answer {name}": values for name, values in answers.items()
    }
    whole = file.with_name(f"{file.name}.new.npz")
    np.savez(whole, rated=rated, **named)
    whole.replace(file)


def print_calibrated(
    console: Console, words: np.ndarray, answers: dict[str, np.ndarray], rows: list[dict[str, str]], whole: np.ndarray
) -> None:
    """What becomes of the answers of a fold, or without them of the projectors' scores, calibrated as `lmmvqa
    calibrate` does by those of the other folds: the interval, the level by thirds of the ratings, both ends of the
    scale, and whether a score falls with the rate."""
    rated, folds = (np.array([float(row[name]) for row in rows]) for name in ("mos", "fold"))
    contents, families, distortions = (
        np.array([row[name] for row in rows]) for name in ("content", "family", "distortion")
    )
    calibrated, inside, third, right = (np.zeros(len(rows)) for _ in range(4))
    for fold in np.unique(folds[whole]):
        held_out, others = whole & (folds == fold), whole & (folds != fold)
        known, low_high = others & (families != "exposure"), np.quantile(rated[others], (1 / 3, 2 / 3))
        thirds = np.digitize(rated[held_out], low_high)
        if answers:
            quality = calibrated_answers(answers["probabilities"], known, held_out, rated)
            calibrated[held_out] = quality.value
            low, high = quality.interval.numpy().T
            inside[held_out] = (low <= rated[held_out]) & (rated[held_out] <= high)
            right[held_out] = answers["level"][held_out] == np.array(["poor", "fair", "good"])[thirds]
        else:
            pairs = (np.quantile(values[known], QUANTILES) for values in (words, rated))
            calibrated[held_out] = np.interp(words[held_out], *([0, *values, 100] for values in pairs))
        third[held_out] = np.digitize(calibrated[held_out], low_high) == thirds
    console.print(
        f"Calibrated by the other folds: its third of the ratings is right for {third[whole].mean():.1%} of "
        f"{whole.sum()} copies."
    )
    if answers:
        console.print(
            f"The level is right for {right[whole].mean():.1%}; the rating is in the 90 % interval for "
            f"{inside[whole].mean():.1%}."
        )
    print_distortions(console, calibrated[whole], contents[whole], distortions[whole], rated[whole])


def calibrated_answers(probabilities: np.ndarray, known: np.ndarray, held_out: np.ndarray, rated: np.ndarray) -> Any:
    fitted = fit_calibration(torch.from_numpy(probabilities[known]), torch.from_numpy(rated[known]))
    return read_number(torch.from_numpy(probabilities[held_out]).log(), **fitted)


if __name__ == "__main__":
    main()
