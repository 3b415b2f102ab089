"""Graded copies, their sources, and the towers that learn from it: on one real clip and a picture made of
it."""

import csv
import json
from collections import Counter
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from inputs import DATA
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, ResNetConfig, ResNetModel
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.default_making import tower_training
from lmmvqa.default_making.graded_copies import (
    CALM_OVERSAMPLING,
    COLUMNS,
    DISTORTIONS,
    DRAWN,
    PHOTOGRAPH_COPIES,
    Content,
    _calmest_part,
    _split,
    _views,
    fresh_frames,
    make_graded_copies,
)
from lmmvqa.default_making.rated_tiles import (
    MEASURES,
    TILE,
    TILES_OF_KEY_FRAME,
    TILES_OF_SOURCE,
    RatedTiles,
    make_tiles,
    measure,
)
from lmmvqa.default_making.sources import Source, collect_sources, read_sources
from lmmvqa.default_making.spatial_training import KeyFrames, SpatialTowerWithHead, train_spatial_tower
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
        if kind == "video":
            assert Counter(groups[row["distortion"]] for row in own) == {
                "": sum(not group for group in groups.values()),
                **DRAWN,
            }
        else:
            views = Counter(row["video"].split("/")[0] for row in own)
            assert views == {"monster": PHOTOGRAPH_COPIES, "monster_calm": PHOTOGRAPH_COPIES}
            for view in views:
                drawn = Counter(groups[row["distortion"]] for row in own if row["video"].startswith(f"{view}/"))
                assert all(drawn[group] <= count for group, count in DRAWN.items())
        assert len({(row["split"], row["fold"]) for row in own}) == 1


def test_only_what_is_learned_from_shows_its_calmest_part_too(sources, ratings, tmp_path):
    def local_contrast(view: str) -> float:
        with av.open(str(ratings.parent / view / "reference.mkv")) as container:
            luma = next(container.decode(video=0)).to_ndarray(format="gray").astype(float)
        return abs(np.diff(luma, axis=1)).mean()

    assert local_contrast("monster_calm") < 0.9 * local_contrast("monster")
    assert (_split(Content(sources / "monster.png")), _split(Content(Path("frame.png")))) == ("train", "validation")
    assert [view.name for view in _views(Content(Path("frame.png")))] == ["frame"]

    picture = np.random.default_rng(0).integers(0, 256, (1440, 2560), dtype=np.uint8)
    picture[900:, 1400:] = np.linspace(50, 200, 2560 - 1400, dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "corner.png")
    size, left, top = _calmest_part(tmp_path / "corner.png")
    assert size == pytest.approx(2 * 4 / CALM_OVERSAMPLING) and left > 0.95 and top > 0.95
    Image.fromarray(picture[:800, :1400]).save(tmp_path / "small.png")
    assert _calmest_part(tmp_path / "small.png") is None


def test_ratings_follow_the_distortion(rows):
    flower = {row["distortion"]: float(row["mos"]) for row in rows if row["content"] == "flower"}
    vmaf = [flower[name] for name in ("near_lossless", "x264_light", "x264_medium", "x264_strong", "x264_extreme")]
    assert all(better > worse for better, worse in pairwise(vmaf)) and vmaf[0] > 90 and vmaf[-1] < 60
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
    with pytest.raises(ValueError, match=f"no copies of fold {missing} .*--held-out-fold"):
        KeyFrames(ratings, missing)


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


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--bf16"], "are for a spatial tower: leave them out"),
        (["--sources", "clips"], "are for a spatial tower: leave them out"),
        (["--start", "tower"], "are for a spatial tower: leave them out"),
        (["--tower", "spatial"], "name their folder with --sources"),
    ],
    ids=str,
)
def test_options_that_a_tower_does_not_have_leave_no_run(ratings, tmp_path, options, error):
    output = tmp_path / "run"
    refused = CliRunner().invoke(
        app, ["train-tower", str(ratings), "--output", str(output), *options], env={"COLUMNS": "300"}
    )
    assert refused.exit_code == 2 and error in refused.stderr
    assert not output.exists()


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
        return train_temporal_tower(learned, copies[-PHOTOGRAPH_COPIES:], folder, SMALL_TOWER, epochs=2)

    metrics = train(copies[:20], tmp_path / "tower")
    assert 0 <= metrics["motion_accuracy"] <= 1 and 0 <= metrics["balanced_motion_accuracy"] <= 1
    tower = LmmVqaTemporalModel.from_pretrained(tmp_path / "tower")
    slow, fast = tower(torch.zeros(1, 24, 3, 64, 64))
    assert slow.shape[2] == 6 and fast.shape[2] == 24
    # The first epoch ends after 20.
    assert_goes_on(train, Interrupted(copies[:20], 22), copies[:20], tmp_path / "tower", monkeypatch)


