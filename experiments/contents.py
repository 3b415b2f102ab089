"""What more contents bring, more copies of them, and views of their calmest part: `python experiments/contents.py
COPIES [--feature-cache FOLDER]`.

Support-vector regression on the features of the default checkpoint, fitted on a part of the training and validation
contents (or on a part of the copies of 160 of them) and tested on 40 others (never on a calm view); mean over six
draws. Prints SRCC with VMAF over all copies of the contents held out, and over those of two families.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from frame_statistics import read_features, srcc_by_family, standardized
from rich.console import Console
from rich.table import Table
from sklearn.svm import SVR

HELD_OUT, FITTED, DRAWS = 40, 160, 6
FAMILIES = ("codec", "spatial")


def draws(contents: np.ndarray, calm: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What is fitted on, as a label and a mask over the copies, and the mask of what is held out."""
    random = np.random.default_rng(0)
    for _ in range(DRAWS):
        names = random.permutation(np.unique(contents))
        held_out, fitted = np.isin(contents, names[:HELD_OUT]) & ~calm, names[HELD_OUT : HELD_OUT + FITTED]
        for number in range(HELD_OUT, FITTED + 1, 40):
            yield f"{number} contents", np.isin(contents, fitted[:number]) & ~calm, held_out
        yield f"{FITTED} contents and their calm views", np.isin(contents, fitted), held_out
        for share in (0.25, 0.5, 0.75):
            yield (
                f"{share:.0%} of the copies of {FITTED}",
                np.isin(contents, fitted) & ~calm & (random.random(len(contents)) < share),
                held_out,
            )


def main() -> None:
    rows, blocks = read_features(__doc__)
    rated, contents, families = (np.array([row[name] for row in rows]) for name in ("mos", "content", "family"))
    # A calm view lies in a folder of its own.
    rated, calm = rated.astype(float), np.array([Path(row["video"]).parent.name != row["content"] for row in rows])
    figures: dict[str, list[list[float]]] = {}
    for label, fitted, held_out in draws(contents, calm):
        features = np.concatenate([standardized(block, fitted) for block in blocks.values()], axis=1)
        predicted = SVR(C=100, gamma=0.3, epsilon=3).fit(features[fitted], rated[fitted]).predict(features[held_out])
        figures.setdefault(label, []).append(srcc_by_family(predicted, rated[held_out], families[held_out], FAMILIES))
    table = Table(
        "fitted on", "all", *FAMILIES, title=f"SRCC with VMAF over {HELD_OUT} contents, mean of {DRAWS} draws"
    )
    for label, drawn in figures.items():
        table.add_row(label, *(f"{figure:.3f}" for figure in np.mean(drawn, axis=0)))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
