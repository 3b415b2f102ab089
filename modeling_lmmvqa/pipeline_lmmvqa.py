"""The pipeline "video-quality-assessment": videos in, what `lmmvqa score --json` prints out."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any

from transformers import Pipeline

from .feature_batches import assessment_inputs
from .quality_timeline import STEP_S, WINDOW_S, EncodedVideo, Progress, assess_timeline, encode_stream, no_progress


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

    def __call__(self, videos: Any, **kwargs: Any) -> Any:
        """
        Args:
            videos: one video (path, `file://` URL, bytes, binary file, mapping with "path" or "bytes", array with
                `fps`), a list, a `datasets` column, or a generator.
            kwargs: `batch_size` (videos that the language model sees at once, 1), `decoder` ("auto", "pyav" or
                "decord"), `fps` (of arrays), `timeline` (also quality over time, False). With `timeline`: `window` and
                `step` in seconds (4 and 1), `key_frames` (small JPEGs of the worst and the best second, False),
                `progress` (called as the work goes on with what is counted, "seconds" and then "windows", how many are
                done, and of how many).

        Returns:
            A dictionary for one video, a list for a list or a column, an iterator for a generator. Keys: path, score,
            score_std, interval (the central 90 %), level, level_probabilities, duration_s, error; with `timeline`,
            timeline (see `assess_timeline`). A video that can't be read has an error that says why and what to do, and
            nothing else.
        """
        if _is_one_video(videos):
            return next(super().__call__(_generator([videos]), **kwargs))
        results = super().__call__(_generator(videos), **kwargs)
        return list(results) if isinstance(videos, Sized) else results

    def _sanitize_parameters(
        self,
        timeline: bool | None = None,
        window: int | None = None,
        step: int | None = None,
        key_frames: bool | None = None,
        progress: Progress | None = None,
        decoder: str | None = None,
        fps: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        settings = {
            "timeline": timeline, "window": window, "step": step, "key_frames": key_frames, "progress": progress, "decoder": decoder, "fps": fps,
        }  # fmt: skip
        return {}, {name: value for name, value in settings.items() if value is not None}, {}

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
            for row in self.forward(batch, **forward_params):
                yield self.postprocess(row, **postprocess_params)

    def _forward(
        self,
        batch: list[dict[str, Any]],
        timeline: bool = False,
        window: int = WINDOW_S,
        step: int = STEP_S,
        key_frames: bool = False,
        progress: Progress = no_progress,
        **settings: Any,
    ) -> list[dict[str, Any]]:
        video_processor = self.processor.video_processor
        if not timeline:
            settings["max_chunks"] = video_processor.max_chunks
        watched = {"keep_key_frames": key_frames, "progress": progress} if timeline else {}
        encoded = [self._encode(item, settings, watched) for item in batch]
        videos = [video for video in encoded if isinstance(video, EncodedVideo)]
        rows = iter(())
        if videos:
            features = [video.part(video_processor.choose(len(video.starts_s))) for video in videos]
            inputs = assessment_inputs(self.processor, features)
            quality = self.model.assess(**{name: tensor.to(self.device) for name, tensor in inputs.items()})
            rows = iter(quality.as_dicts(self.processor.levels))
        results = []
        for item, video in zip(batch, encoded, strict=True):
            if isinstance(video, str):
                results.append({"path": item["path"], "error": video})
                continue
            result = {"path": item["path"], **next(rows), "duration_s": round(video.info.duration_s, 3)}
            if timeline:
                result["timeline"] = assess_timeline(
                    self.model, self.processor, video, window=window, step=step, progress=progress
                )
            results.append(result)
        return results

    def _encode(self, item: dict[str, Any], settings: dict[str, Any], watched: dict[str, Any]) -> EncodedVideo | str:
        """The features of a video, or what is wrong with it."""
        try:
            stream = self.processor.video_processor.stream(item["video"], **settings)
            return encode_stream(self.model, stream, **watched)
        # The reader's errors are for people as they stand. Its class may be loaded twice, so it is known by its base.
        except ValueError as error:
            return str(error)
        # One bad file among many must not end the run, whatever is wrong with it.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
            return f"{item['path']}: {type(error).__name__}: {reason}. Please report this file."

    def postprocess(self, row: dict[str, Any]) -> dict[str, Any]:
        """The keys of the command line's JSON, in its order."""
        keys = ("path", "score", "score_std", "interval", "level", "level_probabilities", "duration_s", "error")
        return {key: row.get(key) for key in keys} | {key: row[key] for key in ("timeline",) if key in row}


def _generator(videos: Iterable[Any]) -> Iterator[Any]:
    yield from videos


def _is_one_video(video: Any) -> bool:
    if isinstance(video, str | bytes | os.PathLike | Mapping) or hasattr(video, "read") or hasattr(video, "ndim"):
        return True
    return not isinstance(video, Iterable)


__all__ = ["LmmVqaPipeline"]
