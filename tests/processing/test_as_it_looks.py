"""A video is read as a viewer sees it: what says the same in another way gives the same pictures."""

import io
import re
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from inputs import DATA, ffmpeg
from PIL import Image, ImageCms

from processing.picture_ends import contrast
from processing.video_reader import MOST_CHUNKS, SMALLEST_SIDE, VideoError, open_video

FLOWER = DATA / "flower.mp4"
CLEAN = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "4", "-pix_fmt", "yuv420p")
SMALL = (64, 64)


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Make a clip of a second and a half of the flower: its name and the options behind the input."""
    folder = tmp_path_factory.mktemp("looks")

    def make(name: str, *options: str, source: Path = FLOWER, before: tuple[str, ...] = ("-t", "1.5")) -> Path:
        path = folder / name
        if not path.exists():
            ffmpeg(*before, "-i", source, "-an", *(options or ("-vf", "scale=480:270", *CLEAN)), path)
        return path

    return make


def read(video, **options):
    with open_video(video, frame_size=SMALL, **options) as reader:
        chunks = list(reader)
        return reader.info, chunks


def pictures(chunks) -> np.ndarray:
    return np.stack([chunk.key_frame for chunk in chunks]).astype(float)


def apart(one, other) -> float:
    """Mean difference of key frames in grey levels."""
    return float(np.abs(pictures(one) - pictures(other)).mean())


# Colours

TO_HDR = (
    "scale=480:270,zscale=tin=709:min=709:pin=709:rin=limited:t=linear:npl=203,format=gbrpf32le,"
    "zscale=t={transfer}:m=2020_ncl:p=2020:r=limited:npl=203,format=yuv420p10le"
)
TENBIT = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "4", "-pix_fmt", "yuv420p10le")


def tagged(matrix: str, primaries: str, transfer: str) -> tuple[str, ...]:
    return ("-colorspace", matrix, "-color_primaries", primaries, "-color_trc", transfer)


def twins(make, suffix: str = "mp4") -> tuple[Path, Path]:
    """A clip in BT.709 and as PQ."""
    plain = make("plain.mp4", "-vf", "scale=480:270:out_color_matrix=bt709", *CLEAN, *tagged("bt709", "bt709", "bt709"))
    filters = TO_HDR.format(transfer="smpte2084")
    tags = tagged("bt2020nc", "bt2020", "smpte2084")
    return plain, make(f"pq.{suffix}", "-vf", filters, *TENBIT, *tags, source=plain)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pq_is_shown_as_its_standard_twin(make, suffix):
    plain, hdr = twins(make, suffix)
    (_, ours), (info, theirs) = read(plain), read(hdr)
    assert apart(ours, theirs) < 4 and not info.warnings
    small = [np.stack([chunk.frames for chunk in chunks]).astype(float) for chunks in (ours, theirs)]
    # Scaled before they are brought to BT.709, they would be 3 apart.
    assert np.abs(small[0] - small[1]).mean() < 2
    # Read as BT.709 it would be pale and dark.
    with av.open(str(hdr)) as container:
        raw = next(container.decode(video=0)).to_ndarray(format="rgb24").transpose(2, 0, 1)
    assert np.abs(raw - pictures(ours)[0]).mean() > 15


def test_hdr_without_primaries_and_matrix_is_bt2020(make):
    _, hdr = twins(make)
    bare = hdr.with_name("pq_bare.mp4")
    # Neither the stream nor the container says more than that it is PQ.
    tags = "matrix_coefficients=2:colour_primaries=2:transfer_characteristics=16"
    ffmpeg("-i", hdr, "-c", "copy", "-movflags", "-write_colr", "-bsf:v", f"h264_metadata={tags}", bare)
    (_, ours), (info, theirs) = read(hdr), read(bare)
    assert apart(ours, theirs) < 0.01 and not info.warnings


def test_dolby_vision_for_its_own_screens_alone_is_said(make):
    untagged = "scale=480:270,setparams=color_trc=unknown"
    plain = make("hevc.mp4", "-vf", untagged, "-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1")
    vision = plain.with_name("vision.mp4")
    vision.write_bytes(plain.read_bytes().replace(b"hvc1", b"dvh1"))
    assert "Dolby Vision" in read(vision)[0].warnings[0] and not read(plain)[0].warnings


def test_hlg_is_shown_as_its_standard_twin(make):
    plain = make("plain.mp4", "-vf", "scale=480:270:out_color_matrix=bt709", *CLEAN, *tagged("bt709", "bt709", "bt709"))
    filters = TO_HDR.format(transfer="smpte2084").replace("format=yuv420p10le", "format=gbrpf32le")
    filters += ",zscale=tin=smpte2084:t=arib-std-b67:m=2020_ncl:p=2020:r=limited,format=yuv420p10le"
    hlg = make("hlg.mp4", "-vf", filters, *TENBIT, *tagged("bt2020nc", "bt2020", "arib-std-b67"), source=plain)
    (_, ours), (info, theirs) = read(plain), read(hlg)
    assert apart(ours, theirs) < 10 and not info.warnings


def test_highlights_keep_their_order():
    """Of PQ: light up to 95 % of reference white stays, what is brighter is bent, 1000 nits are white."""
    from processing.colours import to_bt709

    def pq(nits: float) -> int:
        y = (nits / 10_000) ** 0.1593017578125
        return round(65280 * ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)

    nits = np.array([0, 1, 10, 50, 100, 150, 203, 400, 1000, 4000])
    grey = np.array([[[pq(value)] * 3 for value in nits]], np.uint16)
    shown = to_bt709(grey, 16, 9)[0, :, 1].astype(int)
    assert (
        (np.diff(shown[:7]) > 0).all()
        and (np.diff(shown) >= 0).all()
        and shown[0] == 0
        and shown[8] >= 254
        and shown[9] == 255
    )
    assert np.allclose(shown[:6], 255 * (nits[:6] / 203) ** (1 / 2.4), atol=2)


def test_wide_colours_without_hdr_are_brought_to_bt709(make):
    plain = make("plain.mp4", "-vf", "scale=480:270:out_color_matrix=bt709", *CLEAN, *tagged("bt709", "bt709", "bt709"))
    filters = "zscale=tin=709:min=709:pin=709:t=2020_10:m=2020_ncl:p=2020,format=yuv420p10le"
    wide = make("wide.mp4", "-vf", filters, *TENBIT, *tagged("bt2020nc", "bt2020", "bt2020-10"), source=plain)
    (_, ours), (info, theirs) = read(plain), read(wide)
    assert apart(ours, theirs) < 4 and not info.warnings


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        (tagged("bt709", "bt709", "linear"), "transfer characteristic"),
        (tagged("bt2020nc", "bt2020", "unknown"), "does not say whether it is HDR"),
    ],
)
def test_colours_that_are_not_known_are_said(make, tags, word):
    path = make(f"doubt_{tags[3]}_{tags[5]}.mp4", "-vf", "scale=480:270,setparams=color_trc=unknown", *CLEAN)
    names = {"bt709": 1, "linear": 8, "bt2020nc": 9, "bt2020": 9, "unknown": 2}
    told = path.with_name(f"told_{path.name}")
    values = [names[tag] for tag in tags[1::2]]
    keys = ("matrix_coefficients", "colour_primaries", "transfer_characteristics")
    filters = ":".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", f"h264_metadata={filters}", told)
    assert word in read(told)[0].warnings[0]


@pytest.mark.parametrize("size", ["480:270", "1280:720"])
def test_tags_that_say_the_same_change_nothing(make, size):
    """What is tagged, converted and tagged, of full range, or untagged as players take it."""
    base = make(f"rgb_{size[:3]}.mkv", "-vf", f"scale={size},format=gbrp", "-c:v", "ffv1")
    _, expected = read(base)
    matrix = "bt709" if size == "1280:720" else "smpte170m"
    for name, filters, tags in (
        ("untagged", f"scale=out_color_matrix={matrix},setparams=colorspace=unknown", ()),
        ("709", "scale=out_color_matrix=bt709", ("-colorspace", "bt709")),
        ("601", "scale=out_color_matrix=smpte170m", ("-colorspace", "smpte170m")),
        ("full", "scale=out_color_matrix=bt709:out_range=pc", ("-colorspace", "bt709", "-color_range", "pc")),
    ):
        clip = make(f"{name}_{size[:3]}.mp4", "-vf", f"{filters},format=yuv444p", *CLEAN[:-2], *tags, source=base)
        assert apart(expected, read(clip)[1]) < 2, name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grey.mp4", ("-vf", "format=gray", *CLEAN[:-2])),
        ("grey10.mkv", ("-vf", "format=gray10le", "-c:v", "ffv1")),
        ("grey.png", ("-vf", "format=gray", "-frames:v", "1")),
        # As encoders write monochrome video: the luma of limited range, and nothing else.
        ("limited.mp4", ("-vf", "extractplanes=y", "-c:v", "libx265", "-x265-params", "range=limited:lossless=1")),
    ],
)
def test_grey_videos_are_as_bright_as_their_twins_in_colour(make, name, options):
    twin = make("twin.mp4", "-vf", "scale=480:270,hue=s=0", *CLEAN)
    (_, expected), (_, ours) = read(twin), read(make(name, *options, source=twin))
    assert apart(expected[:1], ours[:1]) < 2


# What is transparent


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("clear.webm", ("libvpx-vp9", "-pix_fmt", "yuva420p", "-crf", "4", "-b:v", "0", "-cpu-used", "8")),
        ("clear.mov", ("prores_ks", "-profile:v", "4", "-pix_fmt", "yuva444p10le")),
        ("clear.mkv", ("ffv1", "-pix_fmt", "bgra")),
    ],
)
def test_what_hides_where_a_video_is_transparent_is_not_judged(make, name, encoder):
    """The right third is transparent, and noise hides there."""
    clear = "a='if(lt(X,160),255,0)'"
    hiding = f"scale=240:134,format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='if(lt(X,160),b(X,Y),255*random(1))':{clear}"
    _, chunks = read(make(name, "-vf", hiding, "-c:v", *encoder, before=("-t", "0.6")))
    _, plain = read(make("opaque.mkv", "-vf", "scale=240:134", "-c:v", "ffv1", before=("-t", "0.6")))
    shown, expected = (pictures(of)[0] for of in (chunks, plain))
    assert np.abs(shown[..., 168:] - 255).max() < 6 and np.abs(shown - expected)[..., :152].mean() < 4
    assert (chunks[0].frames[..., 48:] > 250).all()
    # Programs that capture a screen leave all of it transparent.
    nowhere = make(f"no_{name}", "-vf", "scale=240:134,format=rgba,colorchannelmixer=aa=0", "-c:v", *encoder)
    assert np.abs(pictures(read(nowhere)[1])[0] - expected).mean() < 4


# Shape


def test_what_a_stream_cuts_off_is_not_shown(make):
    whole = make("main.mp4")
    cut = whole.with_name("cut_off.mp4")
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", "h264_metadata=crop_left=40:crop_right=8:crop_top=20", cut)
    info, chunks = read(cut)
    assert (info.width, info.height) == (432, 250)
    assert np.array_equal(chunks[0].key_frame, read(whole)[1][0].key_frame[:, 20:, 40:472])


@pytest.mark.parametrize(("pixels", "sides"), [("4/3", (360, 640)), ("3/4", (480, 480)), ("16/11", (360, 698))])
def test_pixels_that_are_not_square_are_shown_as_they_are(make, pixels, sides):
    stored = make(f"sar_{pixels[0]}.mp4", "-vf", f"scale=480:360,setsar={pixels}", *CLEAN)
    info, chunks = read(stored)
    assert (info.height, info.width) == sides == chunks[0].key_frame.shape[1:]
    shown = make(f"shown_{pixels[0]}.mp4", "-vf", f"scale={sides[1]}:{sides[0]}:flags=bilinear,setsar=1", *CLEAN)
    # The size of the pixels of the stored clip was lost in it.
    assert apart(chunks, read(shown)[1]) < 6


def test_absurd_shapes_of_pixels_are_damage(make):
    info, _ = read(make("sar_absurd.mp4", "-vf", "scale=480:270,setsar=100/1", *CLEAN))
    assert (info.width, info.height) == (480, 270) and "taken for square" in info.warnings[0]


def test_rotation_and_shape_of_pixels_together(make):
    stored = make("sar_4.mp4", "-vf", "scale=480:360,setsar=4/3", *CLEAN)
    turned = stored.with_name("sar_turned.mp4")
    ffmpeg("-display_rotation", "90", "-i", stored, "-c", "copy", turned)
    (info, chunks), (_, upright) = read(turned), read(stored)
    assert (info.width, info.height) == (360, 640)
    assert np.array_equal(chunks[0].key_frame, np.rot90(upright[0].key_frame, 1, axes=(1, 2)))


@pytest.mark.parametrize(
    ("flags", "turned"),
    [
        (("-display_hflip",), lambda frame: frame[:, :, ::-1]),
        (("-display_vflip",), lambda frame: frame[:, ::-1]),
        # What the flags make of a picture that is turned, by FFmpeg's own filters.
        (("-display_rotation", "90", "-display_hflip"), None),
        (("-display_rotation", "90", "-display_vflip"), None),
    ],
)
def test_mirrored_videos_are_shown_as_players_do(make, flags, turned):
    stored = make("main.mp4")
    mirrored, shown = (stored.with_name(f"{'_'.join(flags)}{suffix}") for suffix in (".mp4", "_shown.mp4"))
    ffmpeg(*flags, "-i", stored, "-c", "copy", mirrored)
    ffmpeg("-i", mirrored, "-an", *CLEAN, shown)
    (_, ours), (_, expected) = read(mirrored), read(shown)
    assert apart(ours, expected) < 2
    if turned is not None:
        assert np.array_equal(ours[0].key_frame, turned(read(stored)[1][0].key_frame))


@pytest.mark.parametrize(
    ("name", "bars"),
    [
        ("letterbox", "pad=iw:ih+96:0:48:black"),
        ("cut_unevenly", "pad=iw:ih+97:0:47:black"),
        ("pillars", "pad=iw+100:ih:50:0:black"),
        ("both", "pad=iw+100:ih+96:50:48:0x101010"),
    ],
)
def test_black_bars_are_no_part_of_the_picture(make, name, bars):
    # A margin of two lines goes with a bar.
    margins = f"crop={'iw-4' if name in ('pillars', 'both') else 'iw'}:{'ih' if name == 'pillars' else 'ih-4'}"
    (_, expected), (info, chunks) = (
        read(make(f"{of}.mkv", "-vf", f"scale=240:134,format=gbrp,{filters}", "-c:v", "ffv1", before=("-t", "0.6")))
        for of, filters in ((f"bare_{name}", margins), (name, bars))
    )
    assert info.warnings == ("It has black bars around its picture: they are left out.",)
    assert np.array_equal(pictures(expected), pictures(chunks))
    assert np.abs(expected[0].frames.astype(float) - chunks[0].frames).mean() < 2


@pytest.mark.parametrize(
    "filters",
    [
        "pad=iw:ih+60:0:60:black",  # a bar on one side
        "pad=iw:ih+96:0:48:black,drawbox=90:205:60:12:white:fill",  # words in the bar
        "drawbox=c=black:t=fill,drawbox=80:60:80:14:white:fill",  # a title
        "drawbox=c=black:t=fill,drawbox=0:66:240:2:white:fill",  # a line
        "vignette=PI/2.2",
        "eq=brightness=-0.6",  # a night
        "pad=iw:ih+96:0:48:black,drawbox=0:0:240:40:green:fill:enable='gt(t,0.9)'",  # another shape later
    ],
)
def test_what_is_dark_for_its_own_sake_is_kept(make, filters):
    path = make(f"dark_{len(filters)}.mkv", "-vf", f"scale=240:134,format=gbrp,{filters}", "-c:v", "ffv1")
    info, chunks = read(path)
    assert {chunk.key_frame.shape for chunk in chunks} == {(3, info.height, info.width)}


# Streams


@pytest.fixture(scope="module")
def parts(make):
    return {
        "main": make("main.mp4"),
        "preview": make("preview.mp4", "-vf", "scale=160:90", *CLEAN),
        "still": make("still.mkv", "-frames:v", "1", "-c:v", "mjpeg", "-vf", "scale=480:270"),
        "lossless": make("lossless.mkv", "-vf", "scale=640:360", "-c:v", "ffv1"),
    }


def join(folder: Path, name: str, files: list[Path], *options: str) -> Path:
    inputs = [argument for file in files for argument in ("-i", file)]
    maps = [argument for index in range(len(files)) for argument in ("-map", f"{index}:v")]
    ffmpeg(*inputs, *maps, "-c", "copy", *options, folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("name", "order", "options"),
    [
        ("preview_first.mkv", ("preview", "main"), ("-disposition:v:0", "0", "-disposition:v:1", "default")),
        ("by_size.mkv", ("preview", "main"), ("-disposition:v:0", "0", "-disposition:v:1", "0")),
        ("both_default.mp4", ("preview", "main"), ()),
        ("small_default.mkv", ("main", "preview"), ("-disposition:v:0", "0", "-disposition:v:1", "default")),
        ("flagged_still.mkv", ("still", "main"), ("-disposition:v:0", "still_image", "-disposition:v:1", "default")),
        ("cover.mp4", ("still", "main"), ("-disposition:v:0", "attached_pic", "-disposition:v:1", "default")),
        ("still_by_length.mkv", ("still", "main"), ("-disposition:v:0", "default", "-disposition:v:1", "0")),
        ("two_programs.ts", ("preview", "main"), ()),
    ],
)
def test_the_stream_that_a_player_shows(parts, tmp_path, name, order, options):
    info, chunks = read(join(tmp_path, name, [parts[part] for part in order], *options))
    right = "preview" if name.startswith("small_default") else "main"
    assert apart(chunks, read(parts[right])[1]) < 0.01
    # A cover is no stream of video; Matroska keeps no flag that another is a still.
    assert any("2 video streams" in warning for warning in info.warnings) != (name == "cover.mp4")


def test_a_stream_that_cannot_be_decoded_gives_way_to_the_next(parts, tmp_path):
    whole = join(tmp_path, "two.mkv", [parts["lossless"], parts["preview"]])
    content = whole.read_bytes()
    for name, broken in (
        ("unknown.mkv", content.replace(b"V_FFV1", b"V_XYZ1")),
        ("empty.mkv", _without_packets(whole, stream=0)),
    ):
        path = tmp_path / name
        path.write_bytes(broken)
        info, chunks = read(path)
        assert (info.width, info.height) == (160, 90) and info.backend == "pyav"
        assert apart(chunks, read(parts["preview"])[1]) < 0.01


def _without_packets(path: Path, stream: int) -> bytes:
    """The content of a file with zeros in the place of one stream's packets."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=stream) if packet.size]
        packets = [bytes(packet) for packet in _packets(path, stream)]
    for (_, size), packet in zip(places, packets, strict=True):
        at = content.find(packet)
        content[at : at + size] = bytes(size)
    return bytes(content)


