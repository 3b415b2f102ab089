"""Videos that fail in an evaluation: tried again by the next run, and no other video is."""

import shutil

import pytest
from inputs import DATA

from dataset_builders.set_specs import SetSpec
from lmmvqa.evaluation.methods import LmmVqa
from lmmvqa.evaluation.protocols import COLUMNS, PREDICTIONS, predict
from lmmvqa.evaluation.rated_sets import read_set
from lmmvqa.scoring.result_files import stored_rows


def test_failed_videos_are_tried_again(tiny, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(DATA / "flower.mp4", videos / "good.mp4")
    (videos / "late.mp4").write_bytes(b"half")
    (videos / "ratings.csv").write_text("video,mos\ngood.mp4,80\nlate.mp4,20\n")
    rows = read_set(SetSpec.parse(f"rated_videos={videos}"))
    predict(lambda: LmmVqa(*tiny), rows, tmp_path)
    before = {row["id"]: row for row in stored_rows(tmp_path / PREDICTIONS, COLUMNS)}
    assert before["late"]["error"] and before["late"]["predicted"] is None and before["good"]["error"] is None
    shutil.copy(DATA / "toy_monster.mp4", videos / "late.mp4")
    predict(lambda: LmmVqa(*tiny), rows, tmp_path)
    after = {row["id"]: row for row in stored_rows(tmp_path / PREDICTIONS, COLUMNS)}
    assert after["good"] == before["good"] and after["late"]["predicted"] is not None and len(after) == 2
    # Nothing is left: the method is not made.
    predict(lambda: pytest.fail("was made"), rows, tmp_path)
