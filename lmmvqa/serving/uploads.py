"""A file that a client sends in a form: from the request to the disk, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import NamedTemporaryFile
from typing import IO

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from lmmvqa.scoring.fetching import NamedFile

# What a form says beside its file: names, boundaries, other fields.
_FORM_BYTES = 64 * 1024
_LONGEST_NAME = 255


@asynccontextmanager
async def receive(request: Request, largest: int, seconds: float) -> AsyncIterator[NamedFile]:
    """The one file of a form, on this disk until the context ends. Errors and rows call it what the client calls it.

    Args:
        largest: bytes of the file.
        seconds: that it may take to arrive.

    Raises:
        HTTPException: 400 where the form is broken or has not one file, 507 where the disk is full; those of
            `blocks_of`.
    """
    _, options = parse_options_header(request.headers["content-type"])
    if not options.get(b"boundary"):
        raise HTTPException(400, "The form names no boundary. Let your HTTP client write the header Content-Type.")
    with NamedTemporaryFile(prefix="lmmvqa-") as local:
        form = _Form(local)
        try:
            parser = MultipartParser(options[b"boundary"], form.callbacks)
            async for block in blocks_of(request, largest, seconds, beside=_FORM_BYTES):
                await run_in_threadpool(parser.write, block)
            local.flush()
        except FormParserError as error:
            raise HTTPException(400, f"The form can't be read ({error}). Send it again.") from error
        except OSError as error:
            raise HTTPException(507, f"The service can't keep the file ({error.strerror}). Ask again later.") from error
        if not form.is_whole:
            raise HTTPException(400, "The form is cut short. Send it again.")
        if form.files != 1:
            found = "no file" if form.files == 0 else f"{form.files} files"
            raise HTTPException(400, f"The form has {found}. Send one, in a field `file`: curl -F file=@clip.mp4 ...")
        yield NamedFile(form.name, local.name)


async def blocks_of(request: Request, largest: int, seconds: float, beside: int = 0) -> AsyncIterator[bytes]:
    """The body of a request as it comes.

    Args:
        largest: bytes that may come.
        seconds: that they may take.
        beside: bytes of what is around them.

    Raises:
        HTTPException: 413 where it is too large, told before it comes by clients that say so; 408 where it comes too
            slowly.
    """
    too_large = HTTPException(413, f"What you send is larger than {largest / 2**20:g} MB, which is the limit here.")
    if int(request.headers.get("content-length", 0)) > largest + beside:
        raise too_large
    until, received = asyncio.get_running_loop().time() + seconds, 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(until):
                block = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise HTTPException(408, f"What you send did not arrive within {seconds:g} s.") from error
        received += len(block)
        if received > largest + beside:
            raise too_large
        yield block


class _Form:
    """What the parser finds in a form: the first file goes to disk, other fields are passed over."""

    def __init__(self, local: IO[bytes]):
        self.name, self.files, self.is_whole = "", 0, False
        self._local = local
        self._keeps = False
        self._header, self._value = b"", b""

    @property
    def callbacks(self) -> dict[str, object]:
        names = ("part_begin", "part_data", "header_field", "header_value", "header_end", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self) -> None:
        self._keeps = False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" in options:
                self.files += 1
                self._keeps = self.files == 1
                if self._keeps:
                    self.name = options[b"filename"].decode(errors="replace")[:_LONGEST_NAME] or "file"
        self._header, self._value = b"", b""

    def _end(self) -> None:
        self.is_whole = True

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._keeps:
            self._local.write(data[start:end])
