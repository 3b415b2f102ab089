"""Quality over time, and the pipeline that gives it."""

import io
import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from inputs import DATA, ffmpeg
from transformers import pipeline
from typer.testing import CliRunner

import lmmvqa  # noqa: F401 - registers the pipeline
from lmmvqa.commands.main import app
from lmmvqa.scoring import loading as scoring
from lmmvqa.scoring.scorer import Scorer
from modeling_lmmvqa import LmmVqaForConditionalGeneration
from modeling_lmmvqa.pipeline_lmmvqa import LmmVqaPipeline
from modeling_lmmvqa.quality_timeline import assess_timeline
from modeling_lmmvqa.torch_network import TorchNetwork
from modeling_lmmvqa.video_features import extract_features
from modeling_lmmvqa.video_score import COLUMNS, PROBABILITY
from processing.quality_prompts import LEVELS

KEYS = [*list(COLUMNS)[:6], *(f"{PROBABILITY}{word}" for word in LEVELS), *list(COLUMNS)[6:]]


@pytest.fixture(scope="session")
def dipping(tmp_path_factory):
    """Good from 0 to 6 s, bad from 6 to 10 s, good from 10 to 15 s; one content."""
    folder = tmp_path_factory.mktemp("dipping")
    clip, bad, dip = DATA / "toy_monster.mp4", folder / "bad.mp4", folder / "dip.mp4"
    ffmpeg(
        "-i",
        clip,
        "-t",
        4,
        "-an",
        "-vf",
        "scale=640:360,fps=25",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-crf",
        50,
        bad,
    )
    parts = (
        "[0:v]scale=640:360,fps=25,setsar=1,split[x][y];[x]trim=0:6,setpts=PTS-STARTPTS[a];"
        "[y]trim=7:12,setpts=PTS-STARTPTS[c];[1:v]setsar=1[b];[a][b][c]concat=n=3"
    )
    ffmpeg(
        "-stream_loop",
        1,
        "-i",
        clip,
        "-i",
        bad,
        "-an",
        "-filter_complex",
        parts,
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-crf",
        12,
        dip,
    )
    return dip


@pytest.fixture(scope="session")
def tiny_pipe(tiny):
    model, processor = tiny
    return pipeline("video-quality-assessment", model=model, processor=processor)


def test_the_pipeline_of_a_folder_is_that_of_the_package(tiny_checkpoint, clip):
    """The folder carries its own pipeline, for whoever has no package; nothing of it runs here."""
    pipe = pipeline("video-quality-assessment", model=str(tiny_checkpoint), pipeline_class=LmmVqaPipeline)
    assert type(pipe) is LmmVqaPipeline and type(pipe.model) is LmmVqaForConditionalGeneration
    assert 0 <= pipe(str(clip))["score"] <= 100


def test_the_dip_is_found_to_the_second(default_model, dipping):
    """And a second is red where it is bad, not where a window around it begins."""
    score = Scorer(*default_model)(dipping, timeline=True)
    seconds = score.timeline["seconds"]
    assert [second["start_s"] for second in seconds] == list(range(15)) and seconds[-1]["end_s"] == 15
    bad = [second["score"] for second in seconds if 6 <= second["start_s"] < 10]
    good = [second["score"] for second in seconds if not 6 <= second["start_s"] < 10]
    assert max(bad) < min(good)
    assert 6 <= score.timeline["worst"]["start_s"] < 10
    assert not 6 <= score.timeline["best"]["start_s"] < 10


def test_whole_worst_and_best_agree(tiny):
    model, processor = tiny
    for seed in range(3):
        frames = np.random.default_rng(seed).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
        # Not the first ones: what is dark there would be taken for a fade and left out.
        frames[20 + 10 * seed : 30 + 10 * seed] //= 8
        network = TorchNetwork(model, processor)
        video = extract_features(network.encode_each, "noise", processor.video_processor.stream(frames, fps=10))
        for whole in (0.0, 3.2, 50.0, 99.9):
            timeline = assess_timeline(network, video, whole)
            scores = [second["score"] for second in timeline["seconds"]]
            assert timeline["worst"]["score"] == min(scores) <= whole + 1e-4
            assert timeline["best"]["score"] == max(scores) >= whole - 1e-4
            assert min(scores) >= 0 and max(scores) <= 100
        alone = [model.assess(**processor(videos=frames[10 * i : 10 * i + 10], fps=10)).score.item() for i in range(6)]
        middle = assess_timeline(network, video, sum(alone) / 6)["seconds"]
        # Nothing but a common shift stands between a second by itself and its value.
        assert [second["score"] for second in middle] == pytest.approx(alone, abs=1e-2)


def test_a_picture_that_stands_still_is_seen_once(tiny, monkeypatch):
    model, processor = tiny
    frames = np.zeros((80, 48, 64, 3), dtype=np.uint8)
    frames[40:] = 200
    seen = []
    towers = type(model.model).encode_videos
    monkeypatch.setattr(type(model.model), "encode_videos", lambda *a, **k: seen.append(1) or towers(*a, **k))
    video = extract_features(
        TorchNetwork(model, processor).encode_each, "still", processor.video_processor.stream(frames, fps=10)
    )
    assert len(video.starts_s) == 8 and len(seen) == 2


