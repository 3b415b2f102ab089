"""Photographs and animated pictures, read with Pillow: turned as EXIF says, in sRGB, on white where they are
transparent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from .colours import without_dither
from .decoding import resized
from .video_files import TimeLimit, VideoError, first_bytes, rewound

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")


class PictureDecoder:
    """A picture as a video of one frame, or of as many as it is animated with.

    Raises:
        VideoError: Pillow can't read it.
    """

    backend = "pillow"

    def __init__(self, file: str | BinaryIO, name: str, limit: TimeLimit):
        self._file, self.name, self._limit = file, name, limit
        self.warnings: list[str] = []
        with self._open() as picture:
            self.num_frames = getattr(picture, "n_frames", 1) if picture.format in ("PNG", "WEBP", "AVIF") else 1
            self._first = self._pixels(picture)
            self.is_picture = self.num_frames == 1
            durations = [self._duration(picture, index) for index in range(self.num_frames)]
        self.height, self.width = self._first.shape[:2]
        self.tick = Fraction(1, 1000)
        self.timestamps = np.cumsum([0, *durations[:-1]]).astype(np.int64)
        self.rate = 1000 / float(np.mean(durations))

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        with self._open() as picture:
            for position in range(self.num_frames):
                self._limit.check()
                try:
                    picture.seek(position)
                    yield position, self._pixels(picture)
                except EOFError:
                    return

    def first_frame(self) -> np.ndarray:
        return self._first

    def to_rgb(self, frame: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        return resized(frame, size)

    def _open(self) -> Image.Image:
        try:
            Image.init()
            return Image.open(rewound(self._file), formats=[name for name in _FORMATS if name in Image.OPEN])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._unreadable(error) from error

    def _duration(self, picture: Image.Image, index: int) -> int:
        """Of a frame in milliseconds; browsers show one without a time for a tenth of a second."""
        if self.is_picture:
            return 100
        self._limit.check()
        picture.seek(index)
        picture.load()
        return int(picture.info.get("duration", 0)) or 100

    def _pixels(self, picture: Image.Image) -> np.ndarray:
        """(height, width, 3) uint8, upright."""
        try:
            upright = ImageOps.exif_transpose(picture)
            pixels = np.asarray(_on_white(_in_srgb(upright)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._unreadable(error) from error
        return without_dither(pixels) if picture.mode == "P" else pixels

    def _unreadable(self, error: Exception) -> VideoError:
        reason = " ".join(str(error).split())
        if first_bytes(self._file, 12)[4:8] == b"ftyp":
            remedy = "Convert it to JPEG, or install what reads it: pip install pillow-heif"
            return VideoError(f"{self.name} is a picture that can't be read here ({reason}). {remedy}.")
        return VideoError(f"{self.name} is a picture that can't be read: {reason}. Download or export it again.")


def _in_srgb(picture: Image.Image) -> Image.Image:
    """By the colour profile that the picture carries; one that makes no sense is left aside."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        levels = np.asarray(picture).astype(np.float32)
        return Image.fromarray((levels / 257).clip(0, 255).round().astype(np.uint8))
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode) or picture
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        above = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return picture.convert("RGB")
