"""What of a key frame keeps the distortion: `python experiments/spatial_path.py COPIES/ratings.csv [--tower FOLDER]`.

Every way of showing one key frame of a copy to the spatial tower, and every choice of its stages, is judged by ridge
regression on the rating, five-fold by content, over the families that a single frame shows. Prints SRCC with VMAF (the
mean over the folds) and the time of the tower relative to the paper's way.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional
from transformers import AutoModel

from lmmvqa.checkpoints.parts import fetch
from lmmvqa.default_making.rated_tiles import tells_its_rating
from lmmvqa.default_making.spatial_training import DISTORTION_RESNET, first_key_frame, load_distortion_resnet
from lmmvqa.default_making.tower_training import copy_rows

FAMILIES = ("codec", "spatial", "pair")
FRAGMENT, GRID = 32, 7


def squeezed(frame: torch.Tensor) -> torch.Tensor:
    """The paper's way: the whole frame at 224 x 224."""
    return functional.interpolate(frame, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)


def fragments(frame: torch.Tensor) -> torch.Tensor:
    """A 7 x 7 grid of 32-pixel patches at native resolution, joined to 224 x 224 (after FAST-VQA)."""
    height, width = frame.shape[2:]
    rows = np.linspace(0, height - FRAGMENT, GRID).astype(int)
    columns = np.linspace(0, width - FRAGMENT, GRID).astype(int)
    return torch.cat(
        [torch.cat([frame[:, :, y : y + FRAGMENT, x : x + FRAGMENT] for x in columns], 3) for y in rows], 2
    )


def crop(frame: torch.Tensor) -> torch.Tensor:
    """The middle 224 x 224 at native resolution."""
    top, left = ((side - 224) // 2 for side in frame.shape[2:])
    return frame[:, :, top : top + 224, left : left + 224]


VIEWS = {
    "whole, squeezed to 224 x 224": squeezed,
    "7 x 7 fragments of 32": fragments,
    "middle crop of 224 x 224": crop,
    "whole, 640 x 360": lambda frame: frame,
}


@torch.inference_mode()
def moments(tower: torch.nn.Module, frame: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation of every channel of the stem and of each stage."""
    states = tower(frame, output_hidden_states=True).hidden_states
    return [(state.mean((2, 3))[0].numpy(), state.std((2, 3))[0].numpy()) for state in states]


def cross_validated(features: np.ndarray, ratings: np.ndarray, folds: np.ndarray) -> float:
    correlations = []
    for fold in np.unique(folds):
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(1, 5, 9)))
        model.fit(features[folds != fold], ratings[folds != fold])
        correlations.append(spearmanr(model.predict(features[folds == fold]), ratings[folds == fold]).statistic)
    return float(np.mean(correlations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--tower", help="another ResNet tower, as `lmmvqa train-tower` writes it")
    options = parser.parse_args()
    tower = (
        AutoModel.from_pretrained(options.tower).float().eval()
        if options.tower
        else load_distortion_resnet(fetch(DISTORTION_RESNET))
    )
    copies = [row for row in copy_rows(options.ratings) if row["family"] in FAMILIES and tells_its_rating(row)]
    ratings, folds = (np.array([float(row[name]) for row in copies]) for name in ("mos", "fold"))
    found = {view: [] for view in VIEWS}
    seconds = dict.fromkeys(VIEWS, 0.0)
    for copy in track(copies, "Encoding"):
        frame = first_key_frame(copy["video"])[None]
        for name, view in VIEWS.items():
            start = time.perf_counter()
            found[name].append(moments(tower, view(frame)))
            seconds[name] += time.perf_counter() - start
    table = Table(
        "view",
        "last stage",
        "all stages",
        "all stages, means and deviations",
        "time",
        title=f"SRCC with VMAF over {len(copies)} copies",
    )
    reference = next(iter(seconds.values()))
    for name, rows in found.items():
        last = np.array([row[-1][0] for row in rows])
        means = np.array([np.concatenate([mean for mean, _ in row]) for row in rows])
        both = np.array([np.concatenate([part for pair in row for part in pair]) for row in rows])
        figures = [f"{cross_validated(features, ratings, folds):.3f}" for features in (last, means, both)]
        table.add_row(name, *figures, f"{seconds[name] / reference:.1f} x")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
