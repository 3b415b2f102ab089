"""FFmpeg by PyAV: which stream of a file is shown, its frames in the order of display, and their colours.

Colours: swscale converts by the matrix and the range that the file states; where it states no matrix, by BT.2020 for
HDR, by BT.709 for frames of more than 576 lines or at least 1280 columns, and by BT.601 for smaller ones, as players
do. HDR and wide colours are then brought to BT.709 (see `colours`).
"""

from __future__ import annotations

import errno
import logging
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .colours import (
    HLG,
    PQ,
    UNSPECIFIED,
    doubt_about,
    from_limited_range,
    likely_primaries,
    needs_mapping,
    on_white,
    to_bt709,
    without_dither,
)
from .cut_files import is_cut_short
from .decoding import no_frame, resized, too_large, warn, without_holes
from .video_files import TimeLimit, VideoError, rewound

logger = logging.getLogger(__name__)

# A jump to a key frame empties the decoder's pipeline, so fewer frames than this are decoded and dropped instead.
SHORTEST_JUMP = 32
# Containers that say where each key frame is; the others would be searched, and miss.
_INDEXED = {"mov", "mp4", "matroska", "webm"}
# Containers that begin with a frame that can be decoded, whatever their packets say of key frames.
_WHOLE = {*_INDEXED, "avi", "flv", "asf", "gif", "ogg", "mxf", "nut", "yuv4mpegpipe"}
# Codecs of which FFmpeg shows frames that lack what they build on, as grey and ghosts.
_GHOSTS = {"mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "h263p", "flv1", "wmv1", "wmv2"}
# Threads of FFmpeg for one video; 0: one for each core. Whoever reads several videos at once sets less.
DECODING_THREADS = 0
# Each thread decodes a frame of its own; together their frames take no more bytes.
_THREADS_MEMORY = 256 * 2**20
# Containers and bare streams that hold their frames themselves. FFmpeg knows others that open files and addresses by
# what they hold: playlists, manifests, scripts, sequences of pictures.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,kux,mpegts,mpeg,mpegvideo,asf,asf_o,ogg,gif,mxf,nut,ivf,obu,av1,"
    "h261,h263,h264,hevc,vvc,evc,m4v,vc1,vc1test,dv,rm,wtv,yuv4mpegpipe,mjpeg,mjpeg_2000,jpeg_pipe,smjpeg,apng,amv,swf,gxf,nsv,nuv,"
    "pva,dirac,dnxhd,cavsvideo,avs,avs2,avs3,flic,smk,bink,roq,film_cpk,dhav,ty,mp3,aac,wav,flac,ac3,eac3,aiff,amr,caf,w64"
)
# As swscale numbers them; not all versions of PyAV have names for them. The second: colours are sampled down from all
# pixels, not from every second one.
_SWSCALE_BT2020, _FULL_CHROMA_INPUT = 9, 0x4000
# Small frames of HDR are so many times larger until their colours are mapped: means of PQ are darker than those of what
# is shown, and to map whole frames would take as long as to decode them.
_BEFORE_MAPPING = 4
# FFmpeg's own decoders of these leave out what Matroska holds of transparency.
_TRANSPARENT = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_RAW_SUFFIXES = (".yuv", ".rgb", ".raw")
# Pixels are taken to be square where the file says otherwise by less than this, which rounding explains.
_SQUARE = 0.01
# A stated shape beyond this is damage.
_WIDEST_PIXEL = 4.0


class _Key(NamedTuple):
    """A key frame: its position in the video, and the time (in ticks) that leads its container to it."""

    position: int
    time: int


@dataclass
class _Survey:
    """What the packets of one stream tell.

    Args:
        pts, dts: of the packets that are shown, in the order of the file.
        keys: (time of display, time that leads to it) of each key frame.
        context: its decoder.
        before_key: how many packets come before the first key frame; None where there is none.
        ends_broken: whether the last packet is not whole.
    """

    stream: Any
    context: Any
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)
    num_packets: int = 0
    before_key: int | None = None
    first_frame: Any = None
    ends_broken: bool = False


