"""Videos that fail in an evaluation: tried again by the next run, and no other video is."""

import shutil

import pytest
import torch
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


def test_a_video_whose_numbers_overflow_fails_alone(tiny, tiny_inputs):
    model, _ = tiny
    names = ("pixel_values_videos", "temporal_values", "chunk_counts")
    spatial, temporal = model.model.encode_videos(*(tiny_inputs[name] for name in names))
    good, _ = ({"spatial_features": one, "temporal_features": two} for one, two in zip(spatial, temporal, strict=True))
    broken = {name: torch.full_like(part, torch.inf) for name, part in good.items()}
    first, second = LmmVqa(*tiny)._assess([good, broken])
    assert 0 <= first["predicted"] <= 100 and set(second) == {"error"} and "not finite" in second["error"]
