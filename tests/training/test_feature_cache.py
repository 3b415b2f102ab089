"""Entries of the feature cache that are cut, disks that are full, and what killed processes leave."""

import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from inputs import SITE, ffmpeg

from lmmvqa.training.feature_cache import FeatureCache, FeatureCacheError
from lmmvqa.training.trainer import last_checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("clip") / "small.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=2", "-c:v", "libx264", path)
    return str(path)


def fill(cache, video):
    (key,) = cache.keys([video])
    assert list(cache.fill([(key, video)])) == [(key, None)]
    return key


def test_an_entry_that_is_cut_is_encoded_anew(tiny, small, tmp_path, caplog):
    cache = FeatureCache(tmp_path, *tiny)
    key = fill(cache, small)
    entry, expected = tmp_path / f"{key}.safetensors", cache.load(key)
    content = entry.read_bytes()
    for harmed in (b"", content[:5], content[:100], content[:-1], b"\xff" * 500, content + b"more"):
        entry.write_bytes(harmed)
        assert cache.missing([key]) == [key] and str(entry) in caplog.text
        assert fill(cache, small) == key
        assert entry.read_bytes() == content and cache.missing([key]) == []
    assert all(torch.equal(cache.load(key)[name], features) for name, features in expected.items())


def test_an_entry_that_is_cut_in_mid_run_is_named(tiny, small, tmp_path):
    cache = FeatureCache(tmp_path, *tiny)
    key = fill(cache, small)
    entry = tmp_path / f"{key}.safetensors"
    os.truncate(entry, 200)
    with pytest.raises(FeatureCacheError, match=f"{key}.safetensors.*delete the file"):
        cache.load(key)


def test_a_full_disk_is_no_fault_of_the_video(tiny, small, tmp_path):
    cache = FeatureCache(tmp_path, *tiny)
    (key,) = cache.keys([small])
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(FeatureCacheError, match=f"{tmp_path}, the cache of features, can't be written"):
            list(cache.fill([(key, small)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FeatureCacheError, match=r"file/cache, the cache of features, can't be written"):
        FeatureCache(tmp_path / "file" / "cache", *tiny)


HOLDER = """
import os, signal, sys
from pathlib import Path
from lmmvqa.file_locks import open_locked
file = open_locked(Path(sys.argv[1]))
print("locked", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_what_a_killed_process_was_writing_goes_with_the_next(tiny, tmp_path):
    partial = tmp_path / "0.1-ab.partial"
    environment = os.environ | {"PYTHONPATH": str(SITE)}
    command = [sys.executable, "-c", HOLDER, str(partial)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        FeatureCache(tmp_path, *tiny)
        assert partial.exists()
        holder.send_signal(signal.SIGKILL)
    FeatureCache(tmp_path, *tiny)
    assert not partial.exists()


def test_a_checkpoint_with_a_damaged_file_is_left_out(tmp_path, caplog):
    for step in (10, 20):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        torch.save({"state": torch.zeros(1000)}, folder / "optimizer.pt")
        (folder / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    state = tmp_path / "checkpoint-20" / "optimizer.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (content, content[:2000]):
        state.write_bytes(damaged)
        caplog.clear()
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
        assert "checkpoint-20/optimizer.pt is damaged" in caplog.text
    (tmp_path / "checkpoint-10" / "optimizer.pt").write_bytes(b"")
    assert last_checkpoint(tmp_path) is None
