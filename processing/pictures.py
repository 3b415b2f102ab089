"""Photographs and animated pictures, read with Pillow: turned as EXIF says, in sRGB, on white where they are
transparent."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from .colours import UNSPECIFIED, likely_primaries, needs_mapping, on_white, to_bt709, without_dither
from .decoding import resized
from .video_files import TimeLimit, VideoError, first_bytes, rewound

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "QOI")
# What Pillow raises for damaged pictures.
_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Browsers show a frame of an animation that is said to be no longer than this for a tenth of a second. In milliseconds.
_SHORTEST = 10
# Tags of TIFF: of a smaller copy of another page, and of Adobe's raw photographs, which begin with one.
_SUBFILE_TYPE, _DNG_VERSION = 254, 50706
# What PNG says of its levels where it says nothing: light is the level to the power of 2.2.
_USUAL_GAMMA = 1 / 2.2


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
            self._colours = _stated_colours(first_bytes(file, 1 << 16))
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
                except EOFError:
                    return
                except _ERRORS as error:
                    raise self._unreadable(error) from error
                yield position, self._pixels(picture)

    def first_frame(self) -> np.ndarray:
        return self._first

    def to_rgb(self, frame: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        return resized(frame, size)

    def _open(self) -> Image.Image:
        try:
            Image.init()
            picture = Image.open(rewound(self._file), formats=[name for name in _FORMATS if name in Image.OPEN])
        except _ERRORS as error:
            raise self._unreadable(error) from error
        tags = getattr(picture, "tag_v2", {})
        if _DNG_VERSION in tags or tags.get(_SUBFILE_TYPE, 0) & 1:
            raise VideoError(
                f"{self.name} is a raw photograph, of which only a small preview could be read. Convert it to JPEG."
            )
        return picture

    def _duration(self, picture: Image.Image, index: int) -> int:
        """Of a frame in milliseconds."""
        if self.is_picture:
            return 100
        self._limit.check()
        try:
            picture.seek(index)
            picture.load()
        except (*_ERRORS, EOFError) as error:
            raise self._unreadable(error) from error
        duration = int(picture.info.get("duration", 0))
        return duration if duration > _SHORTEST else 100

    def _pixels(self, picture: Image.Image) -> np.ndarray:
        """(height, width, 3) uint8, upright."""
        try:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode in ("LA", "PA") or "transparency" in upright.info:
                upright = upright.convert("RGBA")
            shown = self._in_srgb(upright.convert("RGB") if upright.mode == "P" else upright)
            pixels = np.asarray(shown.convert("RGB"))
            if shown.mode == "RGBA":
                pixels = on_white(pixels, np.asarray(shown.getchannel("A")))
        except _ERRORS as error:
            raise self._unreadable(error) from error
        return without_dither(pixels) if picture.mode == "P" else pixels

    def _in_srgb(self, picture: Image.Image) -> Image.Image:
        """By what the picture says of its colours: their numbers in PNG and AVIF, a profile, or PNG's gamma."""
        if needs_mapping(*self._colours):
            signal = np.asarray(picture.convert("RGB")).astype(np.uint16) * 256
            mapped = Image.fromarray(to_bt709(signal, *self._colours))
            if picture.mode == "RGBA":
                mapped.putalpha(picture.getchannel("A"))
            return mapped
        if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
            levels = np.asarray(picture).astype(np.float32)
            # Floating point has its white at 1 or at 255.
            white = 65535 if picture.mode != "F" else 1 if levels.max() <= 1 else 255
            return Image.fromarray((levels * (255 / white)).clip(0, 255).round().astype(np.uint8))
        if profile := picture.info.get("icc_profile"):
            return _by_profile(picture, profile)
        gamma = picture.info.get("gamma", _USUAL_GAMMA)
        if picture.mode in ("L", "RGB", "RGBA") and gamma > 0 and "srgb" not in picture.info:
            return _by_gamma(picture, gamma)
        return picture

    def _unreadable(self, error: Exception) -> VideoError:
        if isinstance(error, Image.DecompressionBombError):
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            return VideoError(f"{self.name} has more pixels than are read of a picture ({most:,}). Scale it down.")
        reason = " ".join(str(error).split()).rstrip(".")
        brand = first_bytes(self._file, 12)[4:]
        if brand.startswith(b"ftyp") and not brand.startswith(b"ftypavi"):
            remedy = "Convert it to JPEG, or install what reads it: pip install pillow-heif"
            return VideoError(f"{self.name} is a picture that can't be read here ({reason}). {remedy}.")
        return VideoError(f"{self.name} is a picture that can't be read: {reason}. Download or export it again.")


def _stated_colours(head: bytes) -> tuple[int, int]:
    """Transfer and primaries by their numbers in ITU-T H.273; unspecified where a PNG, AVIF or HEIC file, which begins
    so, states none."""
    transfer = primaries = UNSPECIFIED
    if (at := head.find(b"cICP")) > 0:
        primaries, transfer = head[at + 4], head[at + 5]
    elif (at := head.find(b"colrnclx")) > 0:
        primaries, transfer = struct.unpack_from(">HH", head, at + 8)
    return transfer, likely_primaries(transfer, primaries)


def _by_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    """One that makes no sense is left aside."""
    if picture.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode) or picture
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture


def _by_gamma(picture: Image.Image, gamma: float) -> Image.Image:
    power = _USUAL_GAMMA / gamma
    if abs(power - 1) < 0.05:
        return picture
    levels = [round(255 * (level / 255) ** power) for level in range(256)]
    colours = len(picture.getbands()) - (picture.mode == "RGBA")
    return picture.point(levels * colours + list(range(256)) * (picture.mode == "RGBA"))
