"""One second of a video as the towers take it: arrays, made without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from .chunk_plan import evenly_spaced
from .video_names import name_of
from .video_reader import Chunk, VideoError, VideoInfo, open_video


@dataclass
class PreparedChunk:
    """One second of a video, ready for the towers.

    Args:
        start_s: where it starts, in seconds.
        key_frame: uint8 RGB (3, height, width) at full size, a view of the decoder's memory.
        pixel_values: (3, height, width) float32, the key frame as the spatial tower takes it.
        temporal_values: (temporal_num_frames, 3, height, width) float32; None where `temporal_size` is None.
        info: what is known of the whole video.
    """

    start_s: float
    key_frame: np.ndarray
    pixel_values: np.ndarray
    temporal_values: np.ndarray | None
    info: VideoInfo

    def as_batch(self) -> dict[str, np.ndarray]:
        """The arrays of `LmmVqaVideoProcessor.preprocess` for a video of this one chunk."""
        streams = {"pixel_values_videos": self.pixel_values, "temporal_values": self.temporal_values}
        return {name: stream[None, None] for name, stream in streams.items() if stream is not None}


@dataclass(frozen=True)
class FramePreparation:
    """How frames are prepared: the settings of `LmmVqaVideoProcessor`, by their names there."""

    size: Mapping[str, int]
    do_resize: bool
    do_center_crop: bool
    do_normalize: bool
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    temporal_size: Mapping[str, int] | None
    temporal_num_frames: int
    temporal_mean: tuple[float, ...]
    temporal_std: tuple[float, ...]
    temporal_differences: bool
    max_chunks: int
    min_tail: float
    decoder: str

    # For what has a processor and can't import this package: code of a model on the Hub.
    name_of = staticmethod(name_of)
    VideoError = VideoError

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> FramePreparation:
        """From settings of which some may be of no use here."""
        named = {field.name: settings[field.name] for field in fields(cls)}
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in named.items()
        }
        sizes = {name: _height_and_width(settings[name]) for name in ("size", "temporal_size")}
        return cls(**plain | sizes)

    def as_settings(self) -> dict[str, Any]:
        """What `of` takes, for JSON."""
        return asdict(self)

    def stream(
        self, video: Any, *, decoder: str | None = None, max_chunks: int | None = None, fps: float | None = None
    ) -> Iterator[PreparedChunk]:
        """Every second of one video as it is decoded, in memory that does not grow with its length; see `open_video`.
        Without `max_chunks` all of them come."""
        with open_video(
            video, backend=decoder or self.decoder, fps=fps, max_chunks=max_chunks, **self.reading_options()
        ) as reader:
            for chunk in reader:
                yield self.prepare(chunk, reader.info)

    def reading_options(self) -> dict[str, Any]:
        """What `open_video` must be told about the frames that are taken."""
        size = self.temporal_size
        return {
            "frames_per_chunk": self.temporal_num_frames,
            "frame_size": None if size is None else (size["height"], size["width"]),
            "min_tail": self.min_tail,
        }

    def prepare(self, chunk: Chunk, info: VideoInfo) -> PreparedChunk:
        """A chunk as `open_video` gives it, for the towers."""
        key_frame, frames, temporal_values = chunk.key_frame, chunk.frames, None
        lies_down = self.do_resize and self.do_center_crop and self._stands_across(key_frame)
        if frames is not None:
            if lies_down and frames.shape[2] == frames.shape[3]:
                frames = np.rot90(frames, axes=(2, 3))
            temporal_values = _normalized(frames, self.temporal_mean, self.temporal_std)
            if self.temporal_differences:
                temporal_values = np.diff(temporal_values, axis=0, prepend=temporal_values[:1])
        seen = np.rot90(key_frame, axes=(1, 2)) if lies_down else key_frame
        if self.do_resize:
            seen = self._resized(seen)
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (None, None)
        return PreparedChunk(chunk.start_s, key_frame, _normalized(seen, mean, std), temporal_values, info)

    def choose(self, num_chunks: int) -> list[int]:
        """Which chunks of a video of so many are judged together."""
        return evenly_spaced(num_chunks, self.max_chunks).tolist()

    def _stands_across(self, frame: np.ndarray) -> bool:
        """Whether a frame is upright where `size` lies, or the other way round."""
        height, width = frame.shape[1:]
        return (height - width) * (self.size["height"] - self.size["width"]) < 0

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        """(3, height, width) uint8 to `size`, antialiased bicubic as CLIP was trained."""
        height, width = self.size["height"], self.size["width"]
        target = (height, width)
        if self.do_center_crop:
            scale = max(height / frame.shape[1], width / frame.shape[2])
            target = (max(height, round(frame.shape[1] * scale)), max(width, round(frame.shape[2] * scale)))
        if frame.shape[1:] != target:
            picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
            frame = np.asarray(picture.resize(target[::-1], Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        top, left = round((target[0] - height) / 2), round((target[1] - width) / 2)
        return frame[:, top : top + height, left : left + width]


def _height_and_width(size: Mapping[str, int] | None) -> dict[str, int] | None:
    return None if size is None else {"height": size["height"], "width": size["width"]}


def _normalized(frames: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    """(..., 3, height, width) uint8 to float32, colour by colour: (colour / 255 - mean) / std."""
    # In place: fresh memory for every step would take longer than the arithmetic.
    values = np.empty(frames.shape, np.float32)
    values[...] = frames
    values /= np.float32(255)
    if mean is not None:
        mean, std = (np.array(colours, np.float32)[:, None, None] for colours in (mean, std))
        values -= mean
        values /= std
    return values
