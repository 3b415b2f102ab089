"""What tuning brings on a kind of picture that the base has not seen: `python benchmarks/unseen_part.py RATED
[--feature-cache FOLDER] [--parts ss02 ss01] [--counts 100 300] [--draws 3]`.

A part of BIQ2021 is left out of the base: fresh projectors learn from the other parts of the train part, without the
decoder (`warm_up`). Then they go on from some of the part's own train photographs, half of each batch from those of the
base, and are tested on all others of the part that are not of the test split, and on the validation tenth of the other
parts. Prints SRCC before and after and the seconds that tuning took. Features that are not in the cache are encoded.
"""

import argparse
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from transformers import set_seed

from dataset_builders import register
from lmmvqa.checkpoints.assembling import compose_default
from lmmvqa.default_making.views import split_of
from lmmvqa.training.collators import AnswerCollator
from lmmvqa.training.encoding import fit_standardizers
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.training_data import TrainingData
from lmmvqa.training.warm_up import warm_up, word_direction, word_scores
from modeling_lmmvqa.feature_batches import stack_features

BASE_EPOCHS, TUNING_EPOCHS, DROPOUT = 12, 6, 0.1


def read(rated: str, cache: FeatureCache, at_hand: bool) -> list[dict[str, Any]]:
    """The photographs of the train part: part, id, score and the name of their features."""
    rows = list(datasets.load_dataset("biq2021", "score", data_dir=rated, split="train"))
    videos = [row["video"]["path"] for row in rows]
    keys = cache.keys(videos, 2)
    missing = set(cache.missing(keys))
    if not at_hand:
        for _, error in cache.fill([(key, video) for key, video in zip(keys, videos, strict=True) if key in missing]):
            if error:
                raise ValueError(error)
        missing = set()
    return [
        {"part": row["id"][:4], "id": row["id"], "score": row["score"], "features": key}
        for row, key in zip(rows, keys, strict=True)
        if key not in missing
    ]


@torch.no_grad()
def srcc(model: Any, processor: Any, cache: FeatureCache, rows: list[dict[str, Any]]) -> float:
    """Of what the tokens say, with people's ratings."""
    model.eval()
    direction, scores = word_direction(model, processor), []
    for start in range(0, len(rows), 64):
        batch = stack_features([cache.load(row["features"]) for row in rows[start : start + 64]])
        scores += word_scores(model.model, batch, direction).tolist()
    return float(spearmanr(scores, [row["score"] for row in rows]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rated")
    parser.add_argument("--feature-cache", type=Path)
    parser.add_argument("--at-hand", action="store_true", help="only photographs whose features are in the cache")
    parser.add_argument("--parts", nargs="+", default=["ss02", "ss01"])
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    register()
    fresh, processor = compose_default()
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), fresh, processor)
    collator = AnswerCollator(cache, processor)
    rows = read(options.rated, cache, options.at_hand)
    table = Table(
        "part", "tuned on", "draw", "SRCC on its rest: base", "tuned", "on the other parts: base", "tuned", "seconds"
    )
    for part in options.parts:
        others = [row for row in rows if row["part"] != part]
        learned = [row for row in others if split_of(row["id"]) == "train"]
        held_out = [row for row in others if split_of(row["id"]) == "validation"]
        own = [row for row in rows if row["part"] == part]
        set_seed(0)
        base = deepcopy(fresh)
        fit_standardizers(base, collator, TrainingData(Dataset.from_list(learned), None, {}))
        warm_up(base, collator, Dataset.from_list(learned), BASE_EPOCHS, dropout=DROPOUT)
        elsewhere = srcc(base, processor, cache, held_out)
        for count in options.counts:
            for draw in range(options.draws):
                random = np.random.default_rng(draw)
                shuffled = [own[place] for place in random.permutation(len(own))]
                tuning, rest = shuffled[:count], shuffled[count:]
                beside = [learned[place] for place in random.permutation(len(learned))[:count]]
                model = deepcopy(base)
                start = time.perf_counter()
                warm_up(model, collator, Dataset.from_list(tuning + beside), TUNING_EPOCHS, dropout=DROPOUT, seed=draw)
                seconds = time.perf_counter() - start
                table.add_row(
                    part,
                    str(count),
                    str(draw),
                    f"{srcc(base, processor, cache, rest):.3f}",
                    f"{srcc(model, processor, cache, rest):.3f}",
                    f"{elsewhere:.3f}",
                    f"{srcc(model, processor, cache, held_out):.3f}",
                    f"{seconds:.0f}",
                )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
