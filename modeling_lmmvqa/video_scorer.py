"""Videos to scores: the one path under Python, the command line, the pipeline, bulk scoring, the demo and
evaluation."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np

from .answers import UndefinedScore
from .quality_timeline import assess_timeline
from .video_features import Progress, SecondFeatures, VideoFeatures, extract_features, no_progress
from .video_score import VideoScore, level_of, level_warning

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """Where the seconds of a video come from."""

    def read(self, video: Any, max_chunks: int | None = None, fps: float | None = None) -> Iterator[Any]:
        """Each `PreparedChunk` as it is decoded; evenly spaced over the video where there are more than `max_chunks`.
        `fps` is the rate of a video that is an array."""

    def close(self) -> None:
        """Let go of what reading needs."""


class Network(Protocol):
    """What scores: towers, language model and read-out. A model of torch, or graphs."""

    processor: Any
    threads: int

    def use_threads(self, count: int) -> None:
        """So many threads for each operation from now on, of those that this thread starts."""

    def encode_each(self, seconds: Iterator[dict[str, np.ndarray]]) -> Iterator[SecondFeatures]:
        """Features of each second of a video, from arrays as `PreparedChunk.as_batch` gives them."""

    def read_template(self) -> Any:
        """What `assess` can take over from call to call, as long as the weights stay."""

    def assess(
        self, videos: Sequence[Sequence[SecondFeatures]], questions: Sequence[str] | None = None, template: Any = None
    ) -> list[dict[str, dict[str, Any]]]:
        """The answers about each video, of the features of its seconds, as `QualityOutput.as_dicts` gives them."""

    def describe(self) -> dict[str, str]:
        """What of it can move a score: "device", "precision", and a hash of the "weights" or of the "graphs"."""


def network_of(model: Any, processor: Any) -> Network:
    """A model of torch as a network; any other is one."""
    if not hasattr(model, "base_model"):
        return model
    # Graphs need no torch.
    from .torch_network import TorchNetwork

    return TorchNetwork(model, processor)


class InProcessReader:
    """Reads videos in this process: no limits, and a file that crashes the decoder takes the program with it."""

    def __init__(self, video_processor: Any, decoder: str = "auto"):
        self._video_processor, self._decoder = video_processor, decoder

    def read(self, video: Any, max_chunks: int | None = None, fps: float | None = None) -> Iterator[Any]:
        return self._video_processor.stream(video, decoder=self._decoder, max_chunks=max_chunks, fps=fps)

    def close(self) -> None:
        pass


class VideoScorer:
    """Scores videos: 0 (worst) to 100 (best).

    >>> scorer("clip.mp4").score
    71.3

    A video that can't be read becomes a result with an `error`, and the others go on. The towers see one second at a
    time, so memory does not grow with the batch; the language model sees `batch_size` videos at once.

    Args:
        model: of torch, in eval mode, with `assess`; or a `Network`.
        processor: the one that is saved with it.
        batch_size: videos that the language model sees at once.
        decoder: "pyav", "decord" or "auto".
        reader: in the stead of an `InProcessReader` with this decoder.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        batch_size: int = 8,
        decoder: str = "auto",
        reader: Reader | None = None,
    ):
        self.network, self.processor, self.batch_size = network_of(model, processor), processor, batch_size
        self.reader: Reader = reader or InProcessReader(processor.video_processor, decoder)

    def __call__(self, videos: Any, **settings: Any) -> VideoScore | list[VideoScore] | Iterator[VideoScore]:
        """
        Args:
            videos: one video (path, URL, bytes, binary file, mapping with "path" or "bytes", array with `fps`), a
                list, a `datasets` column, or a generator.
            settings: those of `scores`.

        Returns:
            A `VideoScore` for one video, a list for a list or a column, an iterator for a generator.
        """
        if is_one_video(videos):
            return next(self.scores([videos], **settings))
        scores = self.scores(videos, **settings)
        return list(scores) if isinstance(videos, Sized) else scores

    def scores(self, videos: Iterable[Any], *, batch_size: int | None = None, **settings: Any) -> Iterator[VideoScore]:
        """Score videos one after the other, in their order; arguments are those of `score_batch`."""
        template = self.read_template()
        remaining = iter(videos)
        # A video is taken from the iterator when the one before it was read: who counts them sees each go by.
        while scores := self.score_batch(islice(remaining, batch_size or self.batch_size), template, **settings):
            yield from scores

    def score_batch(
        self,
        videos: Iterable[Any],
        template: Any = None,
        *,
        timeline: bool = False,
        most_seconds: int | None = None,
        key_frames: bool = False,
        progress: Progress = no_progress,
        fps: float | None = None,
    ) -> list[VideoScore]:
        """Score videos in one pass of the language model.

        Args:
            template: from `read_template`.
            timeline: also quality over time; every second of the videos is then read. The score is the same.
            most_seconds: of the timeline; a longer video gives this many, evenly spaced over the whole of it, and its
                score may differ a little.
            key_frames: the timeline also has a small JPEG of each second.
            progress: of the timeline: called with what is counted ("seconds", then "moments"), how many are done, and
                of how many.
            fps: frames per second of videos that are arrays.
        """
        if timeline:
            watched = {"max_chunks": most_seconds, "keep_key_frames": key_frames, "progress": progress}
        else:
            watched = {"max_chunks": self.processor.video_processor.max_chunks}
        found = [self.features(video, fps=fps, **watched) for video in videos]
        read = [item for item in found if isinstance(item, VideoFeatures)]
        scores = iter(zip(read, self.assess(read, template), strict=True))
        results = []
        for item in found:
            if isinstance(item, VideoScore):
                results.append(item)
                continue
            features, score = next(scores)
            if timeline and score.error is None:
                over_time = assess_timeline(self.network, features, score.score, template=template, progress=progress)
                score = replace(score, timeline=over_time)
            results.append(score)
        return results

    def features(
        self,
        video: Any,
        *,
        max_chunks: int | None = None,
        fps: float | None = None,
        keep_key_frames: bool = False,
        progress: Progress = no_progress,
        reader: Reader | None = None,
    ) -> VideoFeatures | VideoScore:
        """What the towers see in a video, or a result that says what is wrong with it.

        Args:
            max_chunks: a longer video gives this many seconds, evenly spaced over the whole of it; all by default.
            reader: in the stead of the scorer's own.
        """
        video_processor = self.processor.video_processor
        path = video_processor.name_of(video)
        try:
            rate = {} if fps is None else {"fps": fps}
            with closing((reader or self.reader).read(video, max_chunks, **rate)) as chunks:
                return extract_features(
                    self.network.encode_each,
                    path,
                    chunks,
                    max_chunks=max_chunks,
                    keep_key_frames=keep_key_frames,
                    progress=progress,
                )
        except video_processor.VideoError as error:
            logger.debug("%s can't be read", path, exc_info=True)
            return self._failed(path, str(error))
        # One bad file among a million must not end the run, whatever is wrong with it.
        except Exception as error:
            logger.debug("Unexpected error on %s", path, exc_info=True)
            reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
            return self._failed(path, f"{path}: {type(error).__name__}: {reason}. Please report this file.")

    def assess(self, videos: Sequence[VideoFeatures], template: Any = None) -> list[VideoScore]:
        """One pass of the language model over the features of several videos.

        Args:
            template: from `read_template`, to spare the text that stands in front of every video.
        """
        if not videos:
            return []
        choose = self.processor.video_processor.choose
        try:
            answers = self.network.assess(
                [video.part(choose(len(video.starts_s))) for video in videos], template=template
            )
        # One video whose numbers overflow must not take the others of its batch with it.
        except UndefinedScore as error:
            if len(videos) > 1:
                return [score for video in videos for score in self.assess([video], template)]
            return [self._failed(videos[0].path, f"{videos[0].path}: {error}")]
        return [self._result(video, said) for video, said in zip(videos, answers, strict=True)]

    def read_template(self) -> Any:
        """The text in front of every video, read once for many calls of `assess`."""
        return self.network.read_template()

    def close(self) -> None:
        """Let go of the reader; the next video makes a new one."""
        self.reader.close()

    def __enter__(self) -> "VideoScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _result(self, video: VideoFeatures, answers: dict[str, dict[str, Any]]) -> VideoScore:
        score, level = answers.pop("score"), answers.pop("level", None)
        for name, answer in answers.items():
            if self.processor.question(name).kind == "words":
                probable = sorted(answer["probabilities"].items(), key=lambda pair: -pair[1])
                answer["probabilities"] = dict(probable)
        parts = self.processor.levels, self.processor.level_bounds
        contradiction = level and level_warning(score["value"], level["value"], *parts)
        return VideoScore(
            path=video.path,
            score=score["value"],
            score_std=score["std"],
            interval=score["interval"],
            level=level and level_of(score["value"], *parts),
            level_probabilities=level and level["probabilities"],
            duration_s=round(video.info.duration_s, 3),
            warnings=(*getattr(video.info, "warnings", ()), *([contradiction] if contradiction else [])),
            answers=answers or None,
        )

    def _failed(self, path: str, error: str) -> VideoScore:
        nothing = {
            question.name: dict.fromkeys(
                ("value", "std", "interval") if question.kind == "number" else ("value", "probabilities")
            )
            for question in self.processor.questions
            if question.name not in ("score", "level")
        }
        levels = dict.fromkeys(self.processor.levels)
        return VideoScore(path, level_probabilities=levels or None, error=error, answers=nothing or None)


def is_one_video(video: Any) -> bool:
    """Whether this is a video, and not several."""
    if isinstance(video, str | bytes | os.PathLike | Mapping) or hasattr(video, "read") or hasattr(video, "ndim"):
        return True
    return not isinstance(video, Iterable)
