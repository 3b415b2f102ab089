"""The reader against FFmpeg's command line, Pillow and arithmetic, on one real clip and on clips made to be difficult.

A *numbered* clip is lossless, and the luma of its frame n is 16 + 2 n (n modulo 100): what is read shows which frame it
is.
"""

import io
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from inputs import SITE
from PIL import Image, ImageFilter

from processing.colours import DITHER_RADIUS
from processing.video_reader import Chunk, VideoError, open_video

FLOWER = Path(__file__).parents[1] / "data" / "flower.mp4"
LOSSLESS = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0"]
NUMBERS = "geq=lum='16+2*mod(N,100)':cb=128:cr=128"


def ffmpeg(*arguments: str | Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """Make a clip with FFmpeg: a name, a lavfi source, and options of the output."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str, source: str, *options: str, inputs: tuple[str | Path, ...] = ()) -> Path:
        path = folder / name
        if not path.exists():
            ffmpeg("-f", "lavfi", "-i", source, *inputs, *options, path)
        return path

    return make


@pytest.fixture(scope="session")
def numbered(make):
    """Make a numbered clip: a name, a number of frames and a rate."""

    def numbered(name: str, num_frames: int, rate: str = "30", *options: str, filters: str = "null") -> Path:
        source = f"color=black:s=64x48:r={rate},{NUMBERS},{filters}"
        return make(name, source, *LOSSLESS, *options, "-frames:v", str(num_frames))

    return numbered


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers of frames (..., 3, height, width) of a numbered clip."""
    return (frames.float().mean(dim=(-3, -2, -1)) * 219 / 255 / 2).round().int().reshape(-1).tolist()


def read(video, **options):
    with open_video(video, **options) as reader:
        return reader.info, chunks_of(reader)


def chunks_of(reader) -> list[Chunk]:
    """With tensors in place of arrays."""
    return [
        replace(
            chunk,
            key_frame=torch.from_numpy(chunk.key_frame),
            frames=None if chunk.frames is None else torch.from_numpy(chunk.frames),
        )
        for chunk in reader
    ]


def pictures_of(path: Path, *options: str) -> np.ndarray:
    """All frames by the FFmpeg command, (frames, height, width, 3); it applies the rotation."""
    with open_video(path) as reader:
        shape = (-1, reader.info.height, reader.info.width, 3)
    raw = ffmpeg("-i", path, *options, "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def difference(a, b) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.fixture(scope="session")
def flower():
    return read(FLOWER, frame_size=(112, 112))


# The cut into seconds


def test_real_clip_is_cut_at_whole_seconds(flower):
    info, chunks = flower
    with av.open(str(FLOWER)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert (info.width, info.height, info.num_frames, info.num_chunks) == (960, 540, 150, 5)
    assert info.fps == pytest.approx(30000 / 1001)
    assert info.duration_s == pytest.approx(150 * 1001 / 30000)
    assert (info.variable_rate, info.backend, info.name) == (False, "pyav", str(FLOWER))
    assert [chunk.index for chunk in chunks] == [0, 1, 2, 3, 4]
    assert [chunk.start_s for chunk in chunks] == pytest.approx([i * 1.001 for i in range(5)])
    for i, chunk in enumerate(chunks):
        assert chunk.key_frame.dtype == chunk.frames.dtype == torch.uint8
        assert chunk.key_frame.shape == (3, 540, 960)
        assert chunk.frames.shape == (32, 3, 112, 112)
        assert np.array_equal(chunk.key_frame.permute(1, 2, 0), decoded[30 * i])


def test_small_frames_are_as_pillow_resizes_them(flower):
    _, chunks = flower
    decoded = pictures_of(FLOWER, "-sws_flags", "bilinear+accurate_rnd+full_chroma_int")
    for chunk in chunks[::2]:
        for slot in (0, 13, 31):
            frame = decoded[30 * chunk.index + round(slot * 29 / 31)]
            expected = np.asarray(Image.fromarray(frame).resize((112, 112), Image.BILINEAR))
            assert difference(chunk.frames[slot].permute(1, 2, 0), expected) < 1


def test_frames_are_evenly_spaced_and_a_short_tail_plays_back_and_forth(numbered):
    info, chunks = read(numbered("tail.mp4", 75), frames_per_chunk=4, frame_size=(48, 64))
    assert info.num_chunks == 3
    assert [numbers(chunk.frames) for chunk in chunks] == [[0, 10, 19, 29], [30, 40, 49, 59], [60, 70, 69, 61]]
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [0, 30, 60]


def test_whole_seconds_alone_count_where_the_papers_way_is_asked_for(numbered):
    """Eq. 2: frames over frames of a second, rounded down; a video below a second still has one."""
    for num_frames, expected in ((149, 4), (150, 5), (10, 1)):
        info, chunks = read(numbered(f"whole_{num_frames}.mp4", num_frames), min_tail=1.0)
        assert info.num_chunks == len(chunks) == expected
    with pytest.raises(ValueError, match="min_tail is 0"):
        read(numbered("whole_10.mp4", 10), min_tail=0)


def test_a_tail_of_less_than_half_a_second_is_left_out(numbered):
    for num_frames, num_chunks in ((61, 2), (74, 2), (75, 3)):
        info, chunks = read(numbered(f"tail_{num_frames}.mp4", num_frames))
        assert (info.num_frames, info.num_chunks, len(chunks)) == (num_frames, num_chunks, num_chunks)
        assert info.duration_s == pytest.approx(num_frames / 30)


def test_8_seconds_at_29_97_are_8_chunks(numbered):
    info, chunks = read(numbered("ntsc.mp4", 240, "30000/1001"))
    assert info.num_chunks == len(chunks) == 8
    assert chunks[0].frames is None
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [30 * i % 100 for i in range(8)]


@pytest.mark.parametrize(
    ("name", "rate", "chunk_length"),
    [
        ("1.mp4", "1", 1),
        ("10.mp4", "10", 10),
        ("12.5.mp4", "25/2", 13),
        ("23.976.mkv", "24000/1001", 24),
        ("59.94.mkv", "60000/1001", 60),
        ("120.mp4", "120", 120),
        ("240.mkv", "240", 240),
    ],
)
def test_constant_rates_are_cut_by_counting(numbered, name, rate, chunk_length):
    num_frames = 2 * chunk_length + (chunk_length + 1) // 2
    info, chunks = read(numbered(name, num_frames, rate, "-bf", "2"))
    numerator, _, denominator = rate.partition("/")
    assert info.fps == pytest.approx(int(numerator) / int(denominator or 1), rel=1e-3)
    assert not info.variable_rate
    assert info.num_frames == num_frames
    expected = [0, chunk_length, 2 * chunk_length]
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [n % 100 for n in expected]


def test_variable_rate_is_cut_by_the_clock_and_a_freeze_shows_its_frame(numbered):
    # Ten frames per second; after frame 19, at 1.9 s, nothing until 4.5 s.
    filters = "settb=1/1000,setpts='if(lt(N,20),N*100,2500+N*100)'"
    path = numbered("freeze.mkv", 40, "10", "-fps_mode", "passthrough", filters=filters)
    info, chunks = read(path, frames_per_chunk=3, frame_size=(48, 64))
    assert info.variable_rate
    assert (info.num_frames, info.num_chunks) == (40, 7)
    assert [chunk.start_s for chunk in chunks] == [0, 1, 2, 3, 4, 5, 6]
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [0, 10, 19, 19, 20, 25, 35]
    assert [numbers(chunk.frames) for chunk in chunks[1:5]] == [[10, 15, 19], [19] * 3, [19] * 3, [20, 22, 24]]


def test_absurd_rate_tag_gives_way_to_the_clock(numbered):
    source = numbered("25.mp4", 75, "25")
    path = source.with_name("tag_90000.mkv")
    ffmpeg("-i", source, "-c", "copy", "-r", "90000", path)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate > 1000
    info, chunks = read(path)
    assert info.variable_rate
    assert info.fps == pytest.approx(25, rel=0.01)
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [0, 25, 50]


def test_stream_without_timestamps_is_cut_by_its_tag(numbered):
    info, chunks = read(numbered("raw.h264", 60, "25", "-bf", "2"))
    assert (info.num_frames, info.num_chunks, info.fps) == (60, 2, 25)
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [0, 25]


def test_given_rate_replaces_the_stated_one(numbered):
    info, chunks = read(numbered("raw.h264", 60, "25", "-bf", "2"), fps=20)
    assert (info.fps, info.duration_s) == (20, 3)
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [0, 20, 40]


def test_frames_before_an_edit_are_not_counted(numbered):
    source = numbered("edit_source.mp4", 90, "30", "-g", "30", "-bf", "2")
    path = source.with_name("edit.mp4")
    ffmpeg("-ss", "0.5", "-i", source, "-c", "copy", path)
    info, chunks = read(path)
    assert info.num_frames == 75
    assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == [15, 45, 75]


@pytest.mark.parametrize(
    ("max_chunks", "expected"), [(1, [0]), (3, [0, 5, 9]), (4, [0, 3, 6, 9]), (10, range(10)), (99, range(10))]
)
def test_max_chunks_are_spread_over_the_whole_video(numbered, max_chunks, expected):
    path = numbered("ten_seconds.mp4", 100, "10")
    info, chunks = read(path, max_chunks=max_chunks, frames_per_chunk=2, frame_size=(48, 64))
    assert info.num_chunks == 10
    assert [chunk.index for chunk in chunks] == list(expected)
    assert [numbers(chunk.frames) for chunk in chunks] == [[10 * i, 10 * i + 9] for i in expected]


def test_ten_minutes(numbered):
    info, chunks = read(numbered("ten_minutes.mp4", 600, "1"), max_chunks=4, frames_per_chunk=1, frame_size=(8, 8))
    assert (info.num_chunks, info.duration_s) == (600, 600)
    assert [chunk.index for chunk in chunks] == [0, 200, 399, 599]
    assert numbers(torch.cat([chunk.frames for chunk in chunks])) == [0, 0, 99, 99]


@pytest.mark.parametrize("num_frames", [1, 15])
def test_less_than_a_second_is_one_chunk(numbered, num_frames):
    info, (chunk,) = read(numbered(f"short_{num_frames}.mp4", num_frames), frames_per_chunk=30, frame_size=(48, 64))
    assert (info.num_frames, info.num_chunks) == (num_frames, 1)
    forth_and_back = [*range(num_frames), *range(num_frames - 2, 0, -1)]
    assert numbers(chunk.frames) == [forth_and_back[i % len(forth_and_back)] for i in range(30)]


# Pictures


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("size", ["128x72", "1280x720"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("colour_range", ["tv", "pc"])
def test_colours_come_back(make, backend, size, matrix, colour_range):
    pytest.importorskip(backend.replace("pyav", "av"))
    colour = (200, 60, 30)
    path = make(
        f"colour_{size}_{matrix}_{colour_range}.mp4",
        f"color=0x{bytes(colour).hex()}:s={size}:r=5,format=gbrp",
        *("-vf", f"scale=out_color_matrix={matrix}:out_range={colour_range},format=yuv420p"),
        *("-colorspace", {"bt601": "smpte170m"}.get(matrix, matrix), "-color_range", colour_range),
        *LOSSLESS,
        *("-frames:v", "3"),
    )
    _, (chunk,) = read(path, backend=backend, frames_per_chunk=2, frame_size=(32, 32))
    for picture in (chunk.key_frame, *chunk.frames):
        assert np.allclose(picture.float().mean(dim=(1, 2)), colour, atol=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("10bit.mkv", ["-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=none"]),
        ("422.mkv", ["-pix_fmt", "yuv422p", "-c:v", "libx264"]),
        ("444.mkv", ["-pix_fmt", "yuv444p", "-c:v", "libx264"]),
        ("grey.mkv", ["-pix_fmt", "gray", "-c:v", "ffv1"]),
        ("rgb.mkv", ["-pix_fmt", "rgb24", "-c:v", "libx264rgb"]),
        ("vp9.webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime"]),
        ("av1.mp4", ["-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "enable-overlays=0"]),
        ("mpeg4.avi", ["-c:v", "mpeg4", "-bf", "2", "-q:v", "3"]),
        ("interlaced.ts", ["-c:v", "libx264", "-flags", "+ildct+ilme"]),
    ],
)
def test_formats_against_ffmpeg(make, name, options):
    path = make(name, "testsrc2=s=324x244:r=10", *options, "-frames:v", "15")
    info, chunks = read(path, frame_size=(60, 80))
    expected = pictures_of(path, "-sws_flags", "bilinear")
    assert (info.num_frames, info.num_chunks, info.width, info.height) == (15, 2, 324, 244)
    for i, chunk in enumerate(chunks):
        assert difference(chunk.key_frame.permute(1, 2, 0), expected[10 * i]) < 2.5
        small = np.asarray(Image.fromarray(expected[10 * i]).resize((80, 60), Image.BILINEAR))
        assert difference(chunk.frames[0].permute(1, 2, 0), small) < 2.5


def test_a_palette_is_seen_without_its_dots(make):
    """As FFmpeg shows it, blurred."""
    path = make("palette.gif", "testsrc2=s=324x244:r=10", "-frames:v", "15")
    info, chunks = read(path, frame_size=(60, 80))
    assert (info.num_frames, info.num_chunks, info.width, info.height) == (15, 2, 324, 244)
    for chunk, shown in zip(chunks, pictures_of(path)[::10], strict=True):
        smooth = Image.fromarray(shown).filter(ImageFilter.GaussianBlur(DITHER_RADIUS))
        assert difference(chunk.key_frame.permute(1, 2, 0), smooth) < 1
        assert difference(chunk.frames[0].permute(1, 2, 0), smooth.resize((80, 60), Image.BILINEAR)) < 4


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_gives_the_displayed_picture(make, backend, degrees):
    pytest.importorskip(backend.replace("pyav", "av"))
    source = make("upright.mp4", "testsrc2=s=320x240:r=5", *LOSSLESS, "-pix_fmt", "yuv420p", "-frames:v", "5")
    path = source.with_name(f"rotated_{degrees}.mp4")
    ffmpeg("-display_rotation", degrees, "-i", source, "-c", "copy", path)
    info, (chunk,) = read(path, backend=backend, frame_size=(64, 48))
    assert (info.width, info.height) == ((240, 320) if degrees != 180 else (320, 240))
    expected = pictures_of(path)[0]
    assert difference(chunk.key_frame.permute(1, 2, 0), expected) < 2
    small = np.asarray(Image.fromarray(expected).resize((48, 64), Image.BILINEAR))
    assert difference(chunk.frames[0].permute(1, 2, 0), small) < 3


def test_odd_size(make):
    path = make("odd.mkv", "testsrc=s=321x241:r=5", "-c:v", "ffv1", "-pix_fmt", "yuv420p", "-frames:v", "5")
    info, (chunk,) = read(path, frame_size=(33, 65))
    assert (info.width, info.height) == (321, 241)
    assert chunk.frames.shape == (32, 3, 33, 65)
    assert difference(chunk.key_frame.permute(1, 2, 0), pictures_of(path)[0]) < 1.5


def test_size_that_changes_in_the_middle(make):
    parts = [
        make(f"part_{size}.ts", f"testsrc2=s={size}:r=10", *LOSSLESS, "-pix_fmt", "yuv420p", "-frames:v", "10")
        for size in ("320x240", "160x120")
    ]
    joined = b"".join(part.read_bytes() for part in parts)
    info, chunks = read(joined, frame_size=(60, 80))
    assert (info.width, info.height, info.num_frames) == (320, 240, 20)
    assert [tuple(chunk.key_frame.shape) for chunk in chunks] == [(3, 240, 320), (3, 120, 160)]
    assert difference(chunks[1].key_frame.permute(1, 2, 0), pictures_of(parts[1])[0]) < 1.5


def test_backends_agree(flower):
    pytest.importorskip("decord")
    info, chunks = read(FLOWER, backend="decord", frame_size=(112, 112))
    assert info.backend == "decord"
    assert (info.num_frames, info.num_chunks, info.fps) == pytest.approx((150, 5, 30000 / 1001))
    for ours, theirs in zip(flower[1], chunks, strict=True):
        assert difference(ours.key_frame, theirs.key_frame) < 0.01
        assert difference(ours.frames, theirs.frames) < 1.5


def test_the_same_tensors_every_run(flower):
    _, again = read(FLOWER, frame_size=(112, 112))
    for first, second in zip(flower[1], again, strict=True):
        assert torch.equal(first.key_frame, second.key_frame)
        assert torch.equal(first.frames, second.frames)


def test_reader_can_be_iterated_twice_and_closed(make):
    reader = open_video(make("moving.mp4", "testsrc2=s=64x48:r=10:d=10", *LOSSLESS))
    assert [chunk.index for chunk in reader] == [chunk.index for chunk in reader]
    chunks = iter(reader)
    next(chunks)
    reader.close()
    assert len(list(chunks)) < 9


# Inputs


def test_every_kind_of_input_gives_the_same(numbered):
    path = numbered("ten_seconds.mp4", 100, "10")
    data = path.read_bytes()
    with open(path, "rb") as file:
        inputs = [
            str(path),
            path,
            path.as_uri(),
            data,
            file,
            io.BytesIO(data),
            {"path": str(path), "bytes": None},
            {"path": "elsewhere.mp4", "bytes": data},
        ]
        for video in inputs:
            _, chunks = read(video)
            assert numbers(torch.stack([chunk.key_frame for chunk in chunks])) == list(range(0, 100, 10))


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy])
def test_arrays(as_array):
    video = np.random.default_rng(0).integers(0, 256, (25, 36, 48, 3), dtype=np.uint8)
    info, chunks = read(as_array(video), fps=10, frames_per_chunk=3, frame_size=(18, 24))
    assert (info.name, info.backend, info.num_chunks, info.duration_s) == ("<array>", "array", 3, 2.5)
    assert [chunk.start_s for chunk in chunks] == [0, 1, 2]
    for chunk, slots in zip(chunks, ([0, 5, 9], [10, 15, 19], [20, 23, 21]), strict=True):
        assert np.array_equal(chunk.key_frame.permute(1, 2, 0), video[slots[0]])
        small = [np.asarray(Image.fromarray(video[slot]).resize((24, 18), Image.BILINEAR)) for slot in slots]
        assert difference(chunk.frames.permute(0, 2, 3, 1), small) < 1


@pytest.mark.parametrize(
    ("video", "fps", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), 10, "<array> .*uint8"),
        (np.zeros((4, 3, 8, 8), np.uint8), 10, r"<array> .*height, width, 3"),
        (np.zeros((0, 8, 8, 3), np.uint8), 10, "<array> .*at least one frame"),
        (np.zeros((4, 8, 8, 3), np.uint8), None, "<array> .*`fps`"),
        (b"", None, "<bytes> is empty"),
        (b"not a video", None, "<bytes> .*Download or export it again"),
        ({"path": None, "bytes": None}, None, "neither 'path' nor 'bytes'"),
        (7, None, "<int> is not a video"),
        ("https://example.org/a.mp4", None, "https://example.org/a.mp4 .*Download it first"),
    ],
)
def test_input_that_is_no_video(video, fps, message):
    with pytest.raises(VideoError, match=message):
        open_video(video, fps=fps)


def test_file_object_that_cannot_seek(tmp_path):
    reading, writing = os.pipe()
    os.close(writing)
    with open(reading, "rb") as pipe, pytest.raises(VideoError, match=r"cannot seek.*Give its bytes"):
        open_video(pipe)


@pytest.mark.parametrize(
    "options",
    [{"backend": "opencv"}, {"max_chunks": 0}, {"frames_per_chunk": 0}, {"frame_size": (0, 5)}, {"fps": 0}],
)
def test_bad_option_is_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        open_video(FLOWER, **options)


# Broken files


@pytest.fixture(scope="session")
def broken(make, tmp_path_factory):
    """Files that cannot be read, by name."""
    folder = tmp_path_factory.mktemp("broken")
    moov_last = make("moov_last.mp4", "testsrc2=s=320x240", *LOSSLESS, "-frames:v", "5").read_bytes()
    picture = make("cover.png", "testsrc2=s=64x64", "-frames:v", "1")
    sound = "sine=d=1"
    files = {
        "missing.mp4": None,
        "empty.mp4": b"",
        "text.mp4": b"This is no video.\n" * 100,
        "no_moov.mp4": moov_last[: len(moov_last) // 2],
        "audio.m4a": make("audio.m4a", sound).read_bytes(),
        "cover.mp3": make(
            "cover.mp3",
            sound,
            *("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"),
            inputs=("-i", picture),
        ).read_bytes(),
        "no_frames.mp4": make(
            "no_frames.mp4", "color=black:r=5", *LOSSLESS, "-t", "0.5", "-frames:v", "0"
        ).read_bytes(),
    }
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "does not exist"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "not a video"),
        ("no_moov.mp4", "cut short"),
        ("audio.m4a", "only audio"),
        ("cover.mp3", "only audio, a cover picture"),
        ("no_frames.mp4", "no video|no frame|not a video"),
        ("folder.mp4", "is a folder"),
        ("pipe.mp4", "is a pipe"),
    ],
)
def test_broken_file_is_named_with_a_remedy(broken, backend, name, message):
    with pytest.raises(VideoError, match=f"(?s){name} .*({message}).*(Download|Give|Check|Save)"):
        open_video(broken / name, backend=backend)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path):
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"secret")
    path.chmod(0)
    with pytest.raises(VideoError, match=r"secret.mp4 .*permission"):
        open_video(path)


