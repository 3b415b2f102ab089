"""A file never makes us read another one, or ask the network, by whatever way it comes in."""

import io
import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from inputs import ffmpeg
from mutants import WAYS, openings_of, ways_in
from typer.testing import CliRunner

from lmmvqa.commands.main import app
from lmmvqa.scoring.fetching import at_hand
from processing.video_reader import VideoError, open_video

BACKENDS = ("auto", "pyav", "decord")
SOURCE = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=1", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def secret(tmp_path_factory) -> Path:
    """A video that nobody has named, as MP4, as transport stream, and as pictures."""
    folder = tmp_path_factory.mktemp("secret")
    for name in ("video.mp4", "video.ts", "picture%03d.png"):
        ffmpeg(*SOURCE, folder / name)
    return folder


@pytest.fixture(scope="module")
def server():
    """An address, and the connections that were made to it."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.2)
    connections: list[object] = []
    ended = threading.Event()

    def listen():
        while not ended.is_set():
            try:
                connections.append(listening.accept()[0].close())
            except TimeoutError:
                continue

    thread = threading.Thread(target=listen)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}", connections
    ended.set()
    thread.join()
    listening.close()


def hls(address: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n".encode()


def dash(address: str) -> bytes:
    return (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4">'
        f'<Representation id="1" bandwidth="1"><BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period>'
        "</MPD>"
    ).encode()


def sdp(address: str) -> bytes:
    port = address.rpartition(":")[2].partition("/")[0]
    lines = ("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0")
    return "\n".join((*lines, f"m=video {port} RTP/AVP 96", "a=rtpmap:96 H264/90000", "")).encode()


def data_reference(secret: Path) -> bytes:
    """A MOV whose track lies in another file: its data reference is an alias to the secret video."""
    content = (secret / "video.mp4").read_bytes()
    path = os.fsencode(secret / "video.mp4")
    alias = struct.pack(">IHH", 0, 0, 2) + bytes(142) + struct.pack(">HH", 2, len(path)) + path + b"\xff\xff\0\0"
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    inside = content.index(b"dref") + 4
    old = struct.unpack(">I", content[inside - 8 : inside - 4])[0]
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    grown = bytearray(content[: inside - 8] + new + content[inside - 8 + old :])
    for box in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = grown.index(box) - 4
        size = struct.unpack(">I", grown[at : at + 4])[0]
        grown[at : at + 4] = struct.pack(">I", size + len(new) - old)
    media = grown.index(b"mdat")
    size = struct.unpack(">I", grown[media - 4 : media])[0]
    # The frames themselves are not in this file.
    grown[media + 4 : media - 4 + size] = bytes(size - 8)
    return bytes(grown)


def segment_link(secret: Path) -> bytes:
    """A Matroska file without frames that says that it goes on in the secret one."""

    def element(name: bytes, content: bytes) -> bytes:
        return name + (0x10000000 | len(content)).to_bytes(4, "big") + content

    info = element(b"\x15\x49\xa9\x66", element(b"\x3e\x83\xbb", os.fsencode(secret / "video.mp4")))
    return element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska")) + element(b"\x18\x53\x80\x67", info)


def hostile(kind: str, secret: Path, address: str) -> bytes:
    video = str(secret / "video.ts")
    return {
        "hls": hls(video),
        "hls_with_mark": b"\xef\xbb\xbf" + hls(video),
        "hls_behind_lines": b"\n\n" + hls(video),
        "hls_file": hls(f"file:{video}"),
        "hls_subfile": hls(f"subfile,,start,0,end,0,,:{video}"),
        "hls_concat": hls(f"concat:{video}|{video}"),
        "hls_http": hls(f"http://{address}/a.ts"),
        "hls_tcp": hls(f"tcp://{address}"),
        "dash": dash(str(secret / "video.mp4")),
        "dash_http": dash(f"http://{address}/a.mp4"),
        "ffconcat": f"ffconcat version 1.0\nfile {secret / 'video.mp4'}\n".encode(),
        "concat_without_head": f"file {secret / 'video.mp4'}\n".encode(),
        "sdp": sdp(f"{address}/"),
        "mov_reference": data_reference(secret),
        "matroska_link": segment_link(secret),
        "smooth": f'<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="http://{address}/"/>'.encode(),
        "smil": f'<smil><body><video src="{secret / "video.mp4"}"/></body></smil>'.encode(),
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{secret}/picture001.png"/></svg>'.encode(),
        "pls": f"[playlist]\nFile1=http://{address}/a.mp4\n".encode(),
        "avisynth": f'FFVideoSource("{secret / "video.mp4"}")\n'.encode(),
        "rtsp": f"RTSPtextRTSP://{address}/a\n".encode(),
    }[kind]


KINDS = (
    "hls",
    "hls_with_mark",
    "hls_behind_lines",
    "hls_file",
    "hls_subfile",
    "hls_concat",
    "hls_http",
    "hls_tcp",
    "dash",
    "dash_http",
    "ffconcat",
    "concat_without_head",
    "sdp",
    "mov_reference",
    "matroska_link",
    "smooth",
    "smil",
    "svg",
    "pls",
    "avisynth",
    "rtsp",
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_content_leads_elsewhere(secret, server, tmp_path, kind, backend):
    pytest.importorskip("av" if backend == "auto" else backend.replace("pyav", "av"))
    address, connections = server
    content = hostile(kind, secret, address)
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    before = len(connections)
    began = time.monotonic()
    with open(path, "rb") as file:
        for video in (path, content, io.BytesIO(content), file, {"path": "clip.mp4", "bytes": content}):
            with pytest.raises(VideoError):
                list(open_video(video, backend=backend))
    assert len(connections) == before
    assert time.monotonic() - began < 30


def test_no_way_in_leads_elsewhere(secret, server, tiny, tiny_checkpoint, tmp_path):
    address, connections = server
    paths = [tmp_path / f"{kind}.mp4" for kind in KINDS]
    for path in paths:
        path.write_bytes(hostile(path.stem, secret, address))
    before = len(connections)
    with openings_of(secret) as openings, ways_in(*tiny, tiny_checkpoint, tmp_path) as ways:
        for way, score in ways.items():
            for name, rows in score(paths):
                assert len(rows) == 1 and rows[0]["error"] and rows[0]["score"] is None, (way, name)
        assert set(ways) == set(WAYS)
    assert len(connections) == before and not openings


def test_no_name_on_the_command_line_leads_elsewhere(secret, tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(secret)
    names = [f"file:{secret}/video.mp4", "concat:video.ts|video.ts", f"subfile,,start,0,end,0,,:{secret}/video.mp4"]
    with openings_of(secret) as openings:
        for name in (*names, "picture%03d.png", "pipe:0", "data:video/mp4;base64,AAAA"):
            done = CliRunner().invoke(app, ["score", name, "--json", "--model", str(tiny_checkpoint)])
            assert done.exit_code and '"score": ' not in done.stdout.replace('"score": null', ""), name
    assert not openings


def test_no_fetched_content_leads_elsewhere(secret, server):
    import fsspec

    address, connections = server
    for kind in ("hls", "hls_http", "dash_http", "sdp", "ffconcat"):
        with fsspec.open(f"memory://{kind}.mp4", "wb") as remote:
            remote.write(hostile(kind, secret, address))
        with at_hand(f"memory://{kind}.mp4") as local, pytest.raises(VideoError, match=f"{kind}.mp4"):
            open_video(local)
    assert not connections


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_name_leads_elsewhere(secret, server, tmp_path, monkeypatch, backend):
    pytest.importorskip("av" if backend == "auto" else backend.replace("pyav", "av"))
    address, connections = server
    monkeypatch.chdir(secret)
    names = (
        f"file:{secret}/video.mp4",
        "concat:video.ts|video.ts",
        f"subfile,,start,0,end,0,,:{secret}/video.mp4",
        f"crypto:{secret}/video.mp4",
        f"cache:{secret}/video.mp4",
        f"async:{secret}/video.mp4",
        "pipe:0",
        "fd:",
        "data:video/mp4;base64,AAAA",
        "picture%03d.png",
        "picture*.png",
        f"http://{address}/a.mp4",
        f"tcp://{address}",
        f"rtsp://{address}/a.mp4",
        f"tls://{address}",
        f"gopher://{address}/a",
    )
    for name in names:
        with pytest.raises(VideoError):
            open_video(name, backend=backend)
    # A pattern that is a file's name is this file, and not those that it would match.
    (secret / "picture%03d.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError):
        open_video("picture%03d.mp4", backend=backend)
    assert not connections


def test_a_name_with_a_scheme_that_is_a_file_is_read(secret, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "file:a.mp4", os.fsdecode(b"\xff.mp4")):
        Path(name).write_bytes((secret / "video.mp4").read_bytes())
        assert open_video(name).info.num_frames == 5
