"""Which spatial tower tells distortions best: `python experiments/spatial_towers.py COPIES/ratings.csv --tower FOLDER
[--tower FOLDER ...]`.

Every tower sees the first key frame, whole, of the copies of one split (by default "validation", whose contents none of
the default checkpoint's towers learned from). Ridge regression on the means and deviations of its stem and stages,
ten-fold by content, the best of four strengths. Prints the SRCC with VMAF over the families that a single frame shows
but exposure, and by family.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel

from lmmvqa.default_making.rated_tiles import FAMILIES, tells_its_rating
from lmmvqa.default_making.spatial_training import SpatialTowerWithHead, first_key_frame
from lmmvqa.default_making.tower_training import copy_rows

STRENGTHS = (1e2, 1e3, 1e4, 1e5)


@torch.inference_mode()
def moments(tower: SpatialTowerWithHead, video: str) -> np.ndarray:
    return tower.moments(first_key_frame(video)[None])[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument(
        "--tower", action="append", required=True, help="as `lmmvqa train-tower` writes it; several side by side"
    )
    parser.add_argument("--split", default="validation")
    options = parser.parse_args()
    rows = [row for row in copy_rows(options.ratings) if row["split"] == options.split and tells_its_rating(row)]
    rated, contents, families = (np.array([row[name] for row in rows]) for name in ("mos", "content", "family"))
    rated = rated.astype(float)
    table = Table(
        "tower", "all", *FAMILIES, title=f"SRCC with VMAF over {len(rows)} copies of {len(set(contents))} contents"
    )
    for name in options.tower:
        tower = SpatialTowerWithHead(AutoModel.from_pretrained(name).float())
        features = np.stack([moments(tower, row["video"]) for row in track(rows, name, transient=True)])
        predictions = [
            cross_val_predict(
                make_pipeline(StandardScaler(), Ridge(strength)), features, rated, groups=contents, cv=GroupKFold(10)
            )
            for strength in STRENGTHS
        ]
        best = max(predictions, key=lambda predicted: spearmanr(predicted, rated).statistic)
        parts = [np.ones(len(rows), bool), *(families == family for family in FAMILIES)]
        table.add_row(name, *(f"{spearmanr(best[part], rated[part]).statistic:.3f}" for part in parts))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
