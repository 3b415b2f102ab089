"""Scoring on a Ray of two workers, one of which is killed, and videos that lie on an S3 server."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import SITE, ffmpeg, make_tiny

from lmmvqa import remote_videos
from lmmvqa.bulk_runs import ray_engine, score_to_file
from lmmvqa.bulk_scoring import score_in_bulk
from lmmvqa.scoring import find_videos, score_videos
from processing.video_reader import VideoError


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=1", "-c:v", "libx264", "-pix_fmt", "yuv420p", path)
    return path


def test_a_killed_ray_worker_costs_no_result(small_clip, tmp_path, monkeypatch):
    # Workers import from here, whatever is installed, and don't stand back behind everything else on the machine.
    monkeypatch.setenv("PYTHONPATH", str(SITE))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    checkpoint, videos = tmp_path / "tiny", tmp_path / "videos"
    model, processor = make_tiny()
    model.save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    videos.mkdir()
    for number in range(40):
        (videos / f"{number}.mp4").symlink_to(small_clip)
    (videos / "text.mp4").write_text("no video")
    (expected,) = score_videos([str(small_clip)], model, processor)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        killed = []

        def kill_one(scores, _):
            for score in scores:
                if not killed:
                    workers = [p for p in psutil.Process().children(recursive=True) if "MapBatches(_Worker)" in " ".join(p.cmdline())]
                    killed.append(workers[0].pid)
                    os.kill(workers[0].pid, signal.SIGKILL)
                yield score

        failed = score_to_file(find_videos([str(videos)]), tmp_path / "results.parquet", ray_engine(str(checkpoint), batch_size=2, workers=2), kill_one)
    finally:
        ray.shutdown()
    assert killed and failed == 1
    table = pd.read_parquet(tmp_path / "results.parquet")
    assert sorted(table["path"]) == sorted(str(videos / name) for name in os.listdir(videos))
    assert ((table["score"].dropna() - expected.score).abs() < 1e-3).all()


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
            store.pipe({"bucket/library/a b.mp4": small_clip.read_bytes(), "bucket/library/deep/ü.mp4": small_clip.read_bytes()})
            store.pipe({"bucket/library/notes.txt": b"notes", "bucket/library/empty.mp4": b""})
            yield "s3://bucket/library"
        finally:
            server.terminate()
            server.wait()


def test_videos_of_a_bucket(bucket, tiny, small_clip, tmp_path):
    model, processor = tiny
    videos = find_videos([bucket])
    assert videos == [f"{bucket}/{name}" for name in ("a b.mp4", "deep/ü.mp4", "empty.mp4")]
    assert find_videos([f"{bucket}/*.mp4"]) == [f"{bucket}/a b.mp4", f"{bucket}/empty.mp4"]
    assert find_videos([f"{bucket}/a b.mp4"]) == [f"{bucket}/a b.mp4"]
    (expected,) = score_videos([str(small_clip)], model, processor)
    before = set(os.listdir("/tmp"))
    scores = {score.path: score for score in score_in_bulk([*videos, f"{bucket}/none.mp4"], model, processor, workers=2)}
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("lmmvqa-")]
    assert all(abs(scores[video].score - expected.score) < 1e-3 for video in videos[:2])
    assert scores[f"{bucket}/empty.mp4"].error.startswith(f"{bucket}/empty.mp4")
    assert "none.mp4 can't be fetched" in scores[f"{bucket}/none.mp4"].error
    # One by one they give the same.
    assert next(score_videos(videos[:1], model, processor)).score == pytest.approx(expected.score, abs=1e-3)


def test_a_file_that_is_too_large_is_not_fetched(bucket, monkeypatch):
    monkeypatch.setattr(remote_videos, "LARGEST_FETCH", 100)
    with pytest.raises(VideoError, match="larger than"), remote_videos.at_hand(f"{bucket}/a b.mp4"):
        pass


def test_what_cannot_be_listed_is_said():
    with pytest.raises(VideoError, match=r"nosuch://place/ can't be listed"):
        find_videos(["nosuch://place/"])
