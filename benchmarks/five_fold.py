"""The default checkpoint, five-fold by content: `python benchmarks/five_fold.py LADDER [--feature-cache FOLDER]`.

For each fold of the ladder's contents, fresh projectors are warmed up on the other four as the recipe says, and the decoder of the checkpoint,
as it is, reads their tokens (it learned to read tokens, on contents of folds 2 to 4). Beside it what the tokens say in level words, ridge
regression and gradient boosting on the same features. The towers learned from folds 2 to 4, so these are figures of projectors, read-out and
regressions; folds 0 and 1 alone, which the towers never saw, are given by themselves. Prints SRCC with VMAF over all copies but calm views by
family, each fold's scores as they are, with the metric's 95 % interval over contents; and the five folds of the first method.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from default_checkpoint import assess, encode, fit_regressors, pooled
from frame_statistics import srcc_by_family
from rich.console import Console
from rich.table import Table
from transformers import set_seed

from lmmvqa.default_checkpoint import compose_default
from lmmvqa.evaluation.vqa_metric.vqa_metric import vqa_metrics
from lmmvqa.ladder import NUM_FOLDS
from lmmvqa.scoring import load_checkpoint
from lmmvqa.training.adapters import PROJECTORS
from lmmvqa.training.arguments import read_arguments
from lmmvqa.training.collators import AnswerCollator
from lmmvqa.training.encoding import fit_standardizers
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.tower_training import ladder_rows
from lmmvqa.training.training_data import TrainingData
from lmmvqa.training.warm_up import warm_up, word_direction, word_scores
from modeling_lmmvqa.feature_batches import stack_features

UNSEEN_BY_TOWERS = (0, 1)


def fresh_projectors(cache: FeatureCache, processor: Any, rows: list[dict[str, str]]) -> Any:
    """A model as the recipe composes it, with projectors warmed up on these rows."""
    recipe = read_arguments("default_checkpoint")
    set_seed(recipe.seed)
    model, _ = compose_default()
    collator = AnswerCollator(cache, processor)
    known = Dataset.from_list([{"features": cache.key(row["video"]), "score": float(row["mos"]), "id": row["video"]} for row in rows])
    fit_standardizers(model, collator, TrainingData(known, None, {}))
    warm_up(model, collator, known, recipe.warm_up_epochs, recipe.seed)
    return model.eval()


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
    model, processor = load_checkpoint()
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), model, processor)
    features = encode(cache, rows)
    x = np.stack([pooled(item) for item in features])
    scores: dict[str, np.ndarray] = {}
    for fold in range(NUM_FOLDS):
        known, held_out = folds != fold, np.flatnonzero((folds == fold) & whole)
        fresh = fresh_projectors(cache, processor, [row for row, used in zip(rows, known, strict=True) if used])
        for name in PROJECTORS:
            setattr(model.model, name, getattr(fresh.model, name))
        tested = [features[index] for index in held_out]
        with torch.no_grad():
            words = word_scores(model.model, stack_features(tested), word_direction(model, processor)).numpy()
        found = {"LMM-VQA": assess(model, processor, tested)["score"], "tokens in words": words}
        found |= {name: method.predict(x[held_out]) for name, method in fit_regressors(x[known], rated[known], contents[known]).items()}
        for name, values in found.items():
            scores.setdefault(name, np.full(len(rows), np.nan))[held_out] = values
        console.print(f"fold {fold}: " + ", ".join(f"{name} {srcc_by_family(v, rated[held_out], families[held_out], ())[0]:.3f}" for name, v in found.items()))
    for title, part in (("all folds", whole), ("folds 0 and 1", whole & np.isin(folds, UNSEEN_BY_TOWERS))):
        table = Table("family", "copies", *scores, "95 %", title=f"SRCC with VMAF, {title}")
        columns = [srcc_by_family(values[part], rated[part], families[part], dict.fromkeys(families)) for values in scores.values()]
        for name, *figures in zip(("all", *dict.fromkeys(families)), *columns, strict=True):
            shown = part & ((families == name) | (name == "all"))
            low, high = vqa_metrics(scores["LMM-VQA"][shown], rated[shown], groups=contents[shown])["intervals"].get("srcc", (np.nan, np.nan))
            table.add_row(name, str(shown.sum()), *(f"{figure:.3f}" for figure in figures), f"{low:.2f} to {high:.2f}")
        console.print(table)


if __name__ == "__main__":
    main()
