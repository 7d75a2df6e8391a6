"""Whose events a channel holds, and who is handed what of them."""

from __future__ import annotations

import pytest

from bridge.events import Chunk, Position, State
from bridge.gateway.channel import Channel
from bridge.store.log import Head, Reading
from tests.gateway.readers import TASK, Reader, entries, read


def owned(epoch: int, owner: str, *texts: str) -> tuple[Reading, Head]:
    """A log of that epoch and owner: what a read brings, and its head."""
    log = entries(epoch, [State("running", 1), *(Chunk(text) for text in texts)])
    reading = read(log)
    old = reading.head
    assert old is not None
    head = Head(old.position, old.bytes, old.state, old.lease, owner)
    return Reading(head, reading.entries, reading.whole, reading.now), head


def loaded(reading: Reading) -> Channel:
    """A channel that has read this."""
    channel = Channel(TASK, lambda _: None)
    assert channel.owner is None
    channel.want_read()
    channel.begin_read()
    channel.load(reading)
    return channel


def test_the_owner_is_that_of_what_is_held() -> None:
    """An audit that already sees a new life of the task, and whose that is, changes nothing yet: else its new
    owner would be shown the old one's text for a moment.
    """
    channel = loaded(owned(1, "ann", "private")[0])
    assert channel.owner == "ann"
    reading, head = owned(2, "bob", "of bob")
    channel.compare(head, channel.position)
    assert (channel.owner, channel.position.epoch) == ("ann", 1)
    channel.begin_read()
    channel.load(reading)
    assert (channel.owner, channel.position.epoch) == ("bob", 2)


def test_an_unknown_task_is_nobodys_not_even_that() -> None:
    """None, where "" is a task without an owner."""
    channel = loaded(read(None))
    assert channel.owner is None
    channel = loaded(owned(1, "ann")[0])
    channel.want_read()
    channel.begin_read()
    channel.load(read(None))
    assert channel.owner is None


def test_an_owner_that_comes_later_wakes_who_waits() -> None:
    """It comes without an event, so the audit is what finds it; it wakes nobody while nothing changes."""
    channel = loaded(owned(1, "", "text")[0])
    reader = Reader()
    channel.followers.add(reader)
    head = owned(1, "ann", "text")[1]
    for wakes in (1, 1):
        channel.compare(head, channel.position)
        assert (channel.owner, reader.wakes) == ("ann", wakes)


def test_an_answer_that_comes_late_takes_nothing_back() -> None:
    """Of two scripts that ran at the same time, the answer of the earlier one may come after the other's."""
    channel = loaded(owned(1, "", "text")[0])
    channel.wrote(Position(1, 4), "ann")
    channel.wrote(Position(1, 3), "")
    assert (channel.owner, channel.written) == ("ann", Position(1, 4))


@pytest.mark.parametrize("known", [False, True])
def test_an_owner_is_known_though_a_read_began_before(known: bool) -> None:
    """Who announced a task through this gateway isn't refused because a read, which may have been made
    before that, knows no owner; nor because an audit has.
    """
    reading, head = owned(1, "", "text")
    channel = loaded(reading if known else read(None))
    channel.want_read()
    channel.begin_read()
    channel.wrote(head.position, "ann")
    channel.load(reading)
    assert (channel.owner, channel.head and channel.head.owner) == ("ann", "ann")
    channel.compare(head, channel.position)
    assert (channel.owner, channel.head and channel.head.owner) == ("ann", "ann")


def test_what_was_told_gives_nobody_a_task_that_has_an_owner() -> None:
    """What Redis says goes before: it may have lost the one announcement, and taken another's."""
    channel = loaded(owned(1, "", "text")[0])
    reading, head = owned(1, "bob", "text")
    channel.want_read()
    channel.begin_read()
    channel.wrote(head.position, "ann")
    channel.load(reading)
    assert (channel.owner, channel.head) == ("bob", head)
    channel.compare(head, channel.position)
    assert (channel.owner, channel.head) == ("bob", head)


def test_what_is_read_after_an_owner_was_told_is_believed() -> None:
    """A Redis that lost the write knows best: the task is nobody's again. So is its next life."""
    reading, head = owned(1, "", "text")
    channel = loaded(reading)
    channel.wrote(head.position, "ann")
    assert (channel.owner, channel.head and channel.head.owner) == ("ann", "ann")
    channel.want_read()
    channel.begin_read()
    channel.load(reading)
    assert channel.owner == ""
    channel.wrote(head.position, "ann")
    reading, head = owned(2, "", "text")
    channel.compare(head, channel.position)
    channel.load(reading)
    assert (channel.owner, channel.head) == ("", head)


def test_nothing_is_handed_to_who_has_taken_nothing() -> None:
    """The rule that keeps events from a stream whose visitor may not see the task."""
    channel = loaded(owned(1, "ann", "private")[0])
    hidden, seeing = Reader(), Reader()
    channel.followers |= {hidden, seeing}
    seeing.catch_up(channel)
    news = entries(1, [Chunk(" and more")], after=2)
    channel.receive(news[-1].position, news)
    assert seeing.view.text == "private and more"
    assert hidden.got == []
    # Who was put back to having taken nothing is no exception, wherever it stands.
    seeing.generation = -1
    more = entries(1, [Chunk("!")], after=3)
    channel.receive(more[-1].position, more)
    assert seeing.view.text == "private and more"