def test_file_cut_in_the_middle_gives_what_is_there(tmp_path, caplog, capfd):
    whole = tmp_path / "whole.mp4"
    ffmpeg("-i", FLOWER, "-c", "copy", "-an", "-movflags", "+faststart", whole)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with caplog.at_level(logging.WARNING):
        info, chunks = read(path, frame_size=(32, 32))
    assert 60 < info.num_frames < 120
    assert len(chunks) in (info.num_chunks - 1, info.num_chunks)
    assert info.warnings == (f"It is damaged: {info.num_frames} of 150 frames can be read.",)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: {info.warnings[0]}"]
    assert capfd.readouterr().err == ""
    for ours, theirs in zip(chunks[:2], read(whole)[1], strict=False):
        assert torch.equal(ours.key_frame, theirs.key_frame)


def test_damaged_packets_are_skipped_without_shifting_the_rest(numbered, tmp_path, caplog, capfd):
    source = numbered("damage_source.mp4", 90, "30", "-g", "30")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[30:40]:
        data[position : position + size] = bytes(size)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    runs = []
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            runs.append([numbers(chunk.key_frame)[0] for chunk in read(path)[1]])
    assert runs[0] == runs[1]
    assert (runs[0][0], runs[0][2]) == (0, 60)
    assert capfd.readouterr().err == ""


