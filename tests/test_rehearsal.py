"""The rehearsal of the paper's route: its first steps in every run of the tests, the whole of it with `-m slow`."""

import dataset_layouts as layouts
import pytest
from rehearsal import walk

LABELS = layouts.LABELS if layouts.LABELS.is_dir() else None


def test_the_route_begins_as_the_documents_say(tmp_path):
    """Parts, compose, data, features."""
    walk(tmp_path / "route", LABELS, last="features")


@pytest.mark.slow
def test_the_whole_route(tmp_path):
    walk(tmp_path / "route", LABELS)
