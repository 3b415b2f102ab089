"""Runs over many videos: the same scores as one by one, whatever is killed on the way. Tiny networks, real files and
processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from datasets import load_dataset
from inputs import SITE, ffmpeg, score_command

from lmmvqa.checkpoints.loading import load_checkpoint
from lmmvqa.scoring import reading_workers
from lmmvqa.scoring.bulk import StageTimes, score_in_bulk
from lmmvqa.scoring.bulk_runs import local_engine, result_columns, score_to_file
from lmmvqa.scoring.finding import find_videos
from lmmvqa.scoring.reading_process import receive_chunk
from lmmvqa.scoring.reading_workers import ReadingLimits, ReadingWorker
from lmmvqa.scoring.result_files import SUFFIXES, ResultFile, ResultFileError, stored_rows
from lmmvqa.scoring.scorer import Scorer
from modeling_lmmvqa.video_score import VideoScore
from processing.video_reader import VideoError

READERS = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """Twelve small videos of one to three seconds in four containers, and two files that are none."""
    folder = tmp_path_factory.mktemp("library")
    for number, suffix in enumerate(("mp4", "mkv", "mov", "ts") * 3):
        source = f"testsrc2=size={64 + 16 * number}x64:rate=10:duration={1 + number % 3}"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", folder / f"{number}.{suffix}")
    (folder / "empty.mp4").touch()
    (folder / "text.avi").write_text("no video\n" * 50)
    return folder


def test_the_same_scores_as_one_by_one(default_model, clip, tmp_path):
    model, processor = default_model
    ffmpeg("-i", clip, "-t", 1.5, "-vf", "scale=320:-2", "-c:v", "libx264", "-crf", 40, tmp_path / "short.mp4")
    videos = [str(tmp_path / "short.mp4"), str(tmp_path / "missing.mp4"), str(clip), clip.read_bytes()]
    one_by_one = {score.path: score for score in Scorer(model, processor).scores(videos)}
    times = StageTimes()
    in_bulk = {
        score.path: score for score in score_in_bulk(videos, model, processor, batch_size=2, workers=2, times=times)
    }
    assert in_bulk.keys() == one_by_one.keys() and len(in_bulk) == 4
    for path, score in in_bulk.items():
        assert score.error == one_by_one[path].error and score.level == one_by_one[path].level
        if score.error is None:
            assert abs(score.score - one_by_one[path].score) <= 1e-3
            assert score.duration_s == one_by_one[path].duration_s
    assert times.videos == 3 and min(times.reading, times.encoding, times.answering) > 0


class _Poison:
    """What a file does that a decoder does not survive: whoever receives it ends at once."""

    name = "poison.mp4"

    def __reduce__(self):
        return os.abort, ()


def test_a_lost_reader_costs_one_video(tiny, library):
    model, processor = tiny
    videos = [str(library / "0.mp4"), _Poison(), str(library / "1.mkv"), _Poison(), str(library / "2.mov")]
    scores = list(score_in_bulk(videos, model, processor, workers=1))
    assert sorted(score.path for score in scores if score.error is None) == [
        str(library / name) for name in ("0.mp4", "1.mkv", "2.mov")
    ]
    lost = [score.error for score in scores if score.error is not None]
    assert len(lost) == 2 and all(
        "poison.mp4 ended the process that was reading it (SIGABRT)" in error for error in lost
    )


class _Unlucky:
    """A good video whose reader is killed the first time."""

    def __init__(self, video: Path, mark: Path):
        self.name = str(video)
        self._code = f"__import__('os').path.exists({str(mark)!r}) and {str(video)!r}"
        self._code += f" or (open({str(mark)!r}, 'w').close(), __import__('os').kill(__import__('os').getpid(), 9))"

    def __reduce__(self):
        return eval, (self._code,)


def test_a_video_whose_reader_is_killed_gets_a_second_one(tiny, library, tmp_path):
    model, processor = tiny
    (expected,) = Scorer(model, processor).scores([str(library / "2.mov")])
    for number, score_all in enumerate(
        (
            lambda videos: Scorer(model, processor).scores(videos),
            lambda videos: score_in_bulk(videos, model, processor, workers=1),
        )
    ):
        (score,) = score_all([_Unlucky(library / "2.mov", tmp_path / str(number))])
        assert score.error is None and score.score == pytest.approx(expected.score, abs=1e-3)
        assert (tmp_path / str(number)).exists()


def test_readers_do_without_torch(tiny, library):
    """Where the video needs none: this is what keeps their memory small."""
    with ReadingWorker(tiny[1].video_processor) as reader:
        assert len(list(reader.read(str(library / "2.mov")))) == 3
        assert "libtorch" not in Path(f"/proc/{reader._process.pid}/maps").read_text()
        assert min(reader.seconds_there, reader.seconds_here) > 0


def test_one_by_one_a_lost_reader_costs_one_video_too(tiny, library):
    videos = [str(library / "0.mp4"), _Poison(), str(library / "2.mov")]
    first, lost, last = Scorer(*tiny).scores(videos)
    assert (
        first.error is None
        and last.error is None
        and "poison.mp4 ended the process that was reading it (SIGABRT)" in lost.error
    )


@pytest.fixture(scope="module")
def turned(tmp_path_factory) -> Path:
    """A large frame that players turn."""
    folder = tmp_path_factory.mktemp("turned")
    upright = folder / "upright.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=6000x6000:rate=1:duration=1", "-c:v", "mpeg4", upright)
    ffmpeg("-display_rotation", "90", "-i", upright, "-c", "copy", folder / "turned.mp4")
    return folder / "turned.mp4"


@pytest.mark.parametrize("megabytes", [250, 350, 450, 1200])
def test_a_rotated_frame_that_needs_all_memory_does_not_hang(tiny, turned, megabytes):
    """Copying it for sending may fail when decoding has not."""
    limits = ReadingLimits(seconds=120, megabytes=megabytes)
    with ReadingWorker(tiny[1].video_processor, limits=limits) as reader:
        began = time.monotonic()
        try:
            assert len(list(reader.read(str(turned)))) == 1
        except VideoError as error:
            assert "memory" in str(error) and "--memory-limit" in str(error)
        assert time.monotonic() - began < 120


@pytest.mark.parametrize("lie", ["short", "long", "none"])
def test_a_reader_that_does_not_send_what_it_says_is_given_up(lie):
    here, there = Pipe()
    header = (0, 0.0, (4, 4, 3), (0,))
    if lie == "none":
        with pytest.raises(VideoError, match=r"within 0\.1 s"):
            patience = reading_workers._Patience("clip.mp4", 0.1)
            receive_chunk(here, header, lambda: patience.until_something_comes(here))
        return
    there.send_bytes(bytes(10 if lie == "short" else 100))
    with pytest.raises(EOFError):
        receive_chunk(here, header, lambda: None)


def test_a_reader_is_replaced_before_leaks_add_up(tiny, library, monkeypatch):
    monkeypatch.setattr(reading_workers, "VIDEOS_OF_A_PROCESS", 2)
    with ReadingWorker(tiny[1].video_processor) as reader:
        processes = [(list(reader.read(str(library / "0.mp4"))), reader._process.pid)[1] for _ in range(5)]
    assert [processes.count(pid) for pid in dict.fromkeys(processes)] == [2, 2, 1]


def test_warnings_of_readers_are_heard_here(tiny, library, tmp_path, caplog, capfd):
    cut = tmp_path / "cut.mp4"
    ffmpeg("-i", library / "2.mov", "-c", "copy", "-movflags", "+faststart", tmp_path / "fast.mp4")
    fast = (tmp_path / "fast.mp4").read_bytes()
    cut.write_bytes(fast[: len(fast) * 6 // 10])
    (score,) = Scorer(*tiny).scores([str(cut)])
    assert (
        score.error is None
        and f"{cut}: It is damaged" in caplog.text
        and "It is damaged" in score.warnings[0]
        and capfd.readouterr().err == ""
    )


def test_limits_of_time_and_memory_cost_one_video_each(tiny, library, tmp_path):
    model, processor = tiny
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=7680x4320:rate=2:duration=1", "-c:v", "mpeg4", tmp_path / "huge.mp4")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=1200", "-c:v", "mpeg4", tmp_path / "slow.mp4")
    (score,) = score_in_bulk(
        [str(tmp_path / "huge.mp4")], model, processor, workers=1, limits=ReadingLimits(megabytes=100)
    )
    assert "huge.mp4 needs more" in score.error and "memory" in score.error
    videos = [str(library / "0.mp4"), str(tmp_path / "slow.mp4"), str(tmp_path / "huge.mp4")]
    scores = {Path(score.path).name: score for score in score_in_bulk(videos, model, processor, workers=1)}
    assert all(score.error is None for score in scores.values())
    (score,) = score_in_bulk(
        [str(tmp_path / "slow.mp4")], model, processor, workers=1, limits=ReadingLimits(seconds=0.01)
    )
    assert "slow.mp4 could not be read within 0.01 s" in score.error


def test_a_list_of_videos_that_fails_is_heard_of(tiny, library):
    def broken():
        yield str(library / "0.mp4")
        raise OSError("the list is gone")

    model, processor = tiny
    with pytest.raises(OSError, match="the list is gone"):
        list(score_in_bulk(broken(), model, processor, workers=2))


def test_stopping_early_leaves_no_process_behind(tiny, library):
    model, processor = tiny
    # Scorers of other tests may still have theirs.
    before = _readers()
    scores = score_in_bulk(find_videos([str(library)]) * 20, model, processor, workers=2, batch_size=1)
    next(scores)
    assert len(_readers() - before) == 2
    scores.close()
    assert not _readers() - before


def _readers() -> set[int]:
    """Reading processes of this one."""
    return {child.pid for child in psutil.Process().children() if "lmmvqa.scoring.reading_process" in child.cmdline()}


def test_kill_and_resume_score_every_file_exactly_once(tiny_checkpoint, library, tmp_path):
    output = tmp_path / "results.parquet"
    journal = tmp_path / "results.parquet.journal.jsonl"
    many = tmp_path / "many"
    many.mkdir()
    for number in range(60):
        (many / f"{number}.mp4").symlink_to(library / "0.mp4")
    arguments = (many, library, "--model", tiny_checkpoint, "--output", output, "--batch-size", 2, "--workers", 2)
    kept: dict[str, dict] = {}
    for rows in (3, 20):
        with score_command(*arguments) as run:
            while run.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < rows):
                time.sleep(0.01)
            assert run.poll() is None, run.stderr.read()
            run.send_signal(signal.SIGKILL)
        now = {row["path"]: row for row in stored_rows(output, result_columns())}
        assert len(now) >= rows and kept.items() <= now.items()
        kept = now
    with score_command(*arguments) as run:
        assert run.wait() == 1, run.stderr.read()
    table = pd.read_parquet(output)
    assert sorted(table["path"]) == sorted(find_videos([str(many), str(library)]))
    assert {row["path"]: row["score"] for row in kept.values()}.items() <= dict(
        zip(table["path"], table["score"], strict=True)
    ).items()
    failed = table[table["error"].notna()]
    assert (
        sorted(Path(path).name for path in failed["path"]) == ["empty.mp4", "text.avi"] and failed["score"].isna().all()
    )
    assert table["score"].between(0, 100).sum() == len(table) - 2
    assert sorted(os.listdir(tmp_path)) == ["many", "results.parquet"]


@pytest.mark.parametrize("interrupts", [1, 3])
def test_an_interrupt_ends_cleanly_however_often(interrupts, tiny_checkpoint, library, tmp_path):
    output, many = tmp_path / "results.jsonl", tmp_path / "many"
    many.mkdir()
    for number in range(200):
        (many / f"{number}.mp4").symlink_to(library / "2.mov")
    arguments = (many, "--model", tiny_checkpoint, "--output", output, "--batch-size", 2, "--workers", 2)
    with score_command(*arguments) as run:
        while run.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < 4):
            time.sleep(0.01)
        readers = psutil.Process(run.pid).children(recursive=True)
        for _ in range(interrupts):
            run.send_signal(signal.SIGINT)
            time.sleep(0.05)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and not [word for word in ("Trace", "Fatal", "Abort", "Error") if word in said], said
    psutil.wait_procs(readers, timeout=10)
    assert not any(reader.is_running() for reader in readers)
    rows = list(stored_rows(output, result_columns()))
    assert 4 <= len(rows) < 200 and all(row["error"] is None for row in rows)
    assert sorted(os.listdir(tmp_path)) == ["many", "results.jsonl"]


def test_who_reads_no_more_hears_no_complaint(tiny_checkpoint, library):
    videos = [library / f"{number}.mp4" for number in (0, 4, 8)]
    with score_command(*videos, "--model", tiny_checkpoint, "--json", "--batch-size", 1, stdout=subprocess.PIPE) as run:
        json.loads(run.stdout.readline())
        run.stdout.close()
        said = run.stderr.read()
        assert run.wait() == 141 and said == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_finished_file_is_left_as_it_is_and_loads_no_model(suffix, tiny_checkpoint, library, tmp_path):
    output = tmp_path / f"results{suffix}"
    videos = [str(library / name) for name in ("0.mp4", "empty.mp4", "1.mkv")]
    assert score_to_file(videos, output, local_engine(str(tiny_checkpoint), "cpu", workers=1)) == 1
    before = output.read_bytes()
    assert score_to_file(videos, output, local_engine(str(tmp_path / "none"))) == 1
    assert output.read_bytes() == before


def test_a_finished_file_takes_no_time(tiny_checkpoint, library, tmp_path):
    """Neither torch nor transformers is imported, and nobody asks for the model, whose weights are not there."""
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(tiny_checkpoint / "config.json", empty)
    output, videos = tmp_path / "results.parquet", [str(library / "0.mp4"), str(library / "empty.mp4")]
    with ResultFile(output, result_columns()) as results:
        results.append(VideoScore(videos[0], score=50.0, level_probabilities={"good": 1.0}).as_row())
        results.append(VideoScore(videos[1], level_probabilities={"good": None}, error="empty").as_row())
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": str(SITE)}
    command = [sys.executable, "-m", "lmmvqa", "score", *videos, "--output", str(output), "--model", str(empty)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert run.returncode == 1 and "2 videos, 1 with an error" in run.stderr
    assert "typer" in imported and not imported & {"torch", "transformers", "pandas"}


def test_one_shape_in_every_format(tiny, library, tmp_path):
    """The same columns with the same values, of runs with and without errors."""
    model, processor = tiny
    rows = {}
    for suffix in SUFFIXES:
        for name, videos in (("clean", ["0.mp4"]), ("broken", ["empty.mp4"]), ("mixed", ["1.mkv", "text.avi"])):
            output = tmp_path / f"{name}{suffix}"
            score_to_file(
                [str(library / video) for video in videos], output, lambda left: score_in_bulk(left, model, processor)
            )
            columns = list(READERS[suffix](output))
            assert columns == [
                *("path", "score", "score_std", "interval_low", "interval_high", "level"),
                *("probability_poor", "probability_fair", "probability_good", "duration_s", "warnings", "error"),
            ]
            rows.setdefault(name, []).append(list(stored_rows(output, result_columns())))
    for name, (csv_rows, *others) in rows.items():
        assert all(other == csv_rows for other in others), name
    for suffix in SUFFIXES:
        together = pd.concat([READERS[suffix](tmp_path / f"{name}{suffix}") for name in rows])
        assert together["score"].notna().sum() == together["error"].isna().sum() == 2
    files = [str(tmp_path / f"{name}.parquet") for name in rows]
    for order in (files, files[::-1]):
        data = load_dataset("parquet", data_files=order, cache_dir=str(tmp_path / "cache"))["train"]
        assert data.features["error"].dtype == data.features["level"].dtype == "string" and len(data) == 4


def test_errors_are_scored_again_on_request_only(tiny, library, tmp_path):
    model, processor = tiny
    (tmp_path / "late.mp4").write_bytes(b"half")
    shutil.copy(library / "0.mp4", tmp_path / "good.mp4")
    videos, asked = [str(tmp_path / name) for name in ("good.mp4", "late.mp4")], []

    def engine(left):
        asked.append([Path(video).name for video in left])
        return score_in_bulk(left, model, processor)

    for suffix in SUFFIXES:
        output = tmp_path / f"results{suffix}"
        (tmp_path / "late.mp4").write_bytes(b"half")
        assert score_to_file(videos, output, engine) == 1
        before = next(row for row in stored_rows(output, result_columns()) if row["error"] is None)
        shutil.copy(library / "2.mov", tmp_path / "late.mp4")
        assert score_to_file(videos, output, engine) == 1
        assert score_to_file(videos, output, engine, retry_errors=True) == 0
        assert sorted(asked[0]) == ["good.mp4", "late.mp4"] and asked[1:] == [["late.mp4"]]
        rows = {row["path"]: row for row in stored_rows(output, result_columns())}
        assert rows[videos[0]] == before and rows[videos[1]]["error"] is None and len(rows) == 2
        asked.clear()


def test_an_output_that_is_taken_away_ends_the_run(tiny, library, tmp_path):
    model, processor = tiny
    videos = [str(library / f"{number}.mp4") for number in (0, 4, 8)]
    before = _readers()
    for suffix in SUFFIXES:
        output = tmp_path / f"results{suffix}"

        def watch(scores, _, output=output):
            for number, score in enumerate(scores):
                yield score
                if number == 0:
                    for file in output.parent.glob(f"{output.name}*"):
                        file.unlink()

        with pytest.raises(ResultFileError, match="removed, renamed or changed by another program"):
            score_to_file(videos, output, lambda left: score_in_bulk(left, model, processor, batch_size=1), watch)
        assert not _readers() - before and os.listdir(tmp_path) == []


def test_rows_are_counted_against_videos(tiny, library, tmp_path):
    model, processor = tiny
    videos = [str(library / "0.mp4"), str(library / "4.mp4")]
    with pytest.raises(ResultFileError, match="lacks 1 of 2 videos"):
        score_to_file(videos, tmp_path / "results.csv", lambda left: score_in_bulk(left[:1], model, processor))


def test_processes_of_accelerate_share_the_videos(tiny_checkpoint, library, tmp_path):
    output = tmp_path / "results.csv"
    # Rows of processes that were killed in an earlier run count.
    levels = dict.fromkeys(("poor", "fair", "good"))
    with ResultFile(f"{output}.process7.jsonl", result_columns()) as rows:
        rows.append(VideoScore(str(library / "0.mp4"), score=12.5, level_probabilities=levels).as_row())
    # What `accelerate launch` runs for several GPUs; for processors alone it would want MPI.
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        "-m",
        "lmmvqa.commands.main",
    ]
    run = subprocess.run(
        [*launch, "score", str(library), "--model", str(tiny_checkpoint), "--output", str(output), "--workers", "1"],
        env=os.environ | {"PYTHONPATH": str(SITE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    table = pd.read_csv(output)
    assert sorted(table["path"]) == sorted(find_videos([str(library)])), run.stderr
    assert table.set_index("path")["score"][str(library / "0.mp4")] == 12.5
    assert table["error"].notna().sum() == 2
    assert os.listdir(tmp_path) == ["results.csv"]


def test_odd_folders_and_names(tmp_path, library):
    clip = library / "0.mp4"
    names = [b"two\nlines.mp4", b"caf\xe9.mp4", "ümlaut.MP4".encode(), b"-o.mp4"]
    for name in names:
        shutil.copy(clip, os.path.join(os.fsencode(tmp_path), name))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    (tmp_path / "other").symlink_to(library)
    os.mkfifo(tmp_path / "pipe.mp4")
    found = find_videos([str(tmp_path)])
    here = {os.fsencode(os.path.relpath(path, tmp_path)) for path in found}
    assert {*names, b"self.mp4", b"pipe.mp4"} <= here and b"other/0.mp4" in here
    # The loop leads nowhere: every file was found once.
    assert len(found) == len(names) + 2 + len(os.listdir(library))


def test_folders_hold_pictures_and_videos_of_all_kinds(tmp_path):
    names = ["1.y4m", "1²2.mp4", "2.mxf", "3.GIF", "4.jpg", "5.webp", "10.heic", "١.mov"]
    for name in (*names, "notes.txt", "labels.csv", "sound.wav"):
        (tmp_path / name).touch()
    assert sorted(os.path.basename(path) for path in find_videos([str(tmp_path)])) == sorted(names)


def test_a_photograph_is_scored_like_a_video(tiny, clip, tmp_path):
    ffmpeg("-i", clip, "-frames:v", "1", tmp_path / "photo.jpg")
    (score,) = Scorer(*tiny).scores(find_videos([str(tmp_path)]))
    assert score.error is None and 0 <= score.score <= 100 and score.duration_s == 0
    assert any("single picture" in warning for warning in score.warnings)


def test_odd_names_through_to_the_result_file(tiny, tmp_path, library):
    model, processor = tiny
    for name in (b"two\nlines.mp4", b"caf\xe9.mp4"):
        shutil.copy(library / "0.mp4", os.path.join(os.fsencode(tmp_path), name))
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    output = tmp_path / "results.csv"
    assert (
        score_to_file(find_videos([str(tmp_path)]), output, lambda videos: score_in_bulk(videos, model, processor)) == 2
    )
    table = pd.read_csv(output).set_index("path")
    assert table["score"][[f"{tmp_path}/two\nlines.mp4", f"{tmp_path}/caf\\xe9.mp4"]].notna().all()
    assert "pipe" in table["error"][f"{tmp_path}/pipe.mp4"]


def test_a_folder_that_cannot_be_listed_gets_its_error(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    (tmp_path / "a.mp4").touch()
    closed.chmod(0)
    # This one can be listed but not entered.
    half = tmp_path / "half"
    (half / "deep").mkdir(parents=True)
    half.chmod(0o444)
    child = os.fork()
    if child == 0:  # the rights of the superuser would open every folder
        try:
            if os.getuid() == 0:
                for folder in (tmp_path, *tmp_path.parents):
                    if folder.stat().st_mode & 0o5 != 0o5:
                        folder.chmod(0o755)
                os.setuid(65534)
            from processing.video_reader import open_video

            assert find_videos([str(tmp_path)]) == [str(tmp_path / "a.mp4"), str(closed), str(half / "deep")]
            with pytest.raises(VideoError, match="closed is a folder that cannot be listed"):
                open_video(str(closed))
        except BaseException as error:
            os.write(2, str(error).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    closed.chmod(0o700)
    half.chmod(0o700)


def test_half_precision_on_request(tiny_checkpoint, library):
    full, half = (load_checkpoint(str(tiny_checkpoint), "cpu", dtype) for dtype in ("auto", "bfloat16"))
    assert (full[0].dtype, half[0].dtype) == (torch.float32, torch.bfloat16)
    assert half[0].base_model.vision_tower.dtype == torch.bfloat16
    one, other = (next(Scorer(*loaded).scores([str(library / "2.mov")])) for loaded in (full, half))
    assert one.score != other.score and abs(one.score - other.score) < 5