def test_noise_is_no_video(tmp_path):
    source = FLOWER.read_bytes()
    start = source.index(b"mdat") + 4
    noise = np.random.default_rng(0).bytes(len(source))
    end = source.index(b"moov") - 4 if source.index(b"moov") > start else len(source)
    path = tmp_path / "noise.mp4"
    path.write_bytes(source[:start] + noise[start:end] + source[end:])
    with pytest.raises(VideoError, match=r"noise.mp4 holds no frame that can be decoded"):
        open_video(path, backend="pyav")


def test_auto_falls_back_and_gives_one_reason(make, broken, caplog):
    pytest.importorskip("decord")
    path = make("fallback_av1.mp4", "testsrc2=s=320x240:r=5", "-c:v", "libsvtav1", "-preset", "12", "-frames:v", "5")
    with pytest.raises(VideoError, match=r"fallback_av1.mp4 .*decord"):
        open_video(path, backend="decord")
    assert open_video(path).info.backend == "pyav"
    caplog.set_level("DEBUG", "processing.video_reader")
    with pytest.raises(VideoError, match="FFmpeg can open") as refused:
        open_video(broken / "text.mp4")
    assert "decord" not in str(refused.value) and "With decord: " in caplog.text


def test_a_program_stream_is_not_given_to_decord(make):
    pytest.importorskip("decord")
    path = make("stream.mpg", "testsrc2=s=320x240:r=25", "-c:v", "mpeg2video", "-frames:v", "30")
    for source in (path, path.read_bytes()):
        with pytest.raises(VideoError, match=r"MPEG program stream.*PyAV"):
            open_video(source, backend="decord")
        info = open_video(source).info
        assert (info.backend, info.num_frames) == ("pyav", 30)


