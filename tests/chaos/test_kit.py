"""The kit itself: a proof is worth as much as what it would notice."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import encode
from bridge.events import Chunk, Data, End, Event, Position, Reset
from bridge.sse import Frame
from bridge.view import View
from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.invariants import Invariants
from tests.chaos.kit.record import Record, Recorder
from tests.chaos.kit.script import count_faults, events, stamps
from tests.chaos.kit.tally import Tally, table
from tests.followers import Follower
from tests.proxy import resp_messages


def fold(reported: list[Event]) -> View:
    """The view of a run's events."""
    view = View("job-1")
    for event in reported:
        view.apply(Position(0, 0), event)
    return view


RUN = list(events("seed", 1, 50))
TEXTS = [number for number, event in enumerate(RUN) if isinstance(event, Chunk) and event.field == "text"]


def test_a_script_is_the_same_for_the_same_seed() -> None:
    """So a run can be repeated, whatever the pieces in which it was ordered."""
    assert [*events("seed", 1, 10), *events("seed", 11, 10)][10:] == list(events("seed", 11, 10))
    assert list(events("seed", 1, 10)) != list(events("other", 1, 10))
    assert stamps(fold(list(events("seed", 1, 50, stamped=True))).text)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda run: run.pop(TEXTS[3]), "lost"),
        (lambda run: run.insert(TEXTS[3], run[TEXTS[3]]), "doubled"),
        (lambda run: run.insert(TEXTS[3], run.pop(TEXTS[4])), "reordered"),
    ],
)
def test_every_fault_is_counted(damage: object, fault: str) -> None:
    """One piece lost, doubled or in the wrong place is seen as just that."""
    run = list(RUN)
    assert not count_faults(fold(RUN), fold(run)).total()
    damage(run)  # type: ignore[operator]  # a lambda of the list above
    found = count_faults(fold(RUN), fold(run))
    assert found.pop(fault) == 1
    # A doubled piece stands in its old order, and a moved one is still there.
    assert not found.total()


def test_a_record_is_what_was_written(tmp_path: Path) -> None:
    """The fold of a run can be had from its file, even where the last line was torn."""
    file = tmp_path / "record"
    recorder = Recorder(file)
    run: list[Event] = [*RUN, Data("breaks", "\n\u2028\r\n"), Chunk("\n\r\n\u2028\x85")]
    for event in run:
        recorder.event(event)
    recorder.ended("succeeded", {"events": 2})
    with file.open("ab") as more:
        more.write(b'chunk {"text":"torn')
    record = Record("job-1", file)
    assert record.view.as_dict() == fold(run).as_dict()
    assert (record.events, record.state, record.result) == (len(run), "succeeded", {"events": 2})


@pytest.mark.parametrize(("allowed", "wrong"), [({"log_lost"}, 0), ({"retry"}, 1), (set(), 1)])
def test_a_reset_without_a_reason_is_noticed(tmp_path: Path, allowed: set[str], wrong: int) -> None:
    """Who ends with the right text, but had to begin anew though nothing was lost, is a broken promise."""
    recorder = Recorder(tmp_path / "record")
    recorder.event(Chunk("a"))
    recorder.ended("succeeded", None)
    follower = Follower("http://127.0.0.1:1", "job-1")
    told: list[Event] = [Reset("log_lost", 1), Chunk("a"), End("succeeded")]
    for number, event in enumerate(told, 1):
        follower.take(Frame(event.kind, encode(event).decode(), str(Position(2, number))))
    worker: Any = SimpleNamespace(tasks=["job-1"], record=lambda _: Record("job-1", tmp_path / "record"))
    nothing: Any = None
    check = Invariants(nothing, [], [worker], [Crowd([follower])], {}, allowed, Tally("a fault"))
    check._check_follower(follower)
    assert len(check._wrong) == wrong, check._wrong


@given(values=st.lists(st.lists(st.binary(max_size=20), max_size=4), max_size=5), seed=st.integers())
def test_redis_messages_are_told_apart(values: list[list[bytes]], seed: int) -> None:
    """However the bytes are cut into pieces, the same whole messages come out of them."""
    wanted = [
        b"*%d\r\n" % len(items) + b"".join(b"$%d\r\n%s\r\n" % (len(item), item) for item in items)
        for items in values
    ]
    data, found, rest = b"".join(wanted), [], b""
    chance = random.Random(seed)
    while data:
        size = chance.randint(1, len(data))
        messages, rest = resp_messages(rest + data[:size])
        found += messages
        data = data[size:]
    assert found == wanted
    assert rest == b""


def test_the_table_shows_what_was_found() -> None:
    """A row per scenario, and its notes below; what was lost makes it a failure."""
    tally = Tally("a fault", written=1234, lost=1, notes=["seen"])
    with tally.injecting(2):
        pass
    assert tally.failed
    assert "| a fault | 2 | 1,234 | 1 | 0 | 0 | 0.0 s |" in table([tally])
    assert table([tally]).endswith("\n- a fault: seen")
