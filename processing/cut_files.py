"""Files whose end is missing, by what their containers say of their own length: FFmpeg reads them up to there without a
word."""

from __future__ import annotations

from typing import BinaryIO

from .video_files import first_bytes, last_bytes

_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
_ASF_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
# A page of Ogg is no longer than this.
_TAIL = 1 << 16


def is_cut_short(file: str | BinaryIO) -> bool:
    """Whether the end of a file is missing; False where its container doesn't say."""
    head, (tail, size) = first_bytes(file), last_bytes(file, _TAIL)
    if head.startswith(b"OggS"):
        return _breaks_page(tail)
    if head.startswith(b"GIF8"):
        return b"\0;" not in tail[-64:]
    # Packets of a transport stream, bare and with the time before each.
    for length, at in ((188, 0), (192, 4)):
        if head[at::length][:4] == b"GGGG":
            return size % length > 0
    return _promised_size(head) > size


def _promised_size(head: bytes) -> int:
    """Of a Matroska, RIFF or ASF file that begins so; 0 where it is not known."""
    if head.startswith(_MATROSKA):
        length, at = _element_length(head, 4)
        if head[at + length :].startswith(_SEGMENT):
            content, begin = _element_length(head, at + length + 4)
            return begin + content if content else 0
    elif head.startswith(b"RIFF"):
        content = int.from_bytes(head[4:8], "little")
        return content + 8 if content < 0xFFFFFFFF else 0
    elif head.startswith(_ASF):
        at = head.find(_ASF_PROPERTIES)
        is_live = at < 0 or head[at + 88 : at + 89] != b"\2"
        return 0 if is_live else int.from_bytes(head[at + 40 : at + 48], "little")
    return 0


def _element_length(head: bytes, at: int) -> tuple[int, int]:
    """Of an element of Matroska: how long its content is, 0 where that is not known, and where it begins."""
    size = 9 - head[at : at + 1].rjust(1, b"\0")[0].bit_length()
    unknown = (1 << 7 * size) - 1
    length = int.from_bytes(head[at : at + size], "big") & unknown
    return (0 if length == unknown else length), at + size


def _breaks_page(tail: bytes) -> bool:
    """Whether the last page of Ogg goes on behind the end."""
    at = tail.rfind(b"OggS")
    lengths = tail[at + 27 :][: tail[at + 26] if at >= 0 and at + 26 < len(tail) else 0]
    return at >= 0 and (len(tail) < at + 27 or at + 27 + len(lengths) + sum(lengths) > len(tail))
