"""What a client reads: an HTTP/1.1 answer, its chunks, the events of a stream. Pure.

Nothing here is the bridge's own code: it is the judge. It reads the bytes by the specifications: RFC 9112,
section 7.1 (chunked), and the HTML standard, section 9.2 (event streams). All senders here end lines with LF.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

_BLANK: Final = b"\r\n\r\n"


class WireError(Exception):
    """These bytes aren't what a server may send."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first lines of an answer. Names of headers are in small letters."""

    status: int
    headers: dict[bytes, bytes]
    size: int
    """How many bytes they take, with the blank line."""

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.headers.get(b"transfer-encoding", b"").lower() == b"chunked"


@dataclass(frozen=True, slots=True)
class Stream:
    """What the complete events of a stream say."""

    text: str
    chunks: int
    """How many events carried text."""
    last_id: str


def read_head(data: bytes) -> Head | None:
    """The head at the beginning of the bytes; None while it isn't there completely."""
    end = data.find(_BLANK)
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise WireError(f"no HTTP: {first[:100]!r}")
    pairs = (line.partition(b":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Head(int(rest[:3]), headers, end + len(_BLANK))


def unchunk(data: bytes) -> bytes:
    """The body in those chunks. What has come of an unfinished one is part of it."""
    pieces = []
    start = 0
    while (line_end := data.find(b"\r\n", start)) >= 0:
        try:
            size = int(data[start:line_end], 16)
        except ValueError:
            raise WireError(f"no size of a chunk: {data[start:line_end][:50]!r}") from None
        start = line_end + 2
        pieces.append(data[start : start + size])
        if len(data) > start + size and data[start + size : start + size + 2] not in (b"\r\n", b"\r"):
            raise WireError("a chunk is longer than it says")
        start += size + 2
    return b"".join(pieces)


def read_stream(body: bytes) -> Stream:
    """The text of all events whose data is ``{"text": …}``; other events count for their id only.

    An event that isn't complete is left out, as clients do.
    """
    texts = []
    last_id = b""
    for event in body.split(b"\n\n")[:-1]:
        data = None
        for line in event.split(b"\n"):
            if line.startswith(b"data: "):
                data = line[6:]
            elif line.startswith(b"id: "):
                last_id = line[4:]
        if data is not None and b'"text"' in data:
            text = json.loads(data).get("text")
            if isinstance(text, str):
                texts.append(text)
    return Stream("".join(texts), len(texts), last_id.decode())
