"""The published numbers, from the real label files; those may not be published, so they lie beside the repository."""

from __future__ import annotations

import dataset_layouts as layouts
import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset

import dataset_builders
from processing.quality_prompts import LEVELS
from processing.questions import parse_score

pytestmark = pytest.mark.skipif(not layouts.LABELS.is_dir(), reason=f"real ratings are not in {layouts.LABELS}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    dataset_builders.register()
    (tmp_path / "set").mkdir()


@pytest.mark.parametrize(
    ("name", "lay_out", "labels", "rows"),
    [
        ("konvid_1k", layouts.konvid, "konvid_1k/KoNViD_1k_mos.csv", 1200),
        ("youtube_ugc", layouts.youtube_ugc, "youtube_ugc/metadata.csv", 1380),
        ("youtube_ugc", layouts.youtube_ugc, "youtube_ugc/labels.txt", 1147),
        ("live_vqc", layouts.live_vqc, "live_vqc/metadata.csv", 585),
        ("live_yt_gaming", layouts.live_yt_gaming, "live_yt_gaming/LIVEYTGaming.mat", 600),
    ],
)
def test_the_small_sets_give_the_published_rows_and_folds(tmp_path, name, lay_out, labels, rows):
    ratings = layouts.real_ratings(labels)
    root = lay_out(tmp_path / "set", ratings)
    assert len(load_dataset(name, "score", data_dir=str(root), strict=True)["train"]) == rows
    both = load_dataset(name, "score_and_level", data_dir=str(root), strict=True)["train"].to_pandas()
    assert len(both) == 2 * rows
    scores = both[both.task == "score"]
    assert scores.id.tolist() == [video for video, _ in ratings]
    assert scores.mos.tolist() == pytest.approx([mos for _, mos in ratings])
    assert (scores.answer.map(parse_score) - scores.score).abs().max() <= 0.5
    shuffled = np.array_split(pd.DataFrame({"id": scores.id}).sample(frac=1, random_state=1).id.to_numpy(), 5)
    assert [set(scores.id[scores.fold == fold]) for fold in range(5)] == [set(part) for part in shuffled]
    # Ties of the two ratings at the thresholds are all that may part the thirds.
    counts, ties = scores.level.value_counts(), scores.mos.value_counts()
    assert counts.max() - counts.min() <= 2 * ties.max()


def test_ids_are_the_names_of_the_sets(tmp_path):
    root = layouts.live_yt_gaming(tmp_path / "set", layouts.real_ratings("live_yt_gaming/LIVEYTGaming.mat"))
    assert load_dataset("live_yt_gaming", "score", data_dir=str(root))["train"]["id"][0] == "ARKSuvivalEvolved-001"


@pytest.mark.parametrize(
    ("name", "lay_out", "labels", "counts"),
    [
        ("konvid_1k", layouts.konvid, "konvid_1k/KoNViD_1k_mos.csv", (396, 405, 399)),
        ("live_vqc", layouts.live_vqc, "live_vqc/metadata.csv", (193, 193, 199)),
        ("live_yt_gaming", layouts.live_yt_gaming, "live_yt_gaming/LIVEYTGaming.mat", (198, 198, 204)),
    ],
)
def test_author_levels_have_the_published_counts(tmp_path, name, lay_out, labels, counts):
    root = lay_out(tmp_path / "set", layouts.real_ratings(labels))
    levels = load_dataset(name, "level", data_dir=str(root), levels="authors")["train"].to_pandas().level.value_counts()
    assert tuple(levels[level] for level in LEVELS) == counts


def test_lsvq_gives_the_published_rows(tmp_path):
    train, test, test_1080p = (
        layouts.real_ratings(f"lsvq/{name}_labels.txt") for name in ("train", "test", "test_1080p")
    )
    root = layouts.lsvq(tmp_path / "set", train, test, test_1080p)
    data = load_dataset("lsvq", "score_and_level", data_dir=str(root), strict=True)
    rows = {name: len(split) for name, split in data.items()}
    assert rows["train"] + rows["validation"] == 2 * 28056
    assert rows["validation"] == 2 * 2806
    assert (rows["test"], rows["test_1080p"]) == (2 * 7186, 2 * 3573)
    ids = [set(split["id"]) for split in data.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 28056 + 7186 + 3573
    levels = data["train"].to_pandas().drop_duplicates("id").level.value_counts()
    assert levels.max() - levels.min() < 250  # ties: the commonest rating is shared by that many videos at most
    assert data["test"][0]["id"] == "yfcc-batch1/747"


@pytest.mark.parametrize(
    ("labels", "split", "counts"),
    [
        ("official_columns_test.csv", "test", (2383, 2392, 2445)),
        ("official_columns_test_1080p.csv", "test_1080p", (496, 835, 2230)),
    ],
)
def test_lsvq_files_with_the_official_columns_give_the_author_levels(tmp_path, labels, split, counts):
    root = tmp_path / "set"
    own = layouts.real_ratings("lsvq/train_labels.txt")[:10]
    layouts.lsvq(root, own, [("ia-batch1/t", 1.0)], [("ia-batch1/u", 1.0)])
    official = layouts.LABELS / "lsvq" / labels
    target = {"test": "labels_train_test.csv", "test_1080p": "labels_test_1080p.csv"}[split]
    (root / target).write_bytes(official.read_bytes())
    layouts.touch(root, [f"{name}.mp4" for name in pd.read_csv(official).name])
    levels = load_dataset("lsvq", "level", data_dir=str(root), levels="authors")[split].to_pandas().level.value_counts()
    assert tuple(levels[level] for level in LEVELS) == counts
