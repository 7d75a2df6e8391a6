"""Text from a descriptor: as it arrives, whole characters, from all kinds of files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import MAX_CHUNK_BYTES, Chunk
from bridge.sources.pipe import read_text, utf8_decoder


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end; the test closes the latter."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


async def test_pieces_arrive_as_they_are_written(pipe: tuple[int, int]) -> None:
    """Each write is read before the next one comes, with no line end needed."""
    reader, writer = pipe
    text = read_text(reader)
    for piece in ("no line", " end\n\n", "ä"):
        os.write(writer, piece.encode())
        assert await anext(text) == Chunk(piece)
    os.close(writer)
    assert [chunk async for chunk in text] == []


async def test_waiting_does_not_block_others(pipe: tuple[int, int]) -> None:
    """While nothing is written, the event loop serves others, and a reader can be cancelled."""
    reader, writer = pipe
    waiting = asyncio.ensure_future(anext(read_text(reader)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(writer)
    assert not asyncio.get_running_loop().remove_reader(reader)


async def test_a_character_cut_in_two(pipe: tuple[int, int]) -> None:
    """Half a character waits for its other half; one that never comes is U+FFFD."""
    reader, writer = pipe
    text = read_text(reader)
    os.write(writer, b"a\xe2\x82")
    assert await anext(text) == Chunk("a")
    os.write(writer, b"\xac")
    assert await anext(text) == Chunk("€")
    os.write(writer, b"\xe2")
    os.close(writer)
    assert [chunk async for chunk in text] == [Chunk("\ufffd")]


async def test_a_regular_file(tmp_path: Path) -> None:
    """A file, which can't be waited for, is read to its end in chunks that fit into a log."""
    path = tmp_path / "input"
    path.write_bytes(b"\xff" * 100_000)
    with path.open("rb") as file:
        chunks = [chunk async for chunk in read_text(file.fileno())]
    assert "".join(chunk.text for chunk in chunks) == "\ufffd" * 100_000
    assert max(len(chunk.text.encode()) for chunk in chunks) <= MAX_CHUNK_BYTES


async def test_the_descriptor_stays_as_it_was(pipe: tuple[int, int]) -> None:
    """A standard input may be shared with others: it stays blocking."""
    reader, writer = pipe
    os.close(writer)
    assert [chunk async for chunk in read_text(reader)] == []
    assert os.get_blocking(reader)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_how_bytes_are_cut_does_not_matter(data: bytes, cuts: Sequence[int]) -> None:
    """However bytes are cut into pieces, the text is the same."""
    decoder = utf8_decoder()
    ends = sorted(cuts)
    pieces = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    text = "".join(decoder.decode(piece) for piece in pieces) + decoder.decode(b"", final=True)
    assert text == data.decode(errors="replace")
