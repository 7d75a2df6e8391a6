"""The merge rule (see `bridge.events`): fewer events that fold to the same view. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridge.codec import encode, utf8
from bridge.entries import Entry
from bridge.events import MAX_CHUNK_BYTES, Chunk, Data, Progress, Reset


def compact(entries: Sequence[Entry]) -> list[Entry]:
    """The fewest entries that fold to the same view: the merge rule (see the top of the module).

    Positions strictly increase and the last one is kept. Merged chunks stay within `MAX_CHUNK_BYTES`,
    except where a single one of the input is larger.
    """
    kept = _without_superseded(entries)
    merged: list[Entry] = []
    run: list[Entry] = []
    size = 0
    for entry in kept:
        event = entry.event
        if isinstance(event, Chunk):
            grown = len(utf8(event.text))
            if run and (_field(run[0]) != event.field or size + grown > MAX_CHUNK_BYTES):
                merged.append(_join(run))
                run, size = [], 0
            run.append(entry)
            size += grown
            continue
        if run:
            merged.append(_join(run))
            run, size = [], 0
        merged.append(entry)
    if run:
        merged.append(_join(run))
    return merged


def _without_superseded(entries: Sequence[Entry]) -> list[Entry]:
    """Drop what stands before the last reset, and progress and data that a later one replaces.

    The newest entry always stays (it is looked at first), so the last position is kept.
    """
    kept: list[Entry] = []
    seen: set[str] = set()
    for entry in reversed(entries):
        event = entry.event
        if isinstance(event, Progress | Data):
            key = event.kind if isinstance(event, Progress) else f"data {event.name}"
            if key in seen:
                continue
            seen.add(key)
        kept.append(entry)
        if isinstance(event, Reset):
            break
    kept.reverse()
    return kept


def _field(entry: Entry) -> str:
    assert isinstance(entry.event, Chunk)
    return entry.event.field


def _join(run: Sequence[Entry]) -> Entry:
    """One chunk entry for a run of chunk entries of one field."""
    if len(run) == 1:
        return run[0]
    chunks = [entry.event for entry in run if isinstance(entry.event, Chunk)]
    at = next((chunk.at for chunk in reversed(chunks) if chunk.at is not None), None)
    event = Chunk("".join(chunk.text for chunk in chunks), chunks[0].field, at)
    return Entry(run[-1].position, event, encode(event))


def split_text(text: str, limit: int = MAX_CHUNK_BYTES) -> Iterable[str]:
    """Cut `text` into pieces of at most `limit` UTF-8 bytes (4 or more), never inside a character."""
    if limit < 4:
        raise ValueError(f"a character may need 4 bytes (got a limit of {limit})")
    if len(text) * 4 <= limit:
        if text:
            yield text
        return
    data = utf8(text)
    start = 0
    while start < len(data):
        stop = min(start + limit, len(data))
        while stop < len(data) and data[stop] & 0xC0 == 0x80:
            stop -= 1
        yield data[start:stop].decode()
        start = stop