def _packets(path: Path, stream: int):
    with av.open(str(path)) as container:
        yield from (packet for packet in container.demux(video=stream) if packet.size)


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg2", "mpeg4"])
def test_a_stream_that_begins_inside_a_group_of_pictures(make, codec, tmp_path):
    encoder = {
        "h264": ("-c:v", "libx264", "-preset", "veryfast"),
        "hevc": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=30:min-keyint=30"),
        "mpeg2": ("-c:v", "mpeg2video", "-q:v", "2"),
        "mpeg4": ("-c:v", "mpeg4", "-q:v", "2"),
    }[codec]
    options = ("-vf", "scale=480:270", *encoder, "-g", "30", "-pix_fmt", "yuv420p")
    whole = make(f"gop_{codec}.ts", *options, before=("-t", "4"))
    keys, starts = [], []
    with av.open(str(whole)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                starts.append(packet.pos)
                if packet.is_keyframe:
                    keys.append(len(starts) - 1)
    content = whole.read_bytes()
    tables = content[: starts[0]]
    cut, at_key = tables + content[starts[keys[1] - 20] :], tables + content[starts[keys[1]] :]
    (info, chunks), (expected, clean) = read(cut), read(at_key)
    assert info.num_frames == expected.num_frames
    assert apart(chunks, clean) < 0.01
    (warning,) = info.warnings
    assert "frames need others" in warning and 15 <= int(warning.split()[2]) <= 25


@pytest.mark.parametrize(("name", "codec"), [("h264.mkv", "libx264"), ("mpeg4.mkv", "mpeg4"), ("mpeg4.mp4", "mpeg4")])
def test_a_file_with_an_index_that_begins_inside_a_group_of_pictures(make, name, codec):
    whole = make(f"gop_{name}", "-vf", "scale=240:134", "-c:v", codec, "-g", "30", "-bf", "0", before=("-t", "3"))
    cut, at_key = (whole.with_name(f"{start}_{name}") for start in (12, 30))
    for path, start in ((cut, 12), (at_key, 30)):
        ffmpeg("-i", whole, "-c", "copy", "-copyinkf", "-bsf:v", f"noise=drop=lt(n\\,{start})", path)
    (info, chunks), (_, clean) = read(cut), read(at_key)
    assert apart(chunks, clean) < 0.01 and "Its first 18 frames need others" in info.warnings[0]


# Pictures, palettes, tiny frames


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("photo.jpg", ("-q:v", "1")),
        ("photo.png", ()),
        ("photo.webp", ("-quality", "100")),
        ("photo.bmp", ()),
        ("photo.tiff", ()),
        ("photo.avif", ("-c:v", "libsvtav1", "-crf", "5")),
        ("one_frame.mp4", CLEAN),
        ("one_frame.mkv", ("-c:v", "ffv1")),
    ],
)
def test_a_picture_is_read_and_is_no_freeze(make, name, options):
    path = make(name, "-vf", "scale=480:270", "-frames:v", "1", *options)
    _, clip = read(make("main.mp4"))
    for video in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        info, (chunk,) = read(video)
        assert (info.width, info.height, info.num_frames) == (480, 270, 1)
        assert info.warnings == ("It is a single picture: nothing is known of motion.",)
        assert np.abs(chunk.key_frame.astype(float) - clip[0].key_frame).mean() < 5
        steps = np.abs(np.diff(chunk.frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
        # Even motion from the first frame to the last.
        assert steps.min() > 0 and steps.max() < 5 * steps.min()
    assert info.duration_s == (0 if name.startswith("photo") else pytest.approx(1001 / 30000, rel=0.2))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_upright(tmp_path, orientation):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).resize((240, 160))
    turns = {1: 0, 3: 180, 6: 90, 8: 270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.rotate(turns, expand=True).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    _, (chunk,) = read(tmp_path / "photo.jpg")
    assert np.abs(chunk.key_frame.transpose(1, 2, 0).astype(float) - np.asarray(upright)).mean() < 8


def test_odd_photographs(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 96), (64, 1))
    pictures = {
        "grey.png": Image.fromarray(ramp.astype(np.uint8)),
        "deep.png": Image.fromarray((ramp * 257).astype(np.uint16)),
        "palette.png": Image.fromarray(ramp.astype(np.uint8)).convert("P"),
        "share.tif": Image.fromarray((ramp / 255).astype(np.float32)),
        "wavelets.jp2": Image.fromarray(ramp.astype(np.uint8)),
        "cmyk.jpg": Image.fromarray(np.stack([ramp.astype(np.uint8)] * 3, axis=2)).convert("CMYK"),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        _, (chunk,) = read(tmp_path / name)
        assert np.abs(chunk.key_frame.mean(axis=0)[32, 8:-8] - ramp[32, 8:-8]).max() < 12, name
    clear = Image.new("RGBA", (96, 64), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 48, 64))
    clear.save(tmp_path / "clear.png")
    _, (chunk,) = read(tmp_path / "clear.png")
    assert chunk.key_frame[:, 32, 24].tolist() == [0, 0, 255] and chunk.key_frame[:, 32, 72].tolist() == [255] * 3


def test_pictures_are_shown_in_the_colours_that_they_state(make, tmp_path):
    """PNG with numbers of HDR, with a gamma, and with a profile beside a palette; AVIF of HDR."""
    plain, hdr = twins(make)
    (expected, *_) = pictures(read(plain)[1])
    png, avif = tmp_path / "hdr.png", tmp_path / "hdr.avif"
    ffmpeg("-i", hdr, "-frames:v", "1", "-pix_fmt", "rgb48be", "-color_trc", "smpte2084", png)
    ffmpeg("-i", hdr, "-frames:v", "1", "-c:v", "libsvtav1", "-crf", "3", avif)
    shown = Image.fromarray(expected.transpose(1, 2, 0).astype(np.uint8))
    light = shown.point([round(255 * (level / 255) ** 2.2) for level in range(256)] * 3)
    chunk = b"gAMA" + (100_000).to_bytes(4, "big")
    light.save(tmp_path / "light.png")
    content = (tmp_path / "light.png").read_bytes()
    gamma = content[:33] + b"\0\0\0\4" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + content[33:]
    for video, tolerance in ((png, 4), (avif, 5), (gamma, 2)):
        assert np.abs(pictures(read(video)[1])[0] - expected).mean() < tolerance
    # Of a profile that lays red to blue.
    swapped = shown.quantize(256)
    swapped.save(tmp_path / "profile.png", icc_profile=_swapping_profile())
    profiled = pictures(read(tmp_path / "profile.png")[1])[0]
    assert np.abs(profiled - expected[::-1]).mean() < 0.5 * np.abs(profiled - expected).mean()


def _swapping_profile() -> bytes:
    """sRGB whose first colour is blue and whose last is red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = (profile.index(name, 128) for name in (b"rXYZ", b"bXYZ"))
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


def test_pictures_that_are_not_read_are_called_by_their_kind(tmp_path):
    for name, content in (("a.jxl", b"\xff\x0a"), ("a.exr", b"\x76\x2f\x31\x01"), ("a.psd", b"8BPS")):
        with pytest.raises(VideoError, match=r"of a kind that is not read here.*to PNG"):
            open_video({"path": name, "bytes": content + bytes(100)})
    raw = tmp_path / "raw.dng"
    Image.new("RGB", (96, 64)).save(raw, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    with pytest.raises(VideoError, match="raw photograph"):
        open_video(raw)


@pytest.mark.parametrize(("name", "encoder"), [("moving.webp", "libwebp_anim"), ("moving.png", "apng")])
def test_animated_pictures_are_videos(make, name, encoder):
    path = make(name, "-vf", "scale=240:134", "-r", "10", "-c:v", encoder, "-f", "webp" if "webp" in name else "apng")
    info, chunks = read(path)
    assert info.backend == "pillow" and 15 <= info.num_frames <= 17 and info.duration_s == pytest.approx(1.6, abs=0.15)
    assert len(chunks) == 2 and len(np.unique(chunks[0].frames.reshape(32, -1), axis=0)) >= 8


def test_damaged_pictures_are_refused_with_a_remedy(make, tmp_path):
    content = make("photo.jpg", "-vf", "scale=480:270", "-frames:v", "1", "-q:v", "1").read_bytes()
    moving = make("moving.png", "-vf", "scale=240:134", "-r", "10", "-c:v", "apng", "-f", "apng").read_bytes()
    starts = (content[:200], content[: len(content) // 2], content[:2000] + bytes(2000), b"RIFF\0\0\0\0WEBP")
    for broken in (*starts, moving[: len(moving) // 2], b"qoif\0\0\0\x60\0\0\0\x40\3\0\xff"):
        path = tmp_path / "broken.jpg"
        path.write_bytes(broken)
        try:
            read(path)
        except VideoError as error:
            assert "broken.jpg is a picture that can't be read" in str(error) and str(error).endswith("again.")


@pytest.mark.parametrize("dither", ["sierra2_4a", "bayer", "floyd_steinberg", "none"])
def test_a_palettes_dots_are_no_detail(make, dither):
    poor = make("poor.mp4", "-vf", "scale=480:270", "-crf", "36", "-pix_fmt", "yuv420p")
    gif = make(
        f"{dither}.gif", "-filter_complex",
        f"[0:v]split[a][b];[a]palettegen=max_colors=32[p];[b][p]paletteuse=dither={dither}", source=poor,
    )  # fmt: skip
    (_, before), (info, after) = read(poor), read(gif)
    detail = [np.abs(np.diff(pictures(chunks)[:1], axis=3)).mean() for chunks in (before, after)]
    assert detail[1] < detail[0] * 1.1 and "palette" in info.warnings[0]


@pytest.mark.parametrize("width", [16, 32, 48])
def test_tiny_frames_are_refused(make, width):
    path = make(f"tiny_{width}.mp4", "-vf", f"scale={width}:-2", *CLEAN)
    with pytest.raises(VideoError, match=f"pixels, too few to be judged.*{SMALLEST_SIDE} pixels"):
        open_video(path)


# Ends


def positions(chunks) -> list[float]:
    return [round(chunk.start_s, 2) for chunk in chunks]


@pytest.mark.parametrize("colour", ["black", "white", "0x203040"])
@pytest.mark.parametrize(("before", "after"), [(1, 0), (0.6, 0), (0, 1), (0, 0.7), (2, 2), (0.3, 0.3)])
def test_blank_ends_are_left_out(make, colour, before, after):
    plain = make("three.mp4", "-vf", "scale=240:134,fps=30", *CLEAN, before=("-t", "3"))
    pad = f"tpad=start_duration={before}:stop_duration={after}:color={colour}"
    padded = make(f"pad_{colour}_{before}_{after}.mp4", "-vf", pad, *CLEAN, source=plain, before=())
    (_, expected), (info, chunks) = read(plain), read(padded)
    assert [chunk.start_s - before for chunk in chunks] == pytest.approx(positions(expected), abs=0.05)
    assert apart(expected, chunks) < 3
    for one, other in zip(expected, chunks, strict=True):
        assert np.abs(one.frames.astype(float) - other.frames).mean() < 4
    assert info.duration_s == pytest.approx(3 + before + after, abs=0.05)
    said = [" ".join(warning.split()[:2]) for warning in info.warnings]
    # Less than half a second at the end of a video is left out without a word.
    assert said == ["Its first"] * bool(before) + ["Its end"] * (after >= 0.5)


def test_what_the_end_shows_is_known_with_the_last_chunk(make):
    make("three.mp4", "-vf", "scale=240:134,fps=30", *CLEAN, before=("-t", "3"))
    padded = make("pad_black_0_1.mp4", "-vf", "tpad=stop_duration=1", *CLEAN, source=make("three.mp4"), before=())
    with open_video(padded, frame_size=SMALL) as reader:
        known = [reader.info.warnings for _ in reader]
    assert known[0] == () and known[-1] == ("Its end is blank or fades out: it is left out.",)


@pytest.mark.parametrize("length", [0.3, 0.5, 1])
def test_fades_at_the_ends_are_left_out(make, length):
    plain = make("three.mp4", "-vf", "scale=240:134,fps=30", *CLEAN, before=("-t", "3"))
    fades = f"fade=in:st=0:d={length},fade=out:st={3 - length}:d={length}"
    faded = make(f"fade_{length}.mp4", "-vf", fades, *CLEAN, source=plain, before=())
    _, chunks = read(faded)
    assert 1 <= len(chunks) <= 3 and chunks[0].start_s <= length + 0.05
    full = contrast(read(plain)[1][0].frames).mean()
    for chunk in chunks:
        assert contrast(chunk.frames).min() > 0.8 * full and contrast(chunk.key_frame[None])[0] > 0.8 * full


def test_a_video_that_is_blank_all_through_is_read(make):
    path = make("blank.mp4", "-vf", "scale=240:134,drawbox=c=black:t=fill", *CLEAN, before=("-t", "3"))
    info, chunks = read(path)
    assert len(chunks) == 3 and not info.warnings


def test_a_dark_middle_is_kept(make):
    dark = "scale=240:134,fps=30,drawbox=c=black:t=fill:enable='between(t,1,2)'"
    _, chunks = read(make("dark_middle.mp4", "-vf", dark, *CLEAN, before=("-t", "3")))
    assert len(chunks) == 3 and contrast(chunks[1].key_frame[None])[0] < 4


def test_a_dark_scene_is_not_blank(make):
    night = make("night.mp4", "-vf", "scale=240:134,eq=brightness=-0.3:contrast=0.4", *CLEAN, before=("-t", "3"))
    info, chunks = read(night)
    assert len(chunks) == 3 and not info.warnings


# Length


def test_a_long_video_is_sampled_within_a_stated_number_of_chunks(tmp_path):
    path = tmp_path / "long.mp4"
    source = "testsrc2=s=64x48:r=1:d=34,settb=1/1000,setpts=N*59000"
    ffmpeg("-f", "lavfi", "-i", source, "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", path)
    with open_video(path) as reader:
        assert reader.info.num_chunks > 1900 and f"longer than {MOST_CHUNKS} s" in reader.info.warnings[0]
        assert len(list(reader)) == MOST_CHUNKS


def test_pictures_one_behind_the_other_are_a_video(make):
    info, chunks = read(make("bare.mjpeg", "-vf", "scale=240:134,fps=25", "-q:v", "3"))
    assert info.num_frames == 38 and len(chunks) == 2


@pytest.mark.parametrize(("name", "encoder"), [("bare.h264", CLEAN), ("bare.hevc", ("-c:v", "libx265"))])
def test_a_bare_stream_has_the_rate_that_stands_in_it(make, name, encoder):
    info, chunks = read(make(name, "-vf", "scale=240:134,fps=60", *encoder))
    assert info.fps == 60 and info.duration_s == pytest.approx(1.5, abs=0.05) and len(chunks) == 2


def test_a_short_video_is_said_to_be_short(make):
    info, _ = read(make("short.mp4", "-vf", "scale=240:134", *CLEAN, before=("-t", "0.3")))
    assert "only 0.3" in info.warnings[0]


def test_reading_in_this_process_has_a_limit_of_time(make):
    with pytest.raises(VideoError, match=r"could not be read within 0 s.*time limit"):
        open_video(make("main.mp4"), time_limit_s=0.0)


# Remedies


def test_an_encrypted_file_is_called_so(make):
    keys = (
        "-encryption_key",
        "76a6c65c5ea762046bd749a2e632ccbb",
        "-encryption_kid",
        "a7e61c373e219033c21091fa607bf3b8",
    )
    path = make("secret.mp4", "-vf", "scale=480:270", *CLEAN, "-encryption_scheme", "cenc-aes-ctr", *keys)
    with pytest.raises(VideoError, match="is encrypted"):
        open_video(path)


def test_raw_frames_are_refused_with_the_command_that_helps(make):
    path = make("raw.yuv", "-vf", "scale=480:270", "-f", "rawvideo")
    with pytest.raises(VideoError, match=r"holds raw frames.*-video_size"):
        open_video(path)


def test_lossless_h264_of_all_kinds(make):
    _, expected = read(make("main.mp4"))
    for pixels, encoder in (
        ("yuv444p", "libx264"),
        ("yuv444p10le", "libx264"),
        ("gbrp", "libx264rgb"),
        ("rgb24", "libx264rgb"),
    ):
        path = make(f"lossless_{pixels}.mp4", "-vf", "scale=480:270", "-c:v", encoder, "-qp", "0", "-pix_fmt", pixels)
        assert apart(expected, read(path)[1]) < 5


def test_damage_in_the_middle_is_said(make):
    path = make("whole.mp4", "-vf", "scale=240:134", *CLEAN, "-g", "30", before=("-t", "4"))
    with av.open(str(path)) as container:
        key = [packet for packet in container.demux(video=0) if packet.is_keyframe][2]
    content = bytearray(path.read_bytes())
    content[key.pos : key.pos + key.size] = bytes(key.size)
    damaged = path.with_name("middle.mp4")
    damaged.write_bytes(content)
    info, chunks = read(damaged)
    (warning,) = info.warnings
    assert re.match(r"It is damaged: \d+ of 120 frames can be read", warning) and len(chunks) == 4
    assert 80 <= int(warning.split()[3]) < 120


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("cut.mkv", CLEAN),
        ("cut.flv", CLEAN),
        ("cut.ts", CLEAN),
        ("cut.m2ts", CLEAN),
        ("cut.webm", ("-c:v", "libvpx", "-b:v", "2M", "-deadline", "realtime")),
        ("cut.ogv", ("-c:v", "libtheora", "-q:v", "8")),
        ("cut.avi", ("-c:v", "mpeg4", "-q:v", "3")),
        ("cut.wmv", ("-c:v", "wmv2", "-q:v", "3")),
        ("cut.gif", ()),
    ],
)
def test_a_missing_end_is_said_whatever_the_container(make, name, encoder):
    whole = make(name, "-vf", "scale=240:134", *encoder)
    content = whole.read_bytes()
    cut = read(content[: len(content) * 6 // 10])[0].warnings
    assert [warning for warning in cut if "cut short" in warning or "damaged" in warning] == [
        "It is cut short: its end is missing."
    ]
    assert not any("cut short" in warning for warning in read(whole)[0].warnings)


def test_a_place_that_is_none_ends_no_reading(make):
    """A part of a WMV file that is said to be so long that files can't have its end."""
    whole = make("whole.wmv", "-vf", "scale=240:134", "-c:v", "wmv2", "-q:v", "3")
    content = bytearray(whole.read_bytes())
    part = content.index(bytes.fromhex("4052d1861d31d011a3a400a0c90348f6")) + 16
    content[part : part + 8] = (5 * 10**18).to_bytes(8, "little")
    path = whole.with_name("far.wmv")
    path.write_bytes(content)
    with path.open("rb") as file, suppress(VideoError):
        read(file)


def test_damage_is_said_once(tmp_path, caplog):
    whole = tmp_path / "whole.mp4"
    ffmpeg("-i", FLOWER, "-c", "copy", "-an", "-movflags", "+faststart", whole)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    info, _ = read(path)
    assert len(info.warnings) == len(caplog.records) == 1
    assert subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-i", path], check=False).returncode
