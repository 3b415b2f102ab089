"""Damaged files of every kind: each is read or refused with a reason, and nothing hangs, dies or grows."""

import random
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from mutants import MEGABYTES, SECONDS, WAYS, make_originals, mutate, run, watched
from tiny_models import make_tiny

from lmmvqa.scoring.reading_workers import ReadingLimits, ReadingWorker
from processing.video_reader import VideoError


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    return make_originals(tmp_path_factory.mktemp("originals"))


def fuzz(originals: dict[str, bytes], folder: Path, count: int, decoder: str) -> None:
    draw = random.Random(0)
    processor = make_tiny()[1].video_processor
    reader = ReadingWorker(processor, decoder, ReadingLimits(SECONDS, MEGABYTES))
    outcomes: dict[str, int] = {"read": 0, "refused": 0, "lost": 0}
    memory: list[float] = []
    unclear: list[str] = []
    names = list(originals)
    for number in range(count):
        kind = names[number % len(names)]
        path = folder / f"{number}-{kind}"
        path.write_bytes(mutate(originals[kind], draw))
        process = reader._process
        try:
            chunks = list(reader.read(str(path), processor.max_chunks))
            assert 1 <= len(chunks) <= processor.max_chunks
            assert all(np.isfinite(array).all() for chunk in chunks for array in chunk.as_batch().values())
            outcomes["read"] += 1
        except VideoError as error:
            if path.name not in str(error) or "report this file" in str(error) or not str(error).endswith("."):
                unclear.append(str(error))
            outcomes["lost" if reader._process is None else "refused"] += 1
        path.unlink()
        if reader._process is process and process is not None and number % 100 == 99:
            memory.append(_resident_mb(process.pid))
    pid = reader._process.pid if reader._process else None
    reader.close()
    print(
        f"{count} files by {decoder}: {outcomes}; resident memory of the reader, MB: "
        f"{[round(size) for size in memory]} ({pid})"
    )
    assert not unclear, "\n".join(unclear)
    # Both happen, or the faults are too small or too great to show anything.
    assert outcomes["read"] > count * 0.2 and outcomes["refused"] > count * 0.1
    assert outcomes["lost"] <= count * 0.01
    # Buffers of a decoder come and go; a leak grows for as long as it runs.
    half = len(memory) // 2
    assert max(memory[half:]) <= max(memory[:half]) + 15, memory


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def test_the_watch_sees(tmp_path):
    with watched(tmp_path) as watch:
        Path(watch.targets[0]).read_bytes()
        host, port = watch.targets[-1].split("/")[2].split(":")
        socket.create_connection((host, int(port))).close()
        time.sleep(0.1)
    assert watch.opened and watch.asked


def test_mutants_by_every_way_in(tiny, tiny_checkpoint):
    """Four thousand of them: python tests/support/mutants.py"""
    tally, watch, _ = run(*tiny, tiny_checkpoint, 16 * len(WAYS))
    assert not tally.unclear, "\n".join(tally.unclear)
    assert tally.outcomes["scored"] > 20 and tally.outcomes["refused"] > 20
    assert tally.outcomes.total() == 16 * len(WAYS)
    assert not watch.opened and not watch.asked


def test_two_thousand_damaged_files(originals, tmp_path):
    fuzz(originals, tmp_path, 2_100, "pyav")


def test_damaged_files_by_decord(originals, tmp_path):
    pytest.importorskip("decord")
    fuzz(originals, tmp_path, 420, "decord")


@pytest.mark.slow
def test_ten_thousand_damaged_files(originals, tmp_path):
    fuzz(originals, tmp_path, 10_500, "pyav")


@pytest.mark.slow
def test_thousands_of_damaged_files_by_decord(originals, tmp_path):
    pytest.importorskip("decord")
    fuzz(originals, tmp_path, 4_200, "decord")
