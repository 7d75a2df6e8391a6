"""Hypothesis strategies for the vocabulary: events, logs, and JSON."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import (
    RESET_REASONS,
    TERMINAL_STATES,
    Chunk,
    Data,
    End,
    Event,
    Position,
    Progress,
    Reset,
    State,
    Unknown,
)

EPOCH = 1_763_650_000_000

times = st.integers(0, 4_102_444_800_000)
counts = st.integers(0, 2**53 - 1)
fractions = st.floats(0, 1)
names = st.sampled_from(["text", "reasoning", "a", "b"]) | st.text(max_size=8)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)

# As in a log: every event but a chunk carries the time.
chunks = st.builds(Chunk, st.text(max_size=20), names, st.none() | times)
others: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        State,
        st.sampled_from(["queued", "running"]),
        counts,
        st.booleans(),
        st.none() | times,
        st.none() | times,
        times,
    ),
    st.builds(Progress, st.none() | fractions, st.none() | st.text(), times),
    st.builds(Data, names, json_values, times),
    st.builds(
        Unknown,
        st.sampled_from(["later", "much_later"]),
        json_objects.filter(lambda members: "at" not in members),
        times,
    ),
    st.builds(Reset, st.sampled_from(sorted(RESET_REASONS)), counts, times),
)
ends = st.builds(
    End,
    st.sampled_from(sorted(TERMINAL_STATES)),
    st.none() | st.fixed_dictionaries({"code": st.text(), "message": st.text()}),
    json_values,
    st.none() | json_objects,
    st.dictionaries(names, counts, max_size=3),
    st.booleans(),
    times,
)
events: st.SearchStrategy[Event] = chunks | others | ends


def as_log(log: list[Event], first: int = 1) -> list[Entry]:
    """The events at consecutive positions of one epoch."""
    return [Entry(Position(EPOCH, seq), event, encode(event)) for seq, event in enumerate(log, first)]


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """A log that our writers could have written: many chunks, at most one end, and that last."""
    body = draw(st.lists(chunks | chunks | others, max_size=25))
    if draw(st.booleans()):
        body.append(draw(ends))
    return as_log(body)
