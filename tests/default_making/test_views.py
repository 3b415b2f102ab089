"""Photographs in other forms."""

import csv

import av
import numpy as np
import pytest
from dataset_layouts import biq2021
from PIL import Image

from lmmvqa.default_making.graded_copies import fresh_frames
from lmmvqa.default_making.views import make_views, split_of


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Photographs of noise, one of them too small to move."""
    root = biq2021(
        tmp_path_factory.mktemp("rated"),
        [("a", 0.3), ("b", 0.8), ("small", 0.5)],
        [("tested", 0.6)],
    )
    random = np.random.default_rng(0)
    for name, size in (("a", 301), ("b", 320), ("small", 100), ("tested", 300)):
        pixels = random.integers(0, 255, (size // 10, size // 10, 3), np.uint8)
        Image.fromarray(pixels).resize((size, size)).save(root / "Images" / f"{name}.jpg")
    return root


def test_a_view_has_the_rating_of_its_photograph(rated, tmp_path):
    ratings = make_views(rated, tmp_path, 3)
    with ratings.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["content"], row["mos"]) for row in rows} <= {("a", "30.000"), ("b", "80.000"), ("small", "50.000")}
    assert [row["split"] for row in rows] == [split_of(row["content"]) for row in rows]
    assert {row["content"] for row in rows if row["family"] == "pan"} == {"a", "b"}
    for row in rows:
        file, picture = tmp_path / row["video"], Image.open(rated / "Images" / f"{row['content']}.jpg")
        if row["family"] == "mirror":
            assert np.array_equal(np.asarray(Image.open(file))[:, ::-1], np.asarray(picture.convert("RGB")))
            continue
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            assert stream.frames == 50 and (stream.width == stream.height < 320 or row["family"] == "still")
        assert fresh_frames(file) == (100 if row["family"] == "pan" else 0)


def test_views_of_the_test_part_are_for_measuring(rated, tmp_path):
    ratings = make_views(rated, tmp_path, 5, split="test")
    with ratings.open(newline="") as file:
        assert {(row["content"], row["split"]) for row in csv.DictReader(file)} == {("tested", "test")}
