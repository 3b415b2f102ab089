"""Video processor: a video of any length in, key frames and chunks as tensors out."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor

from .errors import SettingError
from .frame_preparation import FramePreparation, PreparedChunk
from .video_names import name_of
from .video_reader import Chunk, VideoError, VideoInfo

# Settings that the library's video processors have and that are fixed here: the values that are taken, and what to say
# about any other.
_FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "do_convert_rgb": ((True,), "frames are always RGB"),
    "resample": (("bicubic", PILImageResampling.BICUBIC.value), "key frames are resized bicubically"),
    "do_rescale": ((True,), "colours are always divided by 255; do_normalize=False leaves them between 0 and 1"),
    "rescale_factor": ((1 / 255,), "colours are always divided by 255; change image_mean and image_std"),
    "do_sample_frames": ((True,), "a video is always cut into seconds; set max_chunks and temporal_num_frames"),
    "num_frames": ((), "set max_chunks, and temporal_num_frames for the frames of each second"),
    "crop_size": ((), "set size, to which do_center_crop cuts"),
    "do_pad": ((True,), "shorter videos of a batch are always filled up to the most seconds"),
    "default_to_square": ((True,), "set size with height and width"),
    "data_format": (("channels_first",), "tensors have their channels first"),
    "input_data_format": (("channels_last",), "arrays have their channels last"),
}


class LmmVqaVideosKwargs(VideosKwargs, total=False):
    """
    temporal_size (`dict[str, int]`, *optional*):
        Height and width of the frames of a chunk; None for a model without a temporal tower.
    temporal_num_frames (`int`):
        Frames of a chunk, evenly spaced in it.
    temporal_mean (`list[float]`):
        Mean of each colour, for the temporal tower.
    temporal_std (`list[float]`):
        Deviation of each colour, for the temporal tower.
    temporal_differences (`bool`):
        Whether each frame of a chunk is replaced by its difference to the one before it.
    max_chunks (`int`):
        A longer video gives this many chunks, evenly spaced over the whole of it.
    min_tail (`float`):
        How much of a second the last chunk must have; a shorter one is left out. 1 is the paper's eq. 2.
    decoder (`str`):
        "pyav", "decord" or "auto".
    """

    temporal_size: dict[str, int] | None
    temporal_num_frames: int
    temporal_mean: list[float] | tuple[float, ...]
    temporal_std: list[float] | tuple[float, ...]
    temporal_differences: bool
    max_chunks: int
    min_tail: float
    decoder: str


class LmmVqaVideoProcessor(BaseVideoProcessor):
    """Cuts a video into chunks of one second and prepares both streams in one pass of the decoder (paper, section III).

    The defaults are the paper's: key frames at 224 x 224 with CLIP's statistics, 32 frames of each chunk at 224 x 224
    with SlowFast's. A key frame is resized to `size` whatever its shape; with `do_center_crop` it is resized to cover
    `size` and the middle is kept, so that shapes and the scale of a fault survive, and an upright video is laid on its
    side where `size` lies, so that all of it is seen at the scale of any other. With `do_resize=False` it stays as it
    is, for a tower that takes frames of any size. With `temporal_differences` a small temporal tower sees motion alone
    and needs no capacity for what stands still.

    Raises:
        SettingError: a setting of the library's video processors that is fixed here, with another value.
    """

    valid_kwargs = LmmVqaVideosKwargs  # type: ignore[assignment]
    model_input_names = ["pixel_values_videos", "temporal_values", "chunk_counts"]  # noqa: RUF012

    size = {"height": 224, "width": 224}  # noqa: RUF012
    do_resize = True
    do_center_crop = False
    do_rescale = True
    do_normalize = True
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    temporal_size = {"height": 224, "width": 224}  # noqa: RUF012
    temporal_num_frames = 32
    temporal_mean = [0.45, 0.45, 0.45]  # noqa: RUF012
    temporal_std = [0.225, 0.225, 0.225]  # noqa: RUF012
    temporal_differences = False
    # Ten seconds is the longest clip of the sets with human ratings but one, and fills 5,120 of Llama 3's 8,192 tokens.
    max_chunks = 10
    min_tail = 0.5
    decoder = "auto"

    # For what has a processor and can't import this package: code of a model on the Hub.
    name_of = staticmethod(name_of)
    VideoError = VideoError

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_settings({name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__})

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """
        Args:
            videos: one video or a list: a path, a `file://` URL, bytes, a binary file, a mapping with "path" or "bytes"
                (the `datasets` Video feature), or an array (frames, height, width, 3) of uint8 with `fps`.
            kwargs: any setting of the processor, for this call; `fps` for arrays; `return_metadata=True` to get a
                `VideoInfo` for each video as "video_metadata".

        Returns:
            pixel_values_videos: (videos, chunks, 3, height, width) float32, normalised key frames.
            temporal_values: (videos, chunks, temporal_num_frames, 3, height, width) float32, normalised; absent where
                `temporal_size` is None.
            chunk_counts: (videos,) int64, how many chunks of each video are not padding.

        Raises:
            VideoError: a video can't be read; the message names it and the remedy.
            SettingError: a setting is unknown or fixed, or key frames of several sizes would make one batch.
        """
        settings = self._settings(kwargs)
        prepared = [self._prepare(video, settings, index) for index, video in enumerate(as_video_list(videos))]
        key_frames, chunks, infos = zip(*prepared, strict=True)
        data: dict[str, Any] = {"pixel_values_videos": _pad(key_frames)}
        if settings["temporal_size"] is not None:
            data["temporal_values"] = _pad(chunks)
        data["chunk_counts"] = torch.tensor([len(frames) for frames in key_frames])
        batch = BatchFeature(data, tensor_type=settings["return_tensors"])
        if settings["return_metadata"]:
            batch["video_metadata"] = list(infos)
        return batch

    def stream(self, video: Any, **kwargs: Any) -> Iterator[PreparedChunk]:
        """Every second of one video as it is decoded, in memory that does not grow with its length.

        `video` and `kwargs` are those of `preprocess`, but for `max_chunks`: without it all chunks come.
        """
        yield from self._chunks(video, self._settings(kwargs) | {"max_chunks": kwargs.get("max_chunks")})

    @property
    def preparation(self) -> FramePreparation:
        """How this processor prepares frames."""
        return FramePreparation.of(self._settings({}))

    def reading_options(self) -> dict[str, Any]:
        """What `open_video` must be told about the frames that this processor takes, for whoever reads them elsewhere
        and hands the chunks to `prepare`."""
        return self.preparation.reading_options()

    def prepare(self, chunk: Chunk, info: VideoInfo) -> PreparedChunk:
        """A chunk as `open_video` gives it, for the towers."""
        return self.preparation.prepare(chunk, info)

    def choose(self, num_chunks: int) -> list[int]:
        """Which chunks of a video of so many `preprocess` takes."""
        return self.preparation.choose(num_chunks)

    def _settings(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        known = self.valid_kwargs.__annotations__
        if unknown := sorted(set(kwargs) - set(known)):
            raise SettingError(
                f"Unknown video setting {', '.join(unknown)}: known are {', '.join(sorted(set(known) - set(_FIXED)))}."
            )
        settings = {name: getattr(self, name, None) for name in known}
        settings |= {name: value for name, value in kwargs.items() if value is not None}
        _check_settings(settings)
        return settings

    def _prepare(
        self, video: Any, settings: Mapping[str, Any], index: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor | None], VideoInfo]:
        key_frames, chunks = [], []
        # The key frames at full size are not kept: ten of a 4K video would take 250 MB.
        for chunk in self._chunks(video, settings, index):
            key_frames.append(torch.from_numpy(chunk.pixel_values))
            chunks.append(None if chunk.temporal_values is None else torch.from_numpy(chunk.temporal_values))
            info = chunk.info
        return key_frames, chunks, info

    def _chunks(self, video: Any, settings: Mapping[str, Any], index: int = 0) -> Iterator[PreparedChunk]:
        # A file tells its own rate.
        fps = self._array_fps(settings, index) if hasattr(video, "ndim") else None
        return FramePreparation.of(settings).stream(video, max_chunks=settings["max_chunks"], fps=fps)

    @staticmethod
    def _array_fps(settings: Mapping[str, Any], index: int) -> float | None:
        if settings["video_metadata"] is None:
            return settings["fps"]
        metadata = settings["video_metadata"][index]
        return metadata["fps"] if isinstance(metadata, Mapping) else metadata.fps


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name, (allowed, remedy) in _FIXED.items():
        value = settings.get(name)
        # The libraries name ways of interpolation by enumerations of their own.
        if value is not None and getattr(value, "value", value) not in allowed:
            raise SettingError(f"{name}={value} is not possible: {remedy}.")
    if settings["do_center_crop"] and not settings["do_resize"]:
        raise SettingError(
            "do_center_crop=True cuts what was resized to cover size: set do_resize=True, or leave both."
        )


def as_video_list(videos: Any) -> list[Any]:
    """One video or a nested list of videos, as a flat list. A batch of chats carries a list of videos a chat."""
    if isinstance(videos, list | tuple):
        return [video for item in videos for video in as_video_list(item)]
    if isinstance(videos, str | os.PathLike | bytes | Mapping) or not hasattr(videos, "ndim") or videos.ndim != 5:
        return [videos]
    return list(videos)


def _pad(videos: tuple[list[torch.Tensor], ...]) -> torch.Tensor:
    """(videos, most chunks, ...); zeros behind the shorter videos."""
    if len(sizes := {tuple(chunk.shape[-2:]) for chunks in videos for chunk in chunks}) > 1:
        raise SettingError(
            f"Key frames of the sizes {', '.join(f'{width} x {height}' for height, width in sorted(sizes))} make no "
            "batch: give these videos one by one, or set do_resize=True."
        )
    return torch.nn.utils.rnn.pad_sequence([torch.stack(chunks) for chunks in videos], batch_first=True)


# Whoever saves a processor puts its code beside it.
LmmVqaVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = ["LmmVqaVideoProcessor"]
