"""What the statistics of a key frame add to the towers: `python experiments/frame_statistics.py COPIES [--feature-cache
FOLDER]`.

Support-vector regression on the features of the default checkpoint (means and deviations over seconds and places),
fitted on the training contents, its kernel chosen by cross-validation over these; with all features, without the frame
statistics, with their part on brightness or on detail alone, and on them alone. Prints SRCC with VMAF by family on the
validation contents.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from default_checkpoint import encode
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.svm import SVR

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.default_making.tower_training import copy_rows
from lmmvqa.training.feature_cache import FeatureCache
from modeling_lmmvqa.frame_statistics import BRIGHTNESS_QUANTILES, NUM_FRAME_STATISTICS

SETTINGS = {"C": [100], "gamma": [0.3, 0.6]}


def blocks(features: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What the towers say of a video, and what the frame statistics say of its brightness and of its detail."""
    spatial, temporal = (features[name].flatten(0, -2) for name in ("spatial_features", "temporal_features"))
    statistics, spatial = spatial[:, -NUM_FRAME_STATISTICS:].mean(0), spatial[:, :-NUM_FRAME_STATISTICS]
    towers = torch.cat(
        [part for stream in (spatial, temporal) for part in (stream.mean(0), stream.std(0, correction=0))]
    )
    number = len(BRIGHTNESS_QUANTILES)
    return {"towers": towers.numpy(), "brightness": statistics[:number].numpy(), "detail": statistics[number:].numpy()}


def read_features(description: str) -> tuple[list[dict[str, str]], dict[str, np.ndarray]]:
    """Of the copies that the command line names: the rows that are not tested on, and their `blocks`, stacked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--feature-cache", type=Path)
    options = parser.parse_args()
    rows = [row for row in copy_rows(options.copies / "ratings.csv") if row["split"] != "test"]
    cache = FeatureCache(options.feature_cache or tempfile.mkdtemp(), *load_checkpoint())
    found = [blocks(features) for features in encode(cache, rows)]
    return rows, {name: np.stack([item[name] for item in found]) for name in found[0]}


def standardized(block: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """By the copies that are fitted on. Every block weighs the same, whatever the number of its channels."""
    return (block - block[fitted].mean(0)) / np.maximum(block[fitted].std(0), 1e-6) / np.sqrt(block.shape[1])


def srcc_by_family(predicted: np.ndarray, rated: np.ndarray, families: np.ndarray, shown: Iterable[str]) -> list[float]:
    """Over all copies, then over those of each family that is shown."""
    parts = [np.ones(len(rated), bool), *(families == family for family in shown)]
    return [spearmanr(predicted[part], rated[part]).statistic for part in parts]


def main() -> None:
    rows, found = read_features(__doc__)
    rated, contents, families, splits = (
        np.array([row[name] for row in rows]) for name in ("mos", "content", "family", "split")
    )
    rated, train = rated.astype(float), splits == "train"
    known = {name: standardized(block, train) for name, block in found.items()}
    table = Table("features", "all", *dict.fromkeys(families), title=f"SRCC with VMAF over {(~train).sum()} copies")
    for names in (
        ("towers",),
        ("towers", "brightness"),
        ("towers", "detail"),
        ("towers", "brightness", "detail"),
        ("brightness", "detail"),
    ):
        features = np.concatenate([known[name] for name in names], axis=1)
        search = GridSearchCV(
            SVR(epsilon=3),
            SETTINGS,
            scoring=lambda model, x, y: spearmanr(model.predict(x), y).statistic,
            cv=GroupKFold(3),
        )
        predicted = search.fit(features[train], rated[train], groups=contents[train]).predict(features[~train])
        figures = srcc_by_family(predicted, rated[~train], families[~train], dict.fromkeys(families))
        table.add_row(
            f"{', '.join(names)} (C {search.best_params_['C']}, gamma {search.best_params_['gamma']})",
            *(f"{figure:.3f}" for figure in figures),
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
