"""Graded copies, their sources, and the towers that learn from it: on one real clip and a picture made of
it."""

import csv
import json
from collections import Counter
from pathlib import Path

import av
import pytest
import torch
from inputs import DATA
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.default_making import tower_training
from lmmvqa.default_making.graded_copies import (
    BY_NAME,
    COLUMNS,
    DISTORTIONS,
    DRAWN,
    KEPT,
    MAX_PIXELS,
    SIZES,
    Content,
    _distortions,
    fresh_frames,
    make_graded_copies,
)
from lmmvqa.default_making.sources import Source, collect_sources, read_sources
from lmmvqa.default_making.temporal_training import (
    MOTIONS,
    SMALL_TOWER,
    ChunkDataset,
    read_chunks,
    train_temporal_tower,
)
from lmmvqa.default_making.tower_training import split_by_fold
from lmmvqa.training.trainer import last_checkpoint
from modeling_lmmvqa import LmmVqaTemporalModel
from processing.quality_prompts import FLAW


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A clip, and a photograph: a frame of another clip, enlarged to the size of one."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "flower.mp4").write_bytes((DATA / "flower.mp4").read_bytes())
    with av.open(str(DATA / "toy_monster.mp4")) as container:
        next(container.decode(video=0)).reformat(width=1920, height=1080).to_image().save(folder / "monster.png")
    return folder


@pytest.fixture(scope="module")
def ratings(sources, tmp_path_factory):
    return make_graded_copies([sources], tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="module")
def rows(ratings):
    with ratings.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_content_gets_its_share_of_distortions(rows):
    assert tuple(rows[0]) == COLUMNS
    groups = {distortion.name: distortion.group for distortion in DISTORTIONS}
    for content, kind in (("flower", "video"), ("monster", "photograph")):
        own = [row for row in rows if row["content"] == content]
        assert {row["kind"] for row in own} == {kind}
        assert len({row["video"] for row in own}) == len(own)
        assert len(own) == KEPT[kind] and own[0]["distortion"] == "near_lossless"
        drawn = Counter(groups[row["distortion"]] for row in own)
        assert all(drawn[group] <= count for group, count in DRAWN.items())
        assert len({(row["split"], row["fold"]) for row in own}) == 1


def test_every_copy_says_its_flaw(rows):
    """In words of the question, of two faults the stronger one first."""
    for distortion in DISTORTIONS:
        low, high = distortion.span
        assert set(FLAW.words(distortion.flaw(low))) == set(FLAW.words(distortion.flaw(high))) == set(distortion.flaws)
    assert [BY_NAME["noise_x264"].flaw(crf) for crf in (27, 39)] == ["noise;compression", "compression;noise"]
    assert {row["flaw"] for row in rows if row["distortion"] == "near_lossless"} == {"none"}
    assert {row["flaw"] for row in rows if row["family"] == "flicker"} <= {"flicker"}
    assert {word for distortion in DISTORTIONS for word in distortion.flaws} == set(FLAW.answers)


def test_copies_have_the_shape_of_their_source(tmp_path):
    shapes = {}
    for number, size in enumerate([(512, 512), (400, 700), (4000, 3000)] * 12):
        path = tmp_path / f"{number}.png"
        Image.new("L", size).save(path)
        content = Content(path)
        width, height = content.size
        assert width % 2 == height % 2 == 0 and width <= size[0] and height <= size[1]
        assert (width, height) in SIZES or width * height <= 1.01 * MAX_PIXELS
        if content.still or content.size not in SIZES:
            assert width / height == pytest.approx(size[0] / size[1], rel=0.2)
        shapes.setdefault((size, content.still), set()).add(content.size)
    assert shapes[(512, 512), True] == {(506, 506)} and shapes[(512, 512), False] == {(414, 414)}
    assert shapes[(4000, 3000), False] <= set(SIZES) and len(shapes[(4000, 3000), False]) > 1


def test_a_still_has_no_fault_of_motion(tmp_path):
    for number in range(30):
        Image.new("L", (128, 128)).save(tmp_path / f"{number}.png")
    contents = [Content(path) for path in tmp_path.iterdir()]
    families = {
        still: {each.family for content in contents if content.still == still for each in _distortions(content)}
        for still in (True, False)
    }
    assert families[False] - families[True] == {"temporal"}


def test_ratings_follow_the_distortion(rows):
    vmaf = [float(row["mos"]) for row in rows if row["content"] == "flower" and row["family"] == "codec"]
    pristine, *coded = vmaf
    assert len(coded) == 3 and pristine > 90 > max(coded) and min(coded) < 75
    for row in rows:
        assert (row["second_rating_kind"] != "") == (row["second_rating"] != "")
        if row["distortion"].startswith("stutter"):
            assert row["distortion"] == "stutter_x264" or float(row["second_rating"]) < 60


def test_copies_move_as_their_distortion_says(rows, ratings):
    for row in rows:
        fresh = fresh_frames(ratings.parent / row["video"])
        if row["distortion"] == "near_lossless":
            assert fresh > 95
        elif row["distortion"] in ("drop", "freeze"):
            assert fresh < 95
        elif row["distortion"] in ("stutter_light", "stutter_strong"):
            assert fresh == pytest.approx(100 / float(row["severity"]), abs=8)


