"""Text from a file descriptor, as it arrives: no waiting for lines or full buffers."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import AsyncGenerator
from typing import Final

from bridge.events import Chunk

READ_BYTES: Final = 16_384
"""Read at most so much at once. Each stray byte becomes three (U+FFFD), and a chunk must still be small."""


def utf8_decoder() -> codecs.IncrementalDecoder:
    """Decodes bytes in pieces: a character cut in two waits for its rest, what isn't UTF-8 is U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


async def read_text(descriptor: int) -> AsyncGenerator[Chunk, None]:
    """What is written to `descriptor`, piece by piece, until it is closed at the other side.

    The descriptor stays blocking and open: it may be a standard input that other processes share.
    """
    decoder = utf8_decoder()
    while data := await _read(descriptor):
        if text := decoder.decode(data):
            yield Chunk(text)
    if text := decoder.decode(b"", final=True):
        yield Chunk(text)


async def _read(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:
        # A regular file: epoll won't watch it, and reading it never waits for anybody.
        await asyncio.sleep(0)
    else:
        try:
            await readable.wait()
        finally:
            loop.remove_reader(descriptor)
    return os.read(descriptor, READ_BYTES)
