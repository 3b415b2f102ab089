"""Damaged and hostile files by every way in: each gets a score or a reason, and none leads to another file or address.

    python tests/support/mutants.py [--count 4000] [--first 0] [--seconds 480]

The files are made of small videos of every container: bits, blocks, sizes and ends of them are changed, and into some
goes text that makes decoders open what it names. They are scored by a tiny model of random weights. A file that nobody
has named is watched for being opened, by any process, and an address of this machine for being asked.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import math
import os
import random
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from inputs import ffmpeg
from typer.testing import CliRunner

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
WAYS = ("command", "bulk", "pipeline", "page", "bytes", "URL")
# Of reading one file.
SECONDS, MEGABYTES = 20, 512
# Files that are scored together.
ROUND = 20 * len(WAYS)
# Of inotify.
_IN_OPEN, _IN_ISDIR, _EVENT = 0x20, 0x40000000, 16


def make_originals(folder: Path) -> dict[str, bytes]:
    """A video of two seconds for each kind, by its name."""
    source = ("-f", "lavfi", "-i", "testsrc2=size=176x144:rate=12:duration=2")
    for name, encoder in KINDS.items():
        pixels = "yuvj420p" if name == "mjpeg.avi" else "yuv420p"
        ffmpeg(*source, "-pix_fmt", pixels, "-c:v", *encoder, folder / name)
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


def mislead(content: bytes, targets: Sequence[str], draw: random.Random) -> bytes:
    """Text that names another file or an address: alone, in front of a video, or somewhere in it."""
    target = draw.choice(targets)
    text = draw.choice(
        [
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
            f'#EXTM3U\n#EXT-X-MAP:URI="{target}"\n#EXTINF:2,\n{target}\n',
            f"ffconcat version 1.0\nfile '{target}'\n",
            f"file '{target}'\n",
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{target}</BaseURL></MPD>',
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{target}\n",
            f"[playlist]\nFile1={target}\n",
            f"{target}\n",
        ]
    ).encode()
    text = draw.choice([b"", b"\xef\xbb\xbf", b"\n \n"]) + text
    match draw.randrange(4):
        case 0:
            return text
        case 1:
            return text + content
        case 2:
            return mutate(text, draw)
        case _:
            start = draw.randrange(len(content))
            return content[:start] + text + content[start + len(text) :]


def mutant(number: int, originals: Mapping[str, bytes], targets: Sequence[str]) -> tuple[str, bytes]:
    """Name and content of a file, the same for the same number. One in four is misleading."""
    draw = random.Random(number)
    kind = list(originals)[number % len(originals)]
    change = partial(mislead, targets=targets) if draw.random() < 0.25 else mutate
    return f"{number}-{kind}", change(originals[kind], draw=draw)


@dataclass
class Watch:
    """What was reached that nobody had named."""

    targets: tuple[str, ...]
    opened: list[str] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)


@contextmanager
def watched(folder: Path) -> Iterator[Watch]:
    """A video in a folder, and addresses of this machine, whose use is noted until the context ends."""
    secret = folder / "secret.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=5:duration=1", "-pix_fmt", "yuv420p", secret)
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    named = (secret, f"file:{secret}", f"concat:{secret}|{secret}", f"subfile,,start,0,end,0,,:{secret}")
    targets = (*map(str, named), f"http://{address}/a.ts", f"tcp://{address}", f"rtmp://{address}/a")

    def listen() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            watch.asked.append(connection.close())

    thread = threading.Thread(target=listen, daemon=True)
    with openings_of(folder) as opened:
        watch = Watch(targets, opened)
        thread.start()
        try:
            yield watch
        finally:
            # Closing alone does not wake who waits in `accept`.
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            thread.join()


@contextmanager
def openings_of(folder: Path) -> Iterator[list[str]]:
    """The names of a folder's files that any process opened, once the context has ended."""
    libc, found = ctypes.CDLL(None, use_errno=True), list[str]()
    notices = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if notices < 0 or libc.inotify_add_watch(notices, os.fsencode(folder), _IN_OPEN) < 0:
        raise OSError(ctypes.get_errno(), "inotify can't watch", str(folder))
    try:
        yield found
    finally:
        with open(notices, "rb", buffering=0) as events:
            content = events.read(2**20) or b""
        while content:
            _, mask, _, length = struct.unpack_from("iIII", content)
            name, content = content[_EVENT : _EVENT + length], content[_EVENT + length :]
            if not mask & _IN_ISDIR:
                found.append(os.fsdecode(name.rstrip(b"\0")))


