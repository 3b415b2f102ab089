"""Scoring on a Ray of two workers, one of which is killed, and videos that lie on an S3 server."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
from inputs import ffmpeg, score_command

from lmmvqa.scoring import fetching
from lmmvqa.scoring.bulk import score_in_bulk
from lmmvqa.scoring.finding import find_videos
from lmmvqa.scoring.scorer import Scorer
from processing.video_reader import VideoError


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=1", "-c:v", "libx264", "-pix_fmt", "yuv420p", path
    )
    return path


def test_a_killed_ray_worker_costs_no_result(small_clip, taught, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    # Workers don't stand back behind everything else on the machine.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    videos, output = tmp_path / "videos", tmp_path / "results.parquet"
    videos.mkdir()
    for number in range(40):
        (videos / f"{number}.mp4").symlink_to(small_clip)
    (videos / "text.mp4").write_text("no video")
    # In a process of its own, because Ray can end the one that it runs in. Where it fails to start, again: the test is
    # of what comes after.
    for _ in range(3):
        with score_command(
            videos,
            "--model",
            taught.checkpoint,
            "--output",
            output,
            "--engine",
            "ray",
            "--batch-size",
            2,
            "--workers",
            2,
        ) as run:
            killed = kill_a_worker(run, tmp_path / "results.parquet.journal.jsonl")
            _, messages = run.communicate()
        if killed:
            break
    assert killed and run.returncode == 1, messages
    table = pd.read_parquet(output)
    assert sorted(table["path"]) == sorted(str(videos / name) for name in os.listdir(videos))
    assert table["error"].notna().sum() == 1
    (expected,) = Scorer(taught.model, taught.processor).scores([str(small_clip)])
    assert ((table["score"].dropna() - expected.score).abs() < 1e-3).all()
    flaw = expected.answers["flaw"]["value"]
    assert all(dict(flaws)[flaw] == max(dict(flaws).values()) for flaws in table["flaws"].dropna())
    assert table["flaws"].notna().sum() == 40


def kill_a_worker(run: subprocess.Popen, journal: Path) -> bool:
    """Kill one of the workers of a run, once there are results. False: the run ended before."""
    while run.poll() is None:
        if journal.exists() and b"\n" in journal.read_bytes():
            with suppress(psutil.NoSuchProcess):
                workers = [
                    p
                    for p in psutil.Process(run.pid).children(recursive=True)
                    if "MapBatches(_Worker)" in " ".join(p.cmdline())
                ]
                if workers:
                    workers[0].kill()
                    return True
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def bucket(small_clip):
    """The address of a bucket on a local S3 server: two videos, a file that is none, one that is empty."""
    pytest.importorskip("s3fs", reason="the extra 's3' is not installed")
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    import s3fs

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
    values = ("testing", "testing", f"http://127.0.0.1:{port}", "us-east-1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(names, values, strict=True):
            patch.setenv(name, value)
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            store = s3fs.S3FileSystem()
            store.mkdir("bucket")
            store.pipe(
                {
                    "bucket/library/a b.mp4": small_clip.read_bytes(),
                    "bucket/library/deep/ü.mp4": small_clip.read_bytes(),
                }
            )
            store.pipe({"bucket/library/notes.txt": b"notes", "bucket/library/empty.mp4": b""})
            yield "s3://bucket/library"
        finally:
            server.terminate()
            server.wait()


def test_videos_of_a_bucket(bucket, tiny, small_clip, tmp_path, monkeypatch):
    model, processor = tiny
    # Of this test alone, whatever runs beside it.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    videos = find_videos([bucket])
    assert videos == [f"{bucket}/{name}" for name in ("a b.mp4", "deep/ü.mp4", "empty.mp4")]
    assert find_videos([f"{bucket}/*.mp4"]) == [f"{bucket}/a b.mp4", f"{bucket}/empty.mp4"]
    assert find_videos([f"{bucket}/a b.mp4"]) == [f"{bucket}/a b.mp4"]
    (expected,) = Scorer(model, processor).scores([str(small_clip)])
    scores = {
        score.path: score for score in score_in_bulk([*videos, f"{bucket}/none.mp4"], model, processor, workers=2)
    }
    assert not [name for name in os.listdir(tmp_path) if name.startswith("lmmvqa-")]
    assert all(abs(scores[video].score - expected.score) < 1e-3 for video in videos[:2])
    assert scores[f"{bucket}/empty.mp4"].error.startswith(f"{bucket}/empty.mp4")
    assert "none.mp4 can't be fetched" in scores[f"{bucket}/none.mp4"].error
    # One by one they give the same.
    assert next(Scorer(model, processor).scores(videos[:1])).score == pytest.approx(expected.score, abs=1e-3)


def test_a_file_that_is_too_large_is_not_fetched(bucket, monkeypatch):
    monkeypatch.setattr(fetching, "LARGEST_FETCH", 100)
    with pytest.raises(VideoError, match="larger than"), fetching.at_hand(f"{bucket}/a b.mp4"):
        pass


def test_what_cannot_be_listed_is_said():
    with pytest.raises(VideoError, match=r"nosuch://place/ can't be listed"):
        find_videos(["nosuch://place/"])
