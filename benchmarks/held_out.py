"""How well a checkpoint predicts VMAF on the contents of a ladder that training never saw, by family of distortion.

`python benchmarks/held_out.py LADDER/ratings.csv [--model M]` scores the copies of the split "test" and prints SRCC, PLCC, level
accuracy (thirds of the split "train") and how many ratings the stated 90 % interval holds; intervals of the SRCC are 95 %, by
bootstrap over contents.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

from lmmvqa.scoring import load_checkpoint, score_videos


def srcc_interval(scores: np.ndarray, ratings: np.ndarray, contents: np.ndarray) -> tuple[float, float]:
    """95 % interval of the SRCC: whole contents are drawn, because copies of one content are no independent samples."""
    random = np.random.default_rng(0)
    names = np.unique(contents)
    members = {name: np.flatnonzero(contents == name) for name in names}
    drawn = []
    for _ in range(1000):
        rows = np.concatenate([members[name] for name in random.choice(names, len(names))])
        drawn.append(spearmanr(scores[rows], ratings[rows]).statistic)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    arguments = parser.parse_args()

    with arguments.ratings.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    test = [row for row in rows if row["split"] == "test"]
    model, processor = load_checkpoint(arguments.model)
    paths = [str(arguments.ratings.parent / row["video"]) for row in test]
    results = list(score_videos(paths, model, processor))
    if failed := [result.error for result in results if result.error is not None]:
        raise SystemExit("\n".join(failed))

    ratings, scores = np.array([float(row["mos"]) for row in test]), np.array([result.score for result in results])
    contents, families = np.array([row["content"] for row in test]), np.array([row["family"] for row in test])
    kinds = np.array([row["kind"] for row in test])
    thresholds = np.quantile([float(row["mos"]) for row in rows if row["split"] == "train"], [1 / 3, 2 / 3])
    levels = np.array([processor.levels[int((rating > thresholds).sum())] for rating in ratings])
    right = levels == [result.level for result in results]
    held = np.array([low <= rating <= high for rating, (low, high) in zip(ratings, (r.interval for r in results), strict=True)])

    print(f"{len(test)} copies of {len(np.unique(contents))} contents not seen")
    print(f"{'part':<14}{'n':>5}{'SRCC':>8}{'95 %':>16}{'PLCC':>8}{'level':>8}{'in 90 %':>9}")
    parts = [("all", np.ones(len(test), dtype=bool))]
    parts += [(family, families == family) for family in dict.fromkeys(families)]
    parts += [(kind, kinds == kind) for kind in dict.fromkeys(kinds)]
    for name, part in parts:
        srcc, plcc = spearmanr(scores[part], ratings[part]).statistic, pearsonr(scores[part], ratings[part]).statistic
        low, high = srcc_interval(scores[part], ratings[part], contents[part])
        print(
            f"{name:<14}{part.sum():>5}{srcc:>8.3f}{f'{low:.3f} to {high:.3f}':>16}{plcc:>8.3f}{right[part].mean():>8.2f}"
            f"{held[part].mean():>9.2f}"
        )
    rungs = np.array([row["rung"] for row in test])
    for rung in ("near_lossless", "x264_extreme"):
        print(f"median score of {rung}: {np.median(scores[rungs == rung]):.1f} (VMAF {np.median(ratings[rungs == rung]):.1f})")


if __name__ == "__main__":
    main()