class PyAVDecoder:
    """A video stream by PyAV.

    Opening reads all packets without decoding them: this gives the exact number of frames and their times, also
    where the container does not list them. Only the first frame is decoded, for size, rotation and colours.

    The stream is the one that a player shows: of those that are no cover, still or preview, one that is flagged as the
    default, then the largest. Where it can't be decoded, it is the next one.

    Raises:
        VideoError: there is no stream that can be decoded.
        ImportError: PyAV is not installed.
    """

    backend = "pyav"
    is_picture = False

    def __init__(self, file: str | BinaryIO, name: str, limit: TimeLimit):
        try:
            import av
            from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
        except ImportError as error:
            raise ImportError("PyAV is needed to read videos. Install it: pip install av") from error
        self._av, self._bt709, self._limited = av, Colorspace.ITU709, ColorRange.MPEG
        self._whole_chroma = int(Interpolation.BILINEAR) | _FULL_CHROMA_INPUT
        self._file = file
        self.name = name
        self.warnings: list[str] = []
        self._limit = limit
        # Whether a person was told so, and whether a packet was refused.
        self._is_damaged = self._is_undecodable = False
        # A reformatter keeps its tables from frame to frame; a frame's own would compute them anew.
        self._full, self._small, self._standard = VideoReformatter(), VideoReformatter(), VideoReformatter()
        self._opacities = VideoReformatter()

        with self._open() as container:
            survey = self._chosen(container)
            stream = survey.stream
            self._index = stream.index
            self.tick = stream.time_base
            rate = stream.average_rate or stream.guessed_rate
            # A bare stream has no clock; FFmpeg's average rate of it is an invention, and its own rate stands inside.
            if survey.pts and survey.pts[0] is None:
                rate = stream.guessed_rate or rate
            self.rate = float(rate or 0) or None
            reorders = stream.codec_context.has_b_frames
            formats = set(container.format.name.split(","))
            # The index of a file that was cut short lists packets that are gone.
            num_cut_off = max(0, len(stream.index_entries) - survey.num_packets)
            self._widening = self._pixel_shape(stream)
            begins_whole = _begins_whole(container, stream)
            codec, codec_tag = stream.codec_context.name, _codec_tag(stream)
        pts, first_frame = survey.pts, survey.first_frame
        self._first = first_frame
        self._num_listed = len(pts) + num_cut_off
        self._reads_from = 0 if begins_whole else survey.before_key or 0
        self.timestamps = _clock(pts, survey.dts, self.tick)
        # Some files with B-frames carry the times of decoding only: right as a set, wrong for single frames.
        self._frames_are_timed = self.timestamps is not None and not (reorders and pts == survey.dts)
        self.num_frames = len(pts)
        if self._frames_are_timed and first_frame.pts is not None:
            num_skipped = int(np.searchsorted(self.timestamps, first_frame.pts))
            if 0 < num_skipped < len(pts):
                self.timestamps = self.timestamps[num_skipped:]
                self.num_frames -= num_skipped
                self._num_listed -= num_skipped
                warn(
                    self,
                    f"Its first {num_skipped} frames need others that are not in the file: it is read from the first "
                    "one that can be decoded.",
                )
        if num_cut_off:
            self._warn_of_damage(self.num_frames)
        elif survey.ends_broken or is_cut_short(file):
            self._is_damaged = True
            warn(self, "It is cut short: its end is missing.")
        self._keys: list[_Key] = []
        if formats & _INDEXED and self._frames_are_timed and not num_cut_off:
            keys = ((int(np.searchsorted(self.timestamps, shown)), decoded) for shown, decoded in survey.keys)
            self._keys = sorted(_Key(*key) for key in keys)
        self.height, self.width = self._shown_size(first_frame)
        self._is_palette = codec == "gif" or first_frame.format.name == "pal8"
        if self._is_palette:
            warn(self, "It has the colours of a palette: its dots are smoothed before it is judged.")
        # A palette's transparent dots are white already.
        self._is_transparent = not self._is_palette and any(part.is_alpha for part in first_frame.format.components)
        self._is_mirrored = _is_mirrored(first_frame)
        # swscale takes all grey for full range, whatever the file states.
        self._is_limited_grey = first_frame.format.name.startswith("gray") and first_frame.color_range == self._limited
        self._transfer = int(first_frame.color_trc)
        self._primaries = likely_primaries(self._transfer, int(first_frame.color_primaries))
        self._maps_colours = needs_mapping(self._transfer, self._primaries)
        doubt = doubt_about(self._transfer, self._primaries, codec_tag)
        if doubt:
            warn(self, doubt)

    def first_frame(self) -> Any:
        return self._first

    def frames(self, needed: np.ndarray) -> Iterator[tuple[int, Any]]:
        shown = -1
        with self._open() as container:
            stream = container.streams[self._index]
            context = self._context(stream)
            context.thread_type = "AUTO"
            context.thread_count = self._threads()
            for key, last in self._runs(needed):
                if key is not None:
                    container.seek(key.time, stream=stream)
                    context.flush_buffers()
                landed = None
                decoded = self._decoded(container, stream, context, from_start=key is None)
                for count, (position, frame) in enumerate(decoded, 1):
                    landed = position if landed is None else landed
                    if key is not None and landed > key.position:
                        break
                    if key is None or position > shown:
                        shown = position
                        if key is None and position >= last and self._is_undecodable and position >= count:
                            self._warn_of_damage(self.num_frames - (position + 1 - count))
                        yield position, frame
                    if position >= last:
                        break
                if key is not None and (landed is None or landed > key.position):
                    # The index promised a key frame that is none: read on as if there were no index.
                    self._keys = []
                    yield from (later for later in self.frames(needed) if later[0] > shown)
                    return

    def _runs(self, needed: np.ndarray) -> list[tuple[_Key | None, int]]:
        """Stretches to decode: the key frame to jump to (None for the beginning), and the last position that is
        needed."""
        runs: list[tuple[_Key | None, int]] = [(None, -1)]
        starts = [key.position for key in self._keys]
        for position in needed.tolist():
            before = bisect_right(starts, position) - 1
            if before >= 0 and starts[before] - runs[-1][1] > SHORTEST_JUMP:
                runs.append((self._keys[before], position))
            else:
                runs[-1] = (runs[-1][0], position)
        return [run for run in runs if run[1] >= 0]

    def _decoded(self, container: Any, stream: Any, context: Any, from_start: bool) -> Iterator[tuple[int, Any]]:
        """Every frame from where the container stands, with its position."""
        num_decoded, position = 0, -1
        for number, packet in enumerate(chain(self._packets(container, [stream]), [None])):
            if from_start and packet is not None and number < self._reads_from:
                continue
            for frame in self._decode(context, packet):
                position += 1
                if self._frames_are_timed and frame.pts is not None:
                    # Not shifted by frames that are lost, and right where two fields, or a frame that is
                    # not shown, come in packets of their own.
                    position = int(np.searchsorted(self.timestamps, frame.pts, side="right")) - 1
                if position >= 0:
                    num_decoded += 1
                    yield position, frame
        if from_start and num_decoded < self.num_frames:
            self._warn_of_damage(num_decoded)

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        turns = _quarter_turns(frame)
        stored = (frame.height, frame.width)
        target = self._shown_size(frame) if size is None else size
        if turns % 2:
            target = target[::-1]
        matrix = self._untagged_matrix(frame)
        try:
            # swscale scales the fields of an interlaced frame apart, and what hides where nothing is opaque.
            is_whole = frame.interlaced_frame or self._is_transparent
            is_smaller = target[0] < stored[0] and target[1] < stored[1] and not is_whole
            opacity = self._opacity(frame) if self._is_transparent else None
            if self._maps_colours and not is_smaller:
                frame = self._as_standard(frame, matrix)
                matrix = None if frame.format.is_rgb else self._bt709
            if self._maps_colours and is_smaller:
                between = min(stored[0], _BEFORE_MAPPING * target[0]), min(stored[1], _BEFORE_MAPPING * target[1])
                pixels = resized(self._mapped(frame, between, matrix), target)
            elif target == stored or size is None or is_whole:
                rgb = self._full.reformat(
                    frame, format="rgb24", src_colorspace=matrix, interpolation="BILINEAR", threads=1
                )
                packed = _plane(rgb.planes[0], samples=3).reshape(*stored, 3)
                packed = packed if opacity is None else on_white(packed, opacity)
                pixels = resized(without_dither(packed) if self._is_palette else packed, target)
            else:
                # On downscaling, swscale widens the bilinear filter, as antialiasing does. Into planes it works with
                # vector instructions and at the full resolution of colour; into packed RGB it does neither.
                height, width = target
                gbr = self._small.reformat(
                    frame, width, height, "gbrp", src_colorspace=matrix, interpolation="BILINEAR", threads=1
                )
                pixels = np.stack([_plane(gbr.planes[i]) for i in (2, 0, 1)])
        except MemoryError as error:
            raise too_large(self.name) from error
        except self._av.FFmpegError as error:
            raise VideoError(
                f"{self.name} has pixels that can't be converted to RGB ({frame.format.name}, {error.strerror}). "
                "Convert it to 8-bit H.264."
            ) from error
        if self._is_limited_grey:
            pixels = from_limited_range(pixels)
        if self._is_mirrored:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, turns, axes=(1, 2)).copy() if turns or self._is_mirrored else pixels

    def _opacity(self, frame: Any) -> np.ndarray | None:
        """uint8 (height, width): 0 where a frame is transparent; None where all of it is. Programs that capture a
        screen leave it so, and mean the opposite."""
        rgba = self._opacities.reformat(frame, format="rgba", threads=1)
        opacity = _plane(rgba.planes[0], samples=4).reshape(frame.height, frame.width, 4)[..., 3]
        return opacity if opacity.any() else None

    def _untagged_matrix(self, frame: Any) -> Any:
        """Of a frame that does not state the matrix of its colours, where swscale's own choice would be another."""
        if frame.colorspace != UNSPECIFIED:
            return None
        if self._transfer in (PQ, HLG):
            return _SWSCALE_BT2020
        return self._bt709 if frame.height > 576 or frame.width >= 1280 else None

    def _as_standard(self, frame: Any, matrix: Any) -> Any:
        """A frame in other colours as 8 bits of BT.709, sampled as it was: the colours of 4:2:0 stay as coarse as those
        of a file that was made for BT.709, and both are shown by the same filters."""
        pixels = self._mapped(frame, (frame.height, frame.width), matrix)
        shown = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        columns, rows = frame.format.chroma_width(frame.width), frame.format.chroma_height(frame.height)
        sampling = {(False, False): "444", (True, False): "422", (True, True): "420"}
        sampled = sampling.get((columns < frame.width, rows < frame.height))
        if frame.format.is_rgb or sampled is None:
            return shown
        return self._standard.reformat(
            shown,
            format=f"yuv{sampled}p",
            dst_colorspace=self._bt709,
            dst_color_range=self._limited,
            interpolation=self._whole_chroma,
            threads=1,
        )

    def _mapped(self, frame: Any, size: tuple[int, int], matrix: Any) -> np.ndarray:
        """uint8 BT.709 RGB (height, width, 3) of a frame in other colours, scaled before they are brought there."""
        height, width = size
        rgb = self._small.reformat(
            frame, width, height, "rgb48le", src_colorspace=matrix, interpolation="BILINEAR", threads=1
        )
        lines = np.frombuffer(rgb.planes[0], np.uint8).reshape(-1, rgb.planes[0].line_size)
        signal = lines[: rgb.height, : rgb.width * 6].copy().view("<u2").reshape(rgb.height, rgb.width, 3)
        return to_bt709(signal, self._transfer, self._primaries)

    def _shown_size(self, frame: Any) -> tuple[int, int]:
        """Height and width of a frame as displayed: upright, and with square pixels; none of its lines is lost."""
        height, width = frame.height, frame.width
        if self._widening > 1:
            width = round(width * self._widening)
        elif self._widening < 1:
            height = round(height / self._widening)
        return (width, height) if _quarter_turns(frame) % 2 else (height, width)

    def _pixel_shape(self, stream: Any) -> float:
        """Width of a pixel by its height."""
        shape = float(stream.sample_aspect_ratio or 1)
        if not 1 / _WIDEST_PIXEL <= shape <= _WIDEST_PIXEL:
            warn(self, f"Its pixels are said to be {shape:g} times as wide as high: they are taken for square.")
            return 1.0
        return 1.0 if abs(shape - 1) < _SQUARE else shape

    def _threads(self) -> int:
        """As many threads as frames of this size have room for, at most `DECODING_THREADS`."""
        frame = self._first
        most = max(1, _THREADS_MEMORY // max(1, sum(plane.buffer_size for plane in frame.planes)))
        cores = os.cpu_count() or 1
        return DECODING_THREADS if (DECODING_THREADS or cores) <= most else most

    def _warn_of_damage(self, num_readable: int) -> None:
        if not self._is_damaged:
            self._is_damaged = True
            warn(self, f"It is damaged: {num_readable} of {self._num_listed} frames can be read.")

    def _open(self) -> Any:
        # A file object is never left for anything that has a name.
        protocols = "file" if isinstance(self._file, str) else "none"
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": protocols}
        try:
            file = rewound(self._file)
            source = file if isinstance(file, str) else _ForgivingFile(file)
            return self._av.open(source, metadata_errors="replace", container_options=options)
        except MemoryError as error:
            raise too_large(self.name) from error
        except self._av.FFmpegError as error:
            if self.name.lower().endswith(_RAW_SUFFIXES):
                raise VideoError(
                    f"{self.name} holds raw frames and says neither their size nor their rate. Convert it: ffmpeg -f "
                    "rawvideo -pixel_format yuv420p -video_size 1920x1080 -framerate 25 -i IN.yuv OUT.y4m."
                ) from error
            raise VideoError(
                f"{self.name} is not a video that FFmpeg can open ({error.strerror}): another kind of file, or cut "
                "short. Download or export it again."
            ) from error

    def _chosen(self, container: Any) -> _Survey:
        """The stream that is shown."""
        usable = self._usable(container)
        surveys = {stream.index: _Survey(stream, self._context(stream)) for stream in usable}
        whole = {stream.index: _begins_whole(container, stream) for stream in usable}
        for packet in self._packets(container, usable):
            self._take(surveys[packet.stream_index], packet, whole[packet.stream_index])
        for survey in surveys.values():
            if survey.first_frame is None:
                survey.first_frame = next(iter(self._decode(survey.context, None)), None)
            if survey.before_key is None and not whole[survey.stream.index]:
                survey.first_frame = self._first_without_key(survey.stream.index)
        ranked = sorted(surveys.values(), key=_as_players_choose)
        found = next((survey for survey in ranked if survey.first_frame is not None and survey.pts), None)
        if found is None:
            raise no_frame(self.name)
        if len(surveys) > 1:
            width, height = found.stream.codec_context.width, found.stream.codec_context.height
            warn(
                self,
                f"It holds {len(surveys)} video streams: number {found.stream.index} ({width} x {height}) is read, as "
                "players do.",
            )
        return found

    def _first_without_key(self, index: int) -> Any:
        """The first frame of a stream that never says which are key frames, such as one that is refreshed by rows."""
        with self._open() as container:
            stream = container.streams[index]
            context = self._context(stream)
            frames = (self._decode(context, packet) for packet in chain(self._packets(container, [stream]), [None]))
            return next(chain.from_iterable(frames), None)

    def _take(self, survey: _Survey, packet: Any, is_whole: bool) -> None:
        if survey.num_packets == 0 and packet.has_sidedata("encryption_info"):
            raise VideoError(f"{self.name} is encrypted. Give a copy without protection.")
        if survey.before_key is None and packet.is_keyframe:
            survey.before_key = survey.num_packets
        survey.num_packets += 1
        survey.ends_broken = packet.is_corrupt
        # Some codecs decode what comes before the first key frame to grey and ghosts.
        if survey.first_frame is None and (is_whole or survey.before_key is not None):
            survey.first_frame = next(iter(self._decode(survey.context, packet)), None)
        if not packet.is_discard:  # decoded for the sake of others, but cut away by the edit list
            survey.pts.append(packet.pts)
            survey.dts.append(packet.dts)
            if packet.is_keyframe and None not in (packet.pts, packet.dts):
                survey.keys.append((packet.pts, min(packet.pts, packet.dts)))

    def _usable(self, container: Any) -> list[Any]:
        """The video streams in a codec that FFmpeg knows, without covers, stills and previews."""
        flags = self._av.stream.Disposition
        aside = flags.attached_pic | flags.still_image | flags.timed_thumbnails
        moving = [stream for stream in container.streams.video if not stream.disposition & aside]
        # A still by itself is better than nothing.
        shown = moving or [s for s in container.streams.video if not s.disposition & flags.attached_pic]
        if not shown:
            raise VideoError(f"{self.name} has no video, only {_listed(container)}. Give a file with a video stream.")
        usable = [stream for stream in shown if stream.codec_context is not None]
        if not usable:
            raise VideoError(
                f"{self.name} holds a video in a codec that FFmpeg does not know. Download or convert it again."
            )
        return usable

    def _packets(self, container: Any, streams: Sequence[Any]) -> Iterator[Any]:
        try:
            for packet in container.demux(streams):
                self._limit.check()
                if packet.size:  # an empty packet would end decoding
                    yield packet
        except MemoryError as error:
            raise too_large(self.name) from error
        except self._av.FFmpegError as error:
            logger.debug("%s cannot be read further: %s", self.name, error)

    def _context(self, stream: Any) -> Any:
        """The decoder of a stream."""
        context = stream.codec_context
        library = _TRANSPARENT.get(context.name) if stream.metadata.get("alpha_mode") == "1" else None
        if library in self._av.codecs_available:
            context = self._av.CodecContext.create(library, "r")
        # What is cut off at the left would be shown to keep memory aligned.
        context.flags |= self._av.codec.context.Flags.unaligned
        return context

    def _decode(self, context: Any, packet: Any) -> list[Any]:
        try:
            return context.decode(packet)
        except MemoryError as error:
            raise too_large(self.name) from error
        except self._av.FFmpegError as error:
            logger.debug("A packet of %s cannot be decoded: %s", self.name, error)
            self._is_undecodable = True
            return []


class _ForgivingFile:
    """A file object that FFmpeg may ask for places that are none, which damaged files name: it is told so, and no error
    of Python ends the reading."""

    def __init__(self, file: BinaryIO):
        self.read, self.tell, self._file = file.read, file.tell, file

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL


def _begins_whole(container: Any, stream: Any) -> bool:
    """Whether a stream is read from its first packet on, and not from the first that says that it is a key frame."""
    return bool(_WHOLE & set(container.format.name.split(","))) and stream.codec_context.name not in _GHOSTS


def _codec_tag(stream: Any) -> str:
    """By which a container calls the codec; damage may leave no text of it."""
    try:
        return stream.codec_context.codec_tag
    except UnicodeDecodeError:
        return ""


def _as_players_choose(survey: _Survey) -> tuple[bool, bool, int, int]:
    """The key by which streams are sorted: a picture among videos last, then the default, then the largest."""
    stream, context = survey.stream, survey.stream.codec_context
    is_default = bool(stream.disposition & type(stream.disposition).default)
    return len(survey.pts) < 2, not is_default, -context.width * context.height, stream.index


def _clock(pts: list[int | None], dts: list[int | None], tick: Fraction) -> np.ndarray | None:
    """Return the times of frames in the order of display, or None where they are missing or make no sense."""
    if None in pts:
        return None
    decoding = np.array([t for t in dts if t is not None], dtype=np.int64)
    if np.any(np.diff(decoding) < 0):  # the clock was set back: sorted times would mix the parts
        return None
    return without_holes(np.sort(np.array(pts, dtype=np.int64)), tick)


def _listed(container: Any) -> str:
    """Name what a file holds: "audio", "pictures", "nothing"."""
    kinds = dict.fromkeys("a cover picture" if s.type == "video" else s.type for s in container.streams)
    return ", ".join(kinds) or "nothing"


def _plane(plane: Any, samples: int = 1) -> np.ndarray:
    """View a plane with so many bytes for a pixel as (height, width * samples), without the padding of its lines."""
    lines = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width * samples]


def _quarter_turns(frame: Any) -> int:
    """Number of quarter turns counter-clockwise from the stored picture to the displayed one."""
    return round(frame.rotation / 90) % 4


def _is_mirrored(frame: Any) -> bool:
    """Whether the displayed picture is the stored one turned upside down by a mirror, before any quarter turns."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False
    matrix = np.frombuffer(bytes(data), "=i4", 9).astype(float)
    return bool(matrix[0] * matrix[4] < matrix[1] * matrix[3])