def test_backends_and_torch_are_imported_on_use():
    code = "import sys, processing.video_reader as m; assert not {'av', 'decord', 'torch'} & set(sys.modules)"
    code += f"; sys.modules['decord'] = None\ntry: m.open_video({str(FLOWER)!r}, backend='decord')"
    code += "\nexcept ImportError as error: assert 'pip install decord' in str(error)\nelse: raise SystemExit(1)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SITE)


KEY_EVERY_SECOND = ("-g", "25", "-pix_fmt", "yuv420p")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jumps_h264.mp4", ["-c:v", "libx264", "-preset", "fast", "-x264-params", "open-gop=1:bframes=3"]),
        ("jumps_h264.mkv", ["-c:v", "libx264", "-preset", "fast", "-bf", "3"]),
        ("jumps_refresh.mp4", ["-c:v", "libx264", "-preset", "fast", "-x264-params", "intra-refresh=1"]),
        ("jumps_hevc.mp4", ["-c:v", "libx265", "-preset", "superfast", "-x265-params", "open-gop=1:log-level=none"]),
        ("jumps_vp9.webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]),
        ("jumps_av1.mp4", ["-c:v", "libsvtav1", "-preset", "12"]),
    ],
)
def test_jumping_to_key_frames_gives_the_same_frames(make, name, options):
    clip = make(name, "testsrc2=s=128x96:r=25:d=40", *options, *KEY_EVERY_SECOND)
    with open_video(clip, backend="pyav", max_chunks=4, frames_per_chunk=8, frame_size=(48, 64)) as reader:
        decoder = reader._decoder
        assert len(decoder._keys) > 20
        decoded = []
        count = decoder._decode
        decoder._decode = lambda stream, packet: decoded.append(len(found := count(stream, packet))) or found
        jumped, few = chunks_of(reader), sum(decoded)
        decoder._keys = []
        decoded.clear()
        through, all_of_them = chunks_of(reader), sum(decoded)
    assert [chunk.index for chunk in jumped] == [chunk.index for chunk in through] == [0, 13, 26, 39]
    for one, other in zip(jumped, through, strict=True):
        assert torch.equal(one.key_frame, other.key_frame) and torch.equal(one.frames, other.frames)
    # What an intra refresh calls key frames are none; this is noticed, and costs time.
    assert few < all_of_them / 3 or name == "jumps_refresh.mp4"


def test_a_key_frame_that_is_none_is_noticed(make):
    """Every frame is said to be a key frame."""
    clip = make("jumps_lie.mp4", "testsrc2=s=128x96:r=25:d=20", "-c:v", "libx264", "-g", "500", "-pix_fmt", "yuv420p")
    with open_video(clip, backend="pyav", max_chunks=3, frames_per_chunk=8, frame_size=(48, 64)) as reader:
        decoder = reader._decoder
        assert len(decoder._keys) == 1
        expected = chunks_of(reader)
        first = decoder._keys[0]
        decoder._keys = [
            first._replace(position=position, time=int(decoder.timestamps[position])) for position in range(0, 500, 25)
        ]
        jump = decoder._runs(np.array([0, 250, 490]))
        assert len(jump) == 3
        found = chunks_of(reader)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.key_frame, other.key_frame) and torch.equal(one.frames, other.frames)
