"""Videos are read in processes of their own, which a bad file may hang, fill or crash without harm to anything else."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from lmmvqa.scoring import reading_process
from processing.frame_preparation import PreparedChunk
from processing.video_names import name_of
from processing.video_reader import VideoError, VideoInfo

logger = logging.getLogger(__name__)

# What FFmpeg leaks on a damaged file (0.4 kB on average) never adds up to more than a few MB.
VIDEOS_OF_A_PROCESS = 5_000
# glibc gives memory that was freed back at once, and takes it from one heap: by itself it would keep what the largest
# frames so far have needed, in pieces. Other systems ignore these.
_ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


@dataclass(frozen=True)
class ReadingLimits:
    """What reading one video may take; a file that wants more fails, and only it.

    Args:
        seconds: of fetching and decoding, not counting the time in which the reader waits for the model.
        megabytes: of memory, beyond what the reader needs to be there; ignored on systems without such limits.
    """

    seconds: float = 300.0
    megabytes: int = 2048


class _Patience:
    """The time for which a process may be waited for, over all waits for one video."""

    def __init__(self, name: str, seconds: float):
        self._name, self._seconds, self._left = name, seconds, seconds

    def until_something_comes(self, connection: Connection) -> None:
        """Raises:
        VideoError: the time is up.
        """
        began = time.monotonic()
        if not connection.poll(self._left):
            raise VideoError(
                f"{self._name} could not be read within {self._seconds:g} s. It may be broken: leave it out, or raise "
                "the time limit (--time-limit)."
            )
        self._left = max(0.0, self._left - (time.monotonic() - began))


class ReadingWorker:
    """A process that reads one video after the other, replaced when it is lost. It is started now, and is ready in a
    quarter of a second.

    Args:
        video_processor: prepares here what the process has read.
        decoder: "pyav", "decord" or "auto".
        threads: of FFmpeg; 0: one for each core. Several videos read at once get one core each.
    """

    def __init__(
        self,
        video_processor: Any,
        decoder: str = "auto",
        limits: ReadingLimits = ReadingLimits(),
        threads: int = 1,
    ):
        self._video_processor = video_processor
        # The limit of time is kept here, where a decoder that hangs can be ended.
        self._options = {"backend": decoder, "time_limit_s": None, **video_processor.reading_options()}
        self._limits, self._threads = limits, threads
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._videos = 0
        # Who stops a run ends processes that belong to other threads.
        self._lock = threading.RLock()
        self._closed = False
        # Processes that ended in the middle of a video.
        self.lost = 0
        # Processor time of reading and preparing, in the process and here, so far.
        self.seconds_there = self.seconds_here = 0.0
        self._start()

    def read(self, video: Any, max_chunks: int | None = None) -> Iterator[PreparedChunk]:
        """Each chunk as it is decoded, one ahead; evenly spaced over the video where there are more than `max_chunks`.

        Raises:
            VideoError: the video can't be read within the limits; the message names it and the remedy.
        """
        finished = False
        waiting = _Patience(name_of(video), self._limits.seconds)
        info: VideoInfo | None = None
        try:
            if self._videos == VIDEOS_OF_A_PROCESS:
                self._end()
            if self._process is None:
                self._start()
            self._videos += 1
            self._connection.send((video, self._options | {"max_chunks": max_chunks}))
            while not finished:
                waiting.until_something_comes(self._connection)
                kind, content = self._connection.recv()
                finished = kind in ("end", "error")
                if kind == "info":
                    info = content
                elif kind == "log":
                    logging.getLogger(content.name).handle(content)
                elif kind == "chunk":
                    began = time.thread_time()
                    read = reading_process.receive_chunk(
                        self._connection, content, lambda: waiting.until_something_comes(self._connection)
                    )
                    chunk = self._video_processor.prepare(read, info)
                    self.seconds_here += time.thread_time() - began
                    yield chunk
                elif kind == "error":
                    raise VideoError(content)
                else:
                    self.seconds_there += content
        except (EOFError, ConnectionError) as error:
            self.lost += 1
            reason = self._last_words()
            raise VideoError(
                f"{name_of(video)} ended the process that was reading it ({reason}). Convert it, or leave it out."
            ) from error
        finally:
            if not finished:
                self._end()

    def close(self) -> None:
        """End the process for good, also in the middle of a video."""
        with self._lock:
            self._closed = True
            self._end()

    def __enter__(self) -> ReadingWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.stdin.close()
                self._process.wait()
                self._process = None

    def _start(self) -> None:
        # Not by `multiprocessing`: its processes import the program that started them, and with it torch.
        with self._lock:
            if self._closed:
                raise EOFError
            self._connection, theirs = Pipe()
            end = theirs.fileno()
            if os.name == "nt":
                os.set_handle_inheritable(end, True)
            # It must find the packages that this process finds, and nothing in the folder that the user happens to be
            # in.
            packages = os.pathsep.join(path or os.getcwd() for path in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", reading_process.__name__, str(end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # decord writes there of its own accord, about files of which the reader says more.
                stderr=None if logger.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
                env=os.environ | _ALLOCATOR | {"PYTHONPATH": packages, "OPENBLAS_NUM_THREADS": "1"},
                **({"close_fds": False} if os.name == "nt" else {"pass_fds": [end]}),
            )
            theirs.close()
            self._videos = 0
            self._connection.send((self._limits.megabytes, self._threads))

    def _last_words(self) -> str:
        with self._lock:
            if self._process is None:
                return "stopped"
            try:
                code = self._process.wait(5)
            except subprocess.TimeoutExpired:
                return "it does not answer"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
