"""What runs in a process that reads videos: `python -m lmmvqa.scoring.reading_process CONNECTION`, started by
`reading_workers`.

Neither torch nor transformers is imported here: they would take several times the memory that reading does, once for
every core.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from logging.handlers import QueueHandler
from multiprocessing import BufferTooShort, connection
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from lmmvqa.scoring.fetching import at_hand
from processing import pyav_decoder
from processing.video_names import name_of
from processing.video_reader import Chunk, VideoError, open_video

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None


def send_chunk(connection: Connection, chunk: Chunk) -> None:
    """Pixels go as they are: pickling would copy them several times, and shared memory is what containers have little
    of. What has to be copied, because it is rotated, is copied before anything is sent: memory may not suffice."""
    packed = np.ascontiguousarray(chunk.key_frame.transpose(1, 2, 0))
    frames = np.ascontiguousarray(chunk.frames) if chunk.frames is not None else np.empty(0, np.uint8)
    connection.send(("chunk", (chunk.index, chunk.start_s, packed.shape, frames.shape)))
    for pixels in (packed, frames):
        connection.send_bytes(pixels.reshape(-1))


def receive_chunk(
    connection: Connection,
    header: tuple[int, float, tuple[int, ...], tuple[int, ...]],
    wait: Callable[[], None],
) -> Chunk:
    """The other end of `send_chunk`, behind its header.

    Args:
        wait: returns when there is something to receive, or raises.

    Raises:
        EOFError: what comes is not the pixels that the header speaks of.
    """
    index, start_s, *shapes = header
    packed, frames = (np.empty(shape, np.uint8) for shape in shapes)
    for pixels in (packed, frames):
        wait()
        try:
            count = connection.recv_bytes_into(pixels.reshape(-1))
        except BufferTooShort as error:
            raise EOFError from error
        if count != pixels.size:
            raise EOFError
    return Chunk(index, start_s, packed.transpose(2, 0, 1), frames if frames.size else None)


class _ParentsLog(QueueHandler):
    """Warnings are shown where and how the parent shows its own."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(("log", record))


def main() -> None:
    """Read videos until the parent hangs up.

    The first message is the memory limit in MB and FFmpeg's threads; each other one a video and the options of
    `open_video`. The answers are ("info", `VideoInfo`), again where it changes, ("chunk", ...) for each, then
    ("end", processor seconds) or ("error", what a person is told); ("log", record) may come between them.
    """
    # An interrupt at the terminal goes to all processes; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs = getattr(connection, "PipeConnection", Connection)(int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger().addHandler(_ParentsLog(jobs))
    try:
        megabytes, pyav_decoder.DECODING_THREADS = jobs.recv()
        _limit_memory(megabytes)
        while True:
            video, options = jobs.recv()
            _read(jobs, video, options, megabytes)
    except (EOFError, ConnectionError):
        return


def _read(jobs: Connection, video: Any, options: dict[str, Any], megabytes: int) -> None:
    began = time.process_time()
    try:
        with at_hand(video) as source, open_video(source, **options) as reader:
            known = None
            for chunk in reader:
                # Warnings may come up on the way.
                if reader.info != known:
                    known = reader.info
                    jobs.send(("info", known))
                send_chunk(jobs, chunk)
    except VideoError as error:
        answer: tuple[Any, ...] = ("error", str(error))
    except MemoryError:
        answer = ("error", _too_large(video, megabytes))
    except (EOFError, ConnectionError):
        raise
    # One bad file among a million must not end the run, whatever is wrong with it.
    except Exception as error:
        out_of_memory = "alloc" in str(error).lower()
        answer = ("error", _too_large(video, megabytes) if out_of_memory else _unexpected(video, error))
    else:
        answer = ("end", time.process_time() - began)
    jobs.send(answer)


def _end_with_parent() -> None:
    """A process that hangs in a decoder would outlive a parent that was killed."""
    sys.stdin.buffer.read()
    os._exit(1)


def _limit_memory(megabytes: int) -> None:
    if resource is None or not os.path.exists("/proc/self/status"):
        return
    with open("/proc/self/status", encoding="ascii") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + megabytes * 2**20,) * 2)


def _too_large(video: Any, megabytes: int) -> str:
    return (
        f"{name_of(video)} needs more than {megabytes} MB of memory to read. Scale it down, or raise the memory limit "
        "(--memory-limit)."
    )


def _unexpected(video: Any, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return f"{name_of(video)}: {type(error).__name__}: {reason}. Please report this file."


if __name__ == "__main__":
    main()