def test_the_timeline_asks_for_the_score_only(tiny, tiny_inputs):
    model, processor = tiny
    both = model.assess(**tiny_inputs)
    score = model.assess(**dict(tiny_inputs) | {"questions": processor.ask(["score"])})
    torch.testing.assert_close(both.score, score.score, atol=1e-3, rtol=0)
    assert score.level is None and score.level_probabilities is None


def test_the_pipeline_takes_what_people_have(tiny, tiny_pipe, clip):
    model, processor = tiny
    (expected,) = (result.as_row() for result in Scorer(model, processor).scores([str(clip)]))
    one = tiny_pipe(str(clip))
    assert list(one) == KEYS
    assert one.pop("warnings") == expected.pop("warnings")
    assert one == pytest.approx(expected, abs=1e-3)
    many = [str(clip), clip, clip.read_bytes(), {"path": str(clip), "bytes": None}]
    column = Dataset.from_dict({"video": [str(clip)] * 2})["video"]
    for videos in (many, (video for video in many), column):
        rows = tiny_pipe(videos, batch_size=3)
        assert isinstance(rows, list) is hasattr(videos, "__len__")
        assert [row["score"] for row in rows] == pytest.approx(
            [one["score"]] * (2 if videos is column else 4), abs=1e-3
        )
    with clip.open("rb") as file:
        assert tiny_pipe(file)["score"] == pytest.approx(one["score"], abs=1e-3)
    assert tiny_pipe([]) == []


def test_names_in_results_are_those_of_the_messages(tiny_pipe, clip):
    with clip.open("rb") as file:
        given = [
            clip,
            file,
            io.BytesIO(b"x"),
            clip.read_bytes(),
            {"path": None, "bytes": b"x"},
            {"path": "a.mp4", "bytes": b"x"},
            7,
        ]
        names = [tiny_pipe.preprocess(video)["path"] for video in given]
    assert names == [str(clip), str(clip), "<file object>", "<bytes>", "<bytes>", "a.mp4", "<int>"]
    assert tiny_pipe([b"x", 7])[1]["error"].startswith("<int> is not a video")


def test_the_pipeline_goes_on_past_what_it_cant_read(tiny_pipe, clip, tmp_path):
    (tmp_path / "empty.mp4").touch()
    good, missing, empty, last = tiny_pipe(
        [str(clip), "missing.mp4", str(tmp_path / "empty.mp4"), str(clip)], batch_size=2, timeline=True
    )
    assert good["error"] is None and good["score"] == pytest.approx(last["score"], abs=1e-3)
    assert list(good) == [*KEYS, "timeline"] and len(good["timeline"]["seconds"]) == 5
    for row, word in ((missing, "missing.mp4"), (empty, "empty.mp4")):
        assert row["score"] is None and word in row["error"] and "report" not in row["error"]


def test_the_score_is_the_same_with_a_timeline(tiny_pipe, dipping):
    """More seconds than `max_chunks`: the score must come from the same ones."""
    plain, timed = tiny_pipe(str(dipping)), tiny_pipe(str(dipping), timeline=True)
    assert timed["score"] == pytest.approx(plain["score"], abs=1e-3)
    few = tiny_pipe(str(dipping), timeline=True, most_seconds=5)["timeline"]["seconds"]
    assert [(second["start_s"], second["end_s"]) for second in few] == [(0, 1), (4, 5), (7, 8), (11, 12), (14, 15)]
    with pytest.raises(TypeError, match="Unknown setting window"):
        tiny_pipe(str(dipping), timeline=True, window=4)


def test_who_waits_sees_how_far_it_is(tiny_pipe, dipping):
    seen = []
    tiny_pipe(str(dipping), timeline=True, progress=lambda *step: seen.append(step))
    assert seen == [*(("seconds", done, 15) for done in range(1, 16)), ("moments", 0, 15), ("moments", 15, 15)]


def test_the_command_gives_the_timeline(tiny, clip, monkeypatch):
    monkeypatch.setattr(scoring, "load_network", lambda *_: tiny)
    done = CliRunner().invoke(app, ["score", str(clip), "missing.mp4", "--timeline", "--json"])
    assert done.exit_code == 1
    row, error = (json.loads(line) for line in done.stdout.splitlines())
    assert list(row) == [*KEYS, "timeline"] and len(row["timeline"]["seconds"]) == 5
    assert list(error) == KEYS and "missing.mp4" in error["error"]
    table = CliRunner().invoke(app, ["score", str(clip), "--timeline"]).stdout
    assert f"worst second 0:{row['timeline']['worst']['start_s']:02.0f}" in table
    for option in ("--csv", "--output"):
        refused = CliRunner().invoke(
            app, ["score", str(clip), "--timeline", option, "scores.csv"], env={"COLUMNS": "200"}
        )
        assert refused.exit_code == 2 and "--timeline goes with the table or with --json" in refused.output
