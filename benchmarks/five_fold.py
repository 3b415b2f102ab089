"""The projectors of the default checkpoint, five-fold by content: `python benchmarks/five_fold.py LADDER [--feature-cache FOLDER]`.

For each fold of the ladder's contents, fresh projectors are warmed up on the other four as the recipe says, and their tokens are read in level
words, which is what the decoder learns to say. Beside it ridge regression and gradient boosting on the same features, averaged over seconds and
places. The towers learned from folds 2 to 4, so folds 0 and 1, which they never saw, are given by themselves, too. Prints the SRCC with VMAF of
each fold, and by family over all copies but calm views, each with the score that it got when held out, and the metric's 95 % interval over
contents; and what calibration makes of the projectors' scores. (With the decoder: `lmmvqa train default_checkpoint data_dir=LADDER
'folds=[0, 1, 2, 3, 4]'`, an hour a fold or less.)
"""

import argparse
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from default_checkpoint import encode, fit_regressors, pooled, print_rungs
from frame_statistics import srcc_by_family
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from transformers import set_seed
from warm_up import rated_features

from lmmvqa.calibration import QUANTILES
from lmmvqa.default_checkpoint import compose_default
from lmmvqa.evaluation.vqa_metric.vqa_metric import vqa_metrics
from lmmvqa.ladder import NUM_FOLDS
from lmmvqa.training.arguments import read_arguments
from lmmvqa.training.collators import AnswerCollator
from lmmvqa.training.encoding import fit_standardizers
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.tower_training import ladder_rows
from lmmvqa.training.training_data import TrainingData
from lmmvqa.training.warm_up import warm_up, word_direction, word_scores
from modeling_lmmvqa.feature_batches import stack_features

UNSEEN_BY_TOWERS = (0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ladder", type=Path)
    parser.add_argument("--feature-cache", type=Path)
    options = parser.parse_args()
    console = Console(width=150)
    rows = ladder_rows(options.ladder / "ratings.csv")
    rated, folds = (np.array([float(row[name]) for row in rows]) for name in ("mos", "fold"))
    contents, families = (np.array([row[name] for row in rows]) for name in ("content", "family"))
    # A calm view is for learning; it lies in a folder of its own.
    whole = np.array([Path(row["video"]).parent.name == row["content"] for row in rows])
    recipe = read_arguments("default_checkpoint")
    set_seed(recipe.seed)
    model, processor = compose_default()
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), model, processor)
    collator = AnswerCollator(cache, processor)
    features = encode(cache, rows)
    x = np.stack([pooled(item) for item in features])
    data = rated_features(cache, rows)
    scores: dict[str, np.ndarray] = {}
    for fold in range(NUM_FOLDS):
        known, held_out = folds != fold, np.flatnonzero((folds == fold) & whole)
        fresh, learned = deepcopy(model), data.select(np.flatnonzero(known))
        fit_standardizers(fresh, collator, TrainingData(learned, None, {}))
        warm_up(fresh, collator, learned, recipe.warm_up_epochs, recipe.seed)
        with torch.no_grad():
            words = word_scores(fresh.eval().model, stack_features([features[index] for index in held_out]), word_direction(fresh, processor))
        found = {"projectors": words.numpy()}
        found |= {name: method.predict(x[held_out]) for name, method in fit_regressors(x[known], rated[known], contents[known]).items()}
        for name, values in found.items():
            scores.setdefault(name, np.full(len(rows), np.nan))[held_out] = values
        console.print(f"fold {fold}: " + ", ".join(f"{name} {spearmanr(values, rated[held_out]).statistic:.3f}" for name, values in found.items()))
    for title, part in (("all folds", whole), ("folds 0 and 1", whole & np.isin(folds, UNSEEN_BY_TOWERS))):
        table = Table("family", "copies", *scores, "95 %", title=f"SRCC with VMAF, {title}")
        columns = [srcc_by_family(values[part], rated[part], families[part], dict.fromkeys(families)) for values in scores.values()]
        for name, *figures in zip(("all", *dict.fromkeys(families)), *columns, strict=True):
            shown = part & ((families == name) | (name == "all"))
            low, high = vqa_metrics(scores["projectors"][shown], rated[shown], groups=contents[shown])["intervals"].get("srcc", (np.nan, np.nan))
            table.add_row(name, str(shown.sum()), *(f"{figure:.3f}" for figure in figures), f"{low:.2f} to {high:.2f}")
        console.print(table)
    print_calibrated(console, scores["projectors"], rows, whole)


def print_calibrated(console: Console, words: np.ndarray, rows: list[dict[str, str]], whole: np.ndarray) -> None:
    """What becomes of the scores of a fold, calibrated as `lmmvqa calibrate` does by those of the other folds: the ends of the scale, the level
    by thirds of the ratings, and whether a score falls with the rate."""
    rated, folds = (np.array([float(row[name]) for row in rows]) for name in ("mos", "fold"))
    contents, families, rungs = (np.array([row[name] for row in rows]) for name in ("content", "family", "rung"))
    calibrated, right = np.full(len(rows), np.nan), []
    for fold in range(NUM_FOLDS):
        held_out, others = whole & (folds == fold), whole & (folds != fold)
        known = others & (families != "exposure")
        answers, ratings = (np.quantile(values[known], QUANTILES) for values in (words, rated))
        calibrated[held_out] = np.interp(words[held_out], [0, *answers, 100], [0, *ratings, 100])
        thirds = np.quantile(rated[others], (1 / 3, 2 / 3))
        right += (np.digitize(calibrated[held_out], thirds) == np.digitize(rated[held_out], thirds)).tolist()
    console.print(f"Calibrated by the other folds: its third of the ratings is right for {np.mean(right):.1%} of {len(right)} copies.")
    print_rungs(console, calibrated[whole], contents[whole], rungs[whole], rated[whole])


if __name__ == "__main__":
    main()
