"""Damaged files of every kind: each is read or refused with a reason, and nothing hangs, dies or grows."""

import random
from pathlib import Path

import pytest
from inputs import ffmpeg
from tiny_models import make_tiny

from lmmvqa.scoring.reading_workers import ReadingLimits, ReadingWorker
from processing.video_reader import VideoError

X264, X265 = ("libx264", "-preset", "ultrafast"), ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
VP9, AV1 = ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"), ("libsvtav1", "-preset", "12")
KINDS = {
    "h264.mp4": X264, "h264.mkv": X264, "h264.mov": X264, "h264.ts": X264, "h264.flv": X264, "h264.avi": X264,
    "fragmented.mp4": (*X264, "-movflags", "frag_keyframe+empty_moov"),
    "hevc.mp4": X265, "hevc.mkv": X265, "vp9.webm": VP9, "vp9.mp4": VP9, "av1.mp4": AV1, "av1.mkv": AV1,
    "av1.webm": AV1, "mpeg4.avi": ("mpeg4",), "mpeg2.mpg": ("mpeg2video",), "mpeg2.ts": ("mpeg2video",),
    "h263.3gp": ("h263",), "wmv2.wmv": ("wmv2",),
    "theora.ogv": ("libtheora",), "mjpeg.avi": ("mjpeg",),
}  # fmt: skip
SECONDS, MEGABYTES = 20, 512


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    for name, encoder in KINDS.items():
        source = "testsrc2=size=176x144:rate=12:duration=2"
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            source,
            "-pix_fmt",
            "yuvj420p" if name == "mjpeg.avi" else "yuv420p",
            "-c:v",
            *encoder,
            folder / name,
        )
    return {name: (folder / name).read_bytes() for name in KINDS}


def mutate(content: bytes, draw: random.Random) -> bytes:
    """One to four faults: what storage, transfers and attackers do to files. Headers are hit as often as all the
    rest."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if len(data) < 16:
            break
        reach = len(data) if draw.random() < 0.5 else min(len(data), 1024)
        start = draw.randrange(reach - 8)
        length = min(draw.choice([1, 2, 4, 16, 512, 4096]), len(data) - start)
        match draw.randrange(8):
            case 0:
                data[start] ^= 1 << draw.randrange(8)
            case 1:
                data[start : start + length] = draw.randbytes(length)
            case 2:
                data[start : start + length] = bytes([draw.choice([0, 255])]) * length
            case 3:  # sizes and counts that are absurd
                data[start : start + 4] = draw.choice(
                    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1"]
                )
            case 4:
                del data[start : start + length]
            case 5:
                data[start:start] = data[start : start + length]
            case 6:
                other = draw.randrange(len(data) - length + 1)
                data[start : start + length] = data[other : other + length]
            case _:
                del data[draw.randrange(1, len(data)) :]
    return bytes(data)


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
            assert all(tensor.isfinite().all() for chunk in chunks for tensor in chunk.as_batch().values())
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