@dataclass
class Tally:
    """What became of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    unclear: list[str] = field(default_factory=list)

    def add(self, way: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if len(rows) != 1:
            self._fault("lost", f"{way}: {len(rows)} rows for {name}")
            return
        (row,) = rows
        error = row["error"]
        if error is None:
            if not (math.isfinite(row["score"]) and 0 <= row["score"] <= 100):
                self._fault("unclear", f"{way}: {name} has the score {row['score']}")
            self.outcomes["scored"] += 1
        elif "could not be read within" in error:
            self._fault("hung", error)
        elif "ended the process" in error:
            self._fault("lost", error)
        else:
            known = "<bytes>" if way == "bytes" else name
            if known not in error or "report this file" in error or not error.endswith("."):
                self._fault("unclear", f"{way}: {error}")
            self.outcomes["refused"] += 1

    def _fault(self, outcome: str, sentence: str) -> None:
        self.outcomes[outcome] += 1
        self.unclear.append(sentence)


Way = Callable[[Sequence[Path]], list[tuple[str, list[dict[str, Any]]]]]


@contextmanager
def ways_in(model: Any, processor: Any, checkpoint: Path, folder: Path) -> Iterator[dict[str, Way]]:
    """Each way in, for files that lie in one folder: their names, each with its rows."""
    from lmmvqa.commands.main import app
    from lmmvqa.demo.app import build
    from lmmvqa.scoring.pipeline import WorkerPipeline
    from lmmvqa.scoring.reading_workers import ReadingLimits
    from lmmvqa.scoring.scorer import Scorer

    limits = ("--time-limit", SECONDS, "--memory-limit", MEGABYTES)

    def by_command(paths: Sequence[Path], *options: object) -> str:
        arguments = ["score", *paths, "--model", checkpoint, "--device", "cpu", *limits, *options]
        done = CliRunner().invoke(app, [*map(str, arguments)])
        assert done.exit_code in (0, 1), done.output
        return done.stdout

    def listed(paths: Sequence[Path], rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
        return [(path.name, [row for row in rows if row["path"] == str(path)]) for path in paths]

    def command(paths: Sequence[Path]) -> list[tuple[str, list[dict[str, Any]]]]:
        return listed(paths, [*map(json.loads, by_command(paths, "--json").splitlines())])

    def bulk(paths: Sequence[Path]) -> list[tuple[str, list[dict[str, Any]]]]:
        output = folder / "rows.jsonl"
        by_command(paths, "--output", output)
        rows = [*map(json.loads, output.read_text().splitlines())]
        output.unlink()
        return listed(paths, rows)

    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer(model, processor, limits=ReadingLimits(SECONDS, MEGABYTES)))
        pipe = WorkerPipeline(model=model, processor=processor, task="video-quality-assessment")
        assess = next(one.fn for one in build(pipe).fns.values() if one.name == "assess")
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        stack.enter_context(closing(server.socket))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        stack.callback(server.shutdown)
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield {
            "command": command,
            "bulk": bulk,
            "pipeline": lambda paths: [(path.name, [pipe(str(path))]) for path in paths],
            "page": lambda paths: [(path.name, [assess(str(path))[0]]) for path in paths],
            "bytes": lambda paths: [(path.name, [scorer(path.read_bytes()).as_row()]) for path in paths],
            "URL": lambda paths: [
                (path.name, [scorer(f"{address}/{path.relative_to(folder)}").as_row()]) for path in paths
            ],
        }


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def run(
    model: Any, processor: Any, checkpoint: Path, count: int, first: int = 0, seconds: float = math.inf
) -> tuple[Tally, Watch, int]:
    """Score so many mutants, as many by each way.

    Args:
        checkpoint: the same model in a folder, for commands.
        seconds: after these no further round begins.

    Returns:
        What became of them, what they reached, and the number of the mutant to go on with.
    """
    tally, began, number = Tally(), time.monotonic(), first
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary).resolve()
        originals_folder, secrets, files = (place / name for name in ("originals", "secrets", "files"))
        for folder in (originals_folder, secrets, files):
            folder.mkdir()
        originals = make_originals(originals_folder)
        with watched(secrets) as watch, ways_in(model, processor, checkpoint, files) as ways:
            while number < first + count and time.monotonic() - began < seconds:
                numbers = range(number, min(number + ROUND, first + count))
                number = numbers.stop
                for index, (name, way) in enumerate(ways.items()):
                    folder = files / f"{index}"
                    folder.mkdir()
                    mine = numbers[index :: len(ways)]
                    paths = []
                    for one in mine:
                        file, content = mutant(one, originals, watch.targets)
                        paths.append(folder / file)
                        paths[-1].write_bytes(content)
                    for file, rows in way(paths):
                        tally.add(name, file, rows)
                    for path in paths:
                        path.unlink()
                    folder.rmdir()
    return tally, watch, number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="After these no further round begins.")
    options = parser.parse_args()
    from tiny_models import make_tiny

    logging.disable(logging.WARNING)
    parts = make_tiny()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as checkpoint:
        for part in parts:
            part.save_pretrained(checkpoint)
        tally, watch, end = run(*parts, Path(checkpoint), options.count, options.first, options.seconds)
    print("\n".join(tally.unclear))
    print(
        f"Mutants {options.first} to {end - 1} in {time.monotonic() - began:.0f} s: {dict(tally.outcomes)}; "
        f"{len(watch.opened)} opened another file, {len(watch.asked)} requests to the network. Next: --first {end}"
    )


if __name__ == "__main__":
    main()