def test_the_making_of_copies_goes_on_where_it_stopped(rows, ratings, sources):
    copy = ratings.parent / rows[0]["video"]
    stamp, before = copy.stat().st_mtime_ns, ratings.read_text()
    lost = ratings.parent / rows[1]["video"]
    lost.with_suffix(".json").unlink()
    assert make_graded_copies([sources], ratings.parent).read_text() == before
    assert (
        copy.stat().st_mtime_ns == stamp
        and json.loads(lost.with_suffix(".json").read_text())["distortion"] == rows[1]["distortion"]
    )


def test_a_broken_source_costs_no_other(sources, ratings, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((DATA / "flower.mp4").read_bytes()[:2000])
    with pytest.raises(RuntimeError, match=r"1 of 3 contents failed.*\n.*broken\.mp4"):
        make_graded_copies([sources, broken], ratings.parent)
    with ratings.open(newline="") as file:
        assert {row["content"] for row in csv.DictReader(file)} == {"flower", "monster"}
    with pytest.raises(FileNotFoundError, match="No video or photograph"):
        make_graded_copies([tmp_path / "empty"], tmp_path / "nothing")


def test_sources_are_taken_by_their_hash(tmp_path):
    listed = read_sources()
    assert len(listed) >= 120 and len({source.name for source in listed}) == len(listed)
    assert (
        sum(source.kind == "video" for source in listed) >= 30
        and sum(source.kind == "photograph" for source in listed) >= 60
    )
    flower = next(source for source in listed if source.name == "flower")
    absent = Source("absent", "video", "repository", "somewhere", "", "absent.mp4", "0" * 64, "CC0")
    assert collect_sources(tmp_path, DATA, [flower, absent]) == [absent]
    assert [path.name for path in tmp_path.iterdir()] == ["flower.mp4"]


def test_a_tower_is_refused_without_contents_to_test_it_on(ratings):
    copies = read_chunks(ratings, SMALL_TOWER)
    there = sorted({copy.fold for copy in copies})
    missing = next(fold for fold in range(5) if fold not in there)
    with pytest.raises(
        ValueError,
        match=f"fold {missing}; there are copies of folds {', '.join(map(str, there))}: .*--held-out-fold",
    ):
        split_by_fold(copies, [missing])
    with pytest.raises(ValueError, match="--held-out-fold"):
        split_by_fold(copies, range(5))


class Interrupted:
    """Some items, of which so many can be had before the training that asks for them is stopped."""

    def __init__(self, items, count: int):
        self.items, self.left = items, count

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.items[index]


def assert_goes_on(train, interrupted, whole, finished: Path, monkeypatch):
    """A training that is stopped goes on from a checkpoint, to the weights that are in `finished`."""
    monkeypatch.setattr(tower_training, "SAVE_STEPS", 1)
    output = finished.with_name("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, output)
    assert last_checkpoint(output / "run") is not None
    train(whole, output)
    assert not (output / "run").exists()
    logs = [json.loads((folder / "trainer_state.json").read_text()) for folder in (output, finished)]
    assert logs[0]["global_step"] == logs[1]["global_step"] and all(
        log["log_history"][-1]["train_loss"] > 0 for log in logs
    )
    weights, expected = (load_file(folder / "model.safetensors") for folder in (output, finished))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_tower_does_not_go_on_from_that_of_other_folds(ratings, rows, tmp_path):
    checkpoint = tmp_path / "run/checkpoint-200"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    there = {int(row["fold"]) for row in rows}
    first, second = [fold for fold in range(5) if fold not in there][:2]

    def train(fold: int):
        command = ["train-tower", str(ratings), "--output", str(tmp_path), "--held-out-fold", str(fold)]
        return CliRunner().invoke(app, command, env={"COLUMNS": "300"})

    assert "there are copies of folds" in train(first).stderr
    refused = train(second)
    assert refused.exit_code == 2
    assert (
        f"{tmp_path} holds a run with other settings: held_out_fold ([{first}] before, [{second}] now)"
        in refused.stderr
    )


def test_the_temporal_tower_trains_on_graded_copies(ratings, tmp_path, monkeypatch):
    copies = read_chunks(ratings, SMALL_TOWER)
    assert {copy.frames.shape[1:] for copy in copies} == {(24, 3, 64, 64)}
    sample = ChunkDataset(copies, augment=True)
    drawn = []
    for sample.epoch in range(4):
        drawn += [sample[i] for i in range(len(copies))]
    assert {item["motion"] for item in drawn} >= set(range(len(MOTIONS)))
    held = [item for item in drawn if item["motion"] == MOTIONS.index("freeze") and item["fresh"] >= 0]
    assert held and all(0 < item["fresh"] < 0.9 for item in held)

    def train(learned, folder):
        return train_temporal_tower(learned, copies[-KEPT["photograph"] :], folder, SMALL_TOWER, epochs=2)

    metrics = train(copies[:15], tmp_path / "tower")
    assert 0 <= metrics["motion_accuracy"] <= 1 and 0 <= metrics["balanced_motion_accuracy"] <= 1
    tower = LmmVqaTemporalModel.from_pretrained(tmp_path / "tower")
    slow, fast = tower(torch.zeros(1, 24, 3, 64, 64))
    assert slow.shape[2] == 6 and fast.shape[2] == 24
    # The first epoch ends after 15.
    assert_goes_on(train, Interrupted(copies[:15], 17), copies[:15], tmp_path / "tower", monkeypatch)
