"""What the rows of a table are called."""

import pytest

from lmmvqa.evaluation.protocols import tables


@pytest.mark.parametrize(
    ("protocol", "splits", "expected"),
    [
        ("levels", ["train"], ["all"]),
        ("levels", ["test", "test_1080p"], ["test", "test_1080p"]),
        ("in-sample", ["test"], ["test"]),
        ("ood", ["train", "test"], ["all"]),
    ],
)
def test_a_table_of_videos_that_none_trained_on_does_not_call_them_train(protocol, splits, expected):
    rows = [
        {"set": "konvid_1k", "split": split, "fold": 0, "mos": 10.0 * place, "score": 10.0 * place, "level": "fair"}
        | {"predicted": 10.0 * place, "predicted_level": "fair", "family": None, "kind": None}
        for split in splits
        for place in range(4)
    ]
    found = tables({"protocol": protocol}, rows, resamples=0)
    assert [row["split"] for row in found] == expected
