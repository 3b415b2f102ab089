"""The pipeline "video-quality-assessment": videos in, what `lmmvqa score --json` prints out."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any

from transformers import Pipeline

from .comparing import compare, rank
from .explaining import explain
from .video_score import VideoScore, describe_levels
from .video_scorer import VideoScorer, is_one_video

_SETTINGS = ("timeline", "most_seconds", "key_frames", "progress", "fps")


class LmmVqaPipeline(Pipeline):
    """Scores videos: 0 (worst) to 100 (best).

    ```python
    pipe = pipeline(model="path-or-hub-id", trust_remote_code=True)
    pipe("clip.mp4")
    pipe(["a.mp4", "b.mp4"], batch_size=8)
    pipe(dataset["video"], timeline=True)
    ```
    """

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = _load_video_processor = False
    _pipeline_calls_generate = False

    def __init__(self, *args: Any, **kwargs: Any):
        self._scorers: dict[str, VideoScorer] = {}
        super().__init__(*args, **kwargs)

    def __call__(self, videos: Any, **kwargs: Any) -> Any:
        """
        Args:
            videos: one video (path, `file://` URL, bytes, binary file, mapping with "path" or "bytes", array with
                `fps`), a list, a `datasets` column, or a generator.
            kwargs: `batch_size` (videos that the language model sees at once, 1), `decoder` ("auto", "pyav" or
                "decord"), `fps` (of arrays), `timeline` (also quality over time, False). With `timeline`:
                `most_seconds` (of a longer video so many, evenly spaced), `key_frames` (a small JPEG of each second,
                False), `progress` (called as the work goes on with what is counted, "seconds" and
                then "moments", how many are done, and of how many).

        Returns:
            A row for one video, a list for a list or a column, an iterator for a generator. A row is a dictionary with
            the columns of `video_score.COLUMNS`, and with `timeline` the timeline (see `assess_timeline`). A video
            that can't be read has an error that says why and what to do, and no score.
        """
        if is_one_video(videos):
            return next(super().__call__(_generator([videos]), **kwargs))
        results = super().__call__(_generator(videos), **kwargs)
        return list(results) if isinstance(videos, Sized) else results

    @staticmethod
    def explain(row: Mapping[str, Any]) -> str:
        """A row in words: see `explaining.explain`."""
        return explain(row)

    def describe_levels(self) -> str:
        """Which scores each level word means: see `video_score.describe_levels`."""
        return describe_levels(self.processor.levels, self.processor.level_bounds)

    @staticmethod
    def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
        """Which of two rows people would prefer, and a verdict in words: see `comparing.Comparison`.

        Raises:
            ValueError: one of them is an error.
        """
        return compare(_scored(first), _scored(second)).as_row()

    @staticmethod
    def rank(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows from the best to the worst, each compared with the next one.

        Raises:
            ValueError: one of them is an error.
        """
        return [comparison.as_row() for comparison in rank([_scored(row) for row in rows])]

    def make_scorer(self, decoder: str) -> VideoScorer:
        """What scores the videos: here in this process, from the code that travels with a checkpoint."""
        return VideoScorer(self.model, self.processor, decoder=decoder)

    def _sanitize_parameters(
        self, decoder: str | None = None, **settings: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := settings.keys() - set(_SETTINGS):
            raise TypeError(f"Unknown setting {', '.join(sorted(unknown))}: choose of {', '.join(_SETTINGS)}.")
        given = {name: value for name, value in settings.items() if value is not None}
        return {}, given | ({} if decoder is None else {"decoder": decoder}), {}

    def preprocess(self, video: Any) -> dict[str, Any]:
        """The video as it is: its seconds are read when the towers are ready for them, so memory does not grow with its
        length."""
        return {"path": self.processor.video_processor.name_of(video), "video": video}

    def get_iterator(
        self,
        videos: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        # The library's own iterator pads tensors of a batch to one shape; videos are padded as features, behind the
        # towers.
        videos = iter(videos)
        while batch := [self.preprocess(video, **preprocess_params) for video in islice(videos, batch_size)]:
            for score in self.forward(batch, **forward_params):
                yield self.postprocess(score, **postprocess_params)

    def _forward(self, batch: list[dict[str, Any]], decoder: str = "auto", **settings: Any) -> list[VideoScore]:
        if decoder not in self._scorers:
            self._scorers[decoder] = self.make_scorer(decoder)
        return self._scorers[decoder].score_batch([item["video"] for item in batch], **settings)

    def postprocess(self, score: VideoScore) -> dict[str, Any]:
        return score.as_row()


def _scored(row: Mapping[str, Any]) -> VideoScore:
    return VideoScore(**{name: row.get(name) for name in ("path", "score", "score_std", "error", "timeline")})


def _generator(videos: Iterable[Any]) -> Iterator[Any]:
    yield from videos


__all__ = ["LmmVqaPipeline"]
