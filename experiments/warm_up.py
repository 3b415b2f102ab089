"""What the projectors of the default checkpoint know before the decoder reads them: `python experiments/warm_up.py
COPIES [--feature-cache FOLDER] [--epochs 0 1 10 30]`.

Fresh projectors, warmed up on the training contents without a pass through the decoder. Prints how long that took, and
by family the SRCC with VMAF on the validation contents of the score that their tokens say in level words.
"""

import argparse
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from default_checkpoint import encode
from frame_statistics import srcc_by_family
from rich.console import Console
from rich.table import Table
from transformers import set_seed

from lmmvqa.checkpoints.assembling import compose_default
from lmmvqa.default_making.tower_training import copy_rows
from lmmvqa.training.collators import AnswerCollator
from lmmvqa.training.encoding import fit_standardizers
from lmmvqa.training.feature_cache import FeatureCache
from lmmvqa.training.training_data import TrainingData
from lmmvqa.training.warm_up import warm_up, word_direction, word_scores
from modeling_lmmvqa.feature_batches import stack_features


def rated_features(cache: FeatureCache, rows: list[dict[str, str]]) -> Dataset:
    """Rows of graded copies as `warm_up` learns from them."""
    return Dataset.from_list(
        [{"features": cache.key(row["video"]), "score": float(row["mos"]), "id": row["video"]} for row in rows]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--feature-cache", type=Path)
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 10, 30])
    options = parser.parse_args()
    rows = copy_rows(options.copies / "ratings.csv")
    train, validation = ([row for row in rows if row["split"] == split] for split in ("train", "validation"))
    rated, families = (
        np.array([float(row["mos"]) for row in validation]),
        np.array([row["family"] for row in validation]),
    )
    set_seed(0)
    fresh, processor = compose_default()
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), fresh, processor)
    collator = AnswerCollator(cache, processor)
    videos = encode(cache, validation)
    encode(cache, train)
    known = rated_features(cache, train)
    fit_standardizers(fresh, collator, TrainingData(known, None, {}))
    table = Table(
        "epochs", "seconds", "all", *dict.fromkeys(families), title=f"SRCC with VMAF over {len(validation)} copies"
    )
    for epochs in options.epochs:
        model = deepcopy(fresh)
        start = time.perf_counter()
        if epochs:
            # Each number of epochs with the same dropout.
            with torch.random.fork_rng():
                warm_up(model, collator, known, epochs)
        seconds = time.perf_counter() - start
        model.eval()
        with torch.no_grad():
            scores = word_scores(model.model, stack_features(videos), word_direction(model, processor)).numpy()
        figures = srcc_by_family(scores, rated, families, dict.fromkeys(families))
        table.add_row(str(epochs), f"{seconds:.0f}", *(f"{figure:.3f}" for figure in figures))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
