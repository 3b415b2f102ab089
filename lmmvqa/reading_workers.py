"""Videos are read in processes of their own, which a bad file may hang, fill or crash without harm to anything else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch

from lmmvqa.remote_videos import at_hand
from processing import video_reader
from processing.video_names import name_of
from processing.video_reader import VideoError, VideoInfo

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None


@dataclass(frozen=True)
class ReadingLimits:
    """What reading one video may take; a file that wants more fails, and only it.

    Args:
        seconds: of fetching and decoding, not counting the time in which the reader waits for the model.
        megabytes: of memory, beyond what the reader needs to be there; ignored on systems without such limits.
    """

    seconds: float = 300.0
    megabytes: int = 2048


class ReadingWorker:
    """A process that reads one video after the other, replaced when it is lost.

    Args:
        video_processor: a `LmmVqaVideoProcessor`; the process gets a copy.
        decoder: "pyav", "decord" or "auto".
    """

    def __init__(self, video_processor: Any, decoder: str = "auto", limits: ReadingLimits = ReadingLimits()):
        self._arguments = (video_processor, decoder, limits)
        self._limits = limits
        self._process: Any = None
        self._connection: Any = None
        # Who stops a run ends processes that belong to other threads.
        self._lock = threading.RLock()
        self._closed = False
        self.info: VideoInfo | None = None
        self.processor_seconds = 0.0

    def read(self, video: Any) -> Iterator[dict[str, torch.Tensor]]:
        """Each chunk as it is decoded, one ahead: the tensors of the video processor for a video of this one chunk. Then `info`
        holds what is known of the video, and `processor_seconds` has grown by the processor time that the worker spent.

        Raises:
            VideoError: the video can't be read within the limits; the message names it and the remedy.
        """
        name = name_of(video)
        remaining, finished = self._limits.seconds, False
        try:
            if self._process is None:
                self._start()
            self._connection.send(video)
            while not finished:
                began = time.monotonic()
                if not self._connection.poll(remaining):
                    remedy = "It may be broken: leave it out, or raise the time limit."
                    raise VideoError(f"{name} could not be read within {self._limits.seconds:g} s. {remedy}")
                remaining = max(0.0, remaining - (time.monotonic() - began))
                kind, content = self._connection.recv()
                finished = kind != "chunk"
                if kind == "chunk":
                    yield {key: torch.from_numpy(array) for key, array in content.items()}
                elif kind == "error":
                    raise content
                else:
                    self.info, seconds = content
                    self.processor_seconds += seconds
        except (EOFError, ConnectionError) as error:
            reason = self._last_words()
            raise VideoError(f"{name} ended the process that was reading it ({reason}). Convert it, or leave it out.") from error
        finally:
            if not finished:
                self._end()

    def close(self) -> None:
        """End the process for good, also in the middle of a video."""
        with self._lock:
            self._closed = True
            self._end()

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
                self._process = None

    def _start(self) -> None:
        try:
            context = get_context("forkserver")
            # Imported once in the server: a worker that is lost is replaced in milliseconds.
            context.set_forkserver_preload([__name__, "processing.video_processing_lmmvqa"])
        except ValueError:
            context = get_context("spawn")
        with self._lock:
            if self._closed:
                raise EOFError
            self._connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, dict(os.environ), *self._arguments), daemon=True)
            process.start()
            self._process = process
            theirs.close()

    def _last_words(self) -> str:
        with self._lock:
            if self._process is None:
                return "stopped"
            self._process.join(5)
            code = self._process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _serve(jobs: Any, environment: dict[str, str], video_processor: Any, decoder: str, limits: ReadingLimits) -> None:
    """Read videos until the parent hangs up."""
    # The fork server has the environment of the moment in which it was started; addresses and keys of stores come later.
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Several videos are read at once, so each is given one core.
    torch.set_num_threads(1)
    video_reader.DECODING_THREADS = 1
    _limit_memory(limits.megabytes)
    while True:
        try:
            video = jobs.recv()
            began = time.process_time()
            try:
                with at_hand(video) as source:
                    for chunk in video_processor.stream(source, decoder=decoder, max_chunks=video_processor.max_chunks):
                        # As arrays: tensors would go through shared memory, of which containers have little.
                        jobs.send(("chunk", {name: values.numpy() for name, values in chunk.as_batch().items()}))
            except VideoError as error:
                jobs.send(("error", VideoError(str(error))))
            except MemoryError:
                jobs.send(("error", VideoError(_too_large(video, limits))))
            except (EOFError, BrokenPipeError):
                raise
            # One bad file among a million must not end the run, whatever is wrong with it.
            except Exception as error:
                out_of_memory = "alloc" in str(error).lower()
                message = _too_large(video, limits) if out_of_memory else _unexpected(video, error)
                jobs.send(("error", VideoError(message)))
            else:
                jobs.send(("end", (chunk.info, time.process_time() - began)))
        except (EOFError, ConnectionError):
            return


def _end_with_parent() -> None:
    """A worker that hangs in a decoder would outlive a parent that was killed."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _limit_memory(megabytes: int) -> None:
    if resource is None or not os.path.exists("/proc/self/status"):
        return
    with open("/proc/self/status", encoding="ascii") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + megabytes * 2**20,) * 2)


def _too_large(video: Any, limits: ReadingLimits) -> str:
    return f"{name_of(video)} needs more than {limits.megabytes} MB of memory to read. Scale it down, or raise the memory limit."


def _unexpected(video: Any, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return f"{name_of(video)}: {type(error).__name__}: {reason}. Please report this file."