@pytest.fixture(scope="module")
def tiles(ratings, sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    make_tiles(ratings, sources, folder, held_out=())
    return folder


def test_tiles_are_rated_each_by_itself(tiles):
    names = {name.name.removesuffix(".tiles.npy") for name in tiles.glob("*.tiles.npy")}
    assert names == {"copies_flower", "copies_monster", "copies_monster_calm", "photograph_monster", "video_flower"}
    for source in ("video_flower", "photograph_monster"):
        cut, measures = (np.load(tiles / f"{source}.{part}.npy") for part in ("tiles", "measures"))
        assert cut.shape == (TILES_OF_SOURCE, 3, TILE, TILE) and measures.shape == (TILES_OF_SOURCE, len(MEASURES))
        assert measures[:, -1].min() < 30 and measures[:, -1].max() > 90
    # No motion and no fault: VMAF of that is 97.
    assert np.allclose(measure(cut[:3], cut[:3]), [[1, 1, 1, 1, 1, 97.4]] * 3, atol=0.1)
    # One frame of one copy is not as bad everywhere.
    frames = np.load(tiles / "copies_flower.measures.npy")[:, -1].reshape(-1, TILES_OF_KEY_FRAME)
    assert frames.std(1).max() > 5


def test_tiles_are_made_once_and_the_same(tiles, ratings, sources):
    stamps = {path: path.stat().st_mtime_ns for path in tiles.iterdir()}
    lost = tiles / "photograph_monster.measures.npy"
    before = lost.read_bytes()
    lost.unlink()
    make_tiles(ratings, sources, tiles, held_out=())
    assert lost.read_bytes() == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if "photograph" not in path.name)


def test_a_tower_sees_no_tiles_of_a_fold_that_is_held_out(tiles, ratings, rows, sources, tmp_path):
    """Not even of a folder that has them from before."""
    flower = next(int(row["fold"]) for row in rows if row["content"] == "flower")
    left = {path.name.split(".")[0] for path in make_tiles(ratings, sources, tiles, held_out={flower})}
    assert left == {"copies_monster", "copies_monster_calm", "photograph_monster"}
    none = make_tiles(ratings, sources, tmp_path, held_out={int(row["fold"]) for row in rows})
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no rated tiles"):
        RatedTiles(none)


def small_resnet() -> ResNetModel:
    # Of 8 channels, channels last, PyTorch 2.14 corrupts memory in the backward pass of an odd batch.
    return ResNetModel(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic")
    )


def test_the_spatial_tower_trains_on_tiles(ratings, rows, tiles, tmp_path, monkeypatch):
    measured = [tiles / "copies_monster.measures.npy"]
    data = RatedTiles(measured)
    sample = data[len(data) - 1]
    assert (
        sample["frames"].shape == (3, TILE, TILE)
        and sample["rating"].shape == (len(MEASURES),)
        and sample["rating"].max() <= 1.5
    )
    held_out = KeyFrames(ratings, int(rows[0]["fold"]))
    tower = small_resnet()
    before = {name: weight.clone() for name, weight in tower.state_dict().items()}

    def train(tiles, folder):
        return train_spatial_tower(deepcopy(tower), tiles, held_out, folder, epochs=2)

    metrics = train(data, tmp_path / "tower")
    assert -1 <= metrics["srcc"] <= 1 and {"srcc_codec", "srcc_spatial"} <= set(metrics)
    trained = AutoModel.from_pretrained(tmp_path / "tower").state_dict()
    changed = {name for name in before if not torch.equal(before[name].half(), trained[name].half())}
    assert changed and not any("running" in name for name in changed)
    # All are read once before, for the head; a batch has 32.
    cut = RatedTiles(measured)
    cut.ratings = Interrupted(cut.ratings, len(cut) + 100)
    assert_goes_on(train, cut, data, tmp_path / "tower", monkeypatch)


def test_bfloat16_is_for_training_alone(tiles):
    tower = small_resnet()
    exact, fast = SpatialTowerWithHead(tower), SpatialTowerWithHead(tower, bf16=True)
    frames = torch.stack([RatedTiles([tiles / "copies_monster.measures.npy"])[index]["frames"] for index in range(4)])
    with torch.no_grad():
        known, found = exact.moments(frames), fast.moments(frames)
        assert found.dtype == torch.float32 and not torch.equal(found, known)
        torch.testing.assert_close(found, known, rtol=0.05, atol=0.05)
        assert torch.equal(fast.eval().moments(frames), known)
