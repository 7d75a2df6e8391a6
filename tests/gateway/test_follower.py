"""What is handed to all who follow a task."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import Chunk, Position
from bridge.gateway.follower import Batch


@pytest.mark.parametrize(
    ("frames", "chunk"),
    [(b"data: x\n\n", b"9\r\ndata: x\n\n\r\n"), (b"x" * 26, b"1a\r\n" + b"x" * 26 + b"\r\n"), (b"", b"")],
)
def test_a_batch_as_a_chunk(frames: bytes, chunk: bytes) -> None:
    """With its size before it, in hexadecimal, and the same for all. A dialect that says nothing of it ends
    no body by that.
    """
    event = Chunk("x")

    def dialect(_: Sequence[Entry]) -> bytes:
        return frames

    batch = Batch([Entry(Position(1, 1), event, encode(event))])
    assert batch.chunk(dialect) == chunk
    assert batch.chunk(dialect) is batch.chunk(dialect)
