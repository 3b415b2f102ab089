"""Parts in the cache that were cut, changed or replaced, processes that are killed while they fill it, and a cache that
can't be written."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from inputs import SITE

from lmmvqa.checkpoints.assembling import default_checkpoint
from lmmvqa.checkpoints.cache import CacheError, cache_folder, scratch_folder
from lmmvqa.checkpoints.composing import ComposeError, load_decoder
from lmmvqa.checkpoints.default_files import DECODER
from lmmvqa.checkpoints.parts import Part, fetch
from lmmvqa.evaluation import natural_scene

CONTENT = b"what the part holds\n" * 1000


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LMMVQA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def part(monkeypatch, tmp_path):
    """A part of a package that pip finds on this disk."""
    with zipfile.ZipFile(tmp_path / "small-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small/part.bin", CONTENT)
        wheel.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return Part("small", "1.0", "small/part.bin", hashlib.sha256(CONTENT).hexdigest(), "MIT")


@pytest.mark.parametrize("harm", ["cut", "changed", "empty"])
def test_a_part_is_checked_before_every_use(harm, cache, part, caplog):
    file = fetch(part)
    assert file.read_bytes() == CONTENT and fetch(part) == file and not caplog.text
    file.write_bytes({"cut": CONTENT[:100], "changed": CONTENT[::-1], "empty": b""}[harm])
    assert fetch(part).read_bytes() == CONTENT and str(file) in caplog.text
    assert [path.name for path in cache.iterdir()] == ["parts"]


def test_nothing_in_the_cache_is_unpickled(cache, monkeypatch, tmp_path):
    trace = tmp_path / "trace"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    content = pickle.dumps(Evil())
    ranges = natural_scene.BRISQUE_RANGES
    file = cache / "parts" / ranges.sha256[:16] / "normalize.pickle"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    natural_scene._regression.cache_clear()
    value = natural_scene.brisque(np.random.default_rng(0).uniform(0, 255, (96, 96)))
    assert np.isfinite(value) and file.read_bytes() != content
    # Also where the file has the right hash.
    changed = Part(ranges.package, ranges.version, ranges.member, hashlib.sha256(content).hexdigest(), ranges.licence)
    file = cache / "parts" / changed.sha256[:16] / "normalize.pickle"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    monkeypatch.setattr(natural_scene, "BRISQUE_RANGES", changed)
    natural_scene._regression.cache_clear()
    with pytest.raises(ValueError):
        natural_scene.brisque(np.zeros((96, 96)))
    natural_scene._regression.cache_clear()
    assert not trace.exists()


def test_a_gguf_file_that_is_cut_is_named(tmp_path):
    file = tmp_path / "decoder.gguf"
    content = fetch(DECODER).read_bytes()
    for length in (0, 5000, len(content) // 2):
        file.write_bytes(content[:length])
        with pytest.raises(ComposeError, match=r"decoder\.gguf can't be read as a GGUF file .*fetch it again"):
            load_decoder(str(file))


HOLDER = """
import lmmvqa_command, os, signal
from lmmvqa.checkpoints.cache import scratch_folder
with scratch_folder() as folder:
    (folder / "model.safetensors").write_bytes(bytes(1000))
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_what_a_killed_process_leaves_goes_with_the_next(cache):
    command = [sys.executable, "-c", HOLDER]
    environment = os.environ | {"PYTHONPATH": str(SITE)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as held:
        folder = Path(held.stdout.readline().strip())
        with scratch_folder() as ours:
            # That of a process that lives is not touched.
            assert folder.is_dir() and ours.is_dir() and ours != folder
        held.send_signal(signal.SIGKILL)
    assert (folder / "model.safetensors").is_file()
    with scratch_folder():
        assert not folder.exists()
    assert os.listdir(cache) == []


def test_leftovers_go_where_nothing_is_to_be_made(monkeypatch):
    lock = cache_folder() / ".making-0-left.lock"
    left = cache_folder() / ".making-0-left"
    default_checkpoint()
    left.mkdir()
    lock.touch()
    default_checkpoint()
    assert not left.exists() and not lock.exists()


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch, part):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LMMVQA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match=r"file/cache, where checkpoints are kept, can't be written .*LMMVQA_CACHE"):
        fetch(part)
