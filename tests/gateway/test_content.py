"""What events say, read when somebody asks, and in time."""

from __future__ import annotations

import pytest

from bridge import entries as entries_module
from bridge.codec import decode, encode
from bridge.entries import Entry
from bridge.events import Chunk, End, Event
from bridge.gateway.content import Content


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of all events that are read from now on."""
    kinds: list[str] = []

    def counting(kind: str, data: bytes) -> Event:
        kinds.append(kind)
        return decode(kind, data)

    monkeypatch.setattr(entries_module, "decode", counting)
    return kinds


def unread(seq: int, event: Event) -> Entry:
    """An entry as it comes over the link."""
    return Entry.unread(1, seq, event.kind, encode(event))


def test_nothing_is_read_before_somebody_asks_or_the_task_ends(decoded: list[str]) -> None:
    """Text waits; the end is known at once, and with it all that came before."""
    content = Content("job-1")
    assert content.extend([unread(1, Chunk("a"))])
    assert decoded == []
    assert not content.ended
    assert content.extend([unread(2, Chunk("b")), unread(3, End("succeeded"))])
    assert content.ended
    assert (decoded, content.view.text) == (["chunk", "chunk", "end"], "ab")


def test_a_long_task_is_read_in_parts(decoded: list[str]) -> None:
    """However much text comes that nobody asks for, never is so much read at once that others would wait."""
    content, most = Content("job-1"), 0
    for seq in range(1, 10_001):
        before = len(decoded)
        content.extend([unread(seq, Chunk("x"))])
        most = max(most, len(decoded) - before)
    before = len(decoded)
    content.extend([unread(10_001, End("succeeded"))])
    assert max(most, len(decoded) - before) <= 1000
    assert content.view.text == "x" * 10_000
