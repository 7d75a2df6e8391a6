"""The gate: what is counted, refused and given back; without a server, and over sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.errors import TooMany
from bridge.gateway.auth import Visitor
from bridge.gateway.limits import FULL_SECONDS, WINDOW_SECONDS, Connections, Gate, Windows
from bridge.settings import Settings
from tests.gateway.running import Running, running
from tests.gateway.test_stream import big_texts
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

HERE = "198.51.100.1"
THERE = "198.51.100.2"
ANN, BOB = Visitor("sub:ann"), Visitor("sub:bob")
ANONYMOUS = Visitor("anonymous", granted=True)
REFUSED = re.compile(rb"\Aretry: (\d+)\n: (too many [a-z ]+)\n\Z")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def gate(clock: Clock | None = None, **settings: Any) -> Gate:
    """A gate with these settings, whose time stands still."""
    return Gate(Settings(**settings), clock=clock or Clock())


# --- rates --------------------------------------------------------------------------------------------


def test_a_rate_may_be_used_at_once_and_begins_anew() -> None:
    """Four seconds' worth in a burst, then no more until the window is over; being refused costs nothing."""
    clock = Clock()
    one = gate(clock, polls_per_second=3)
    for _ in range(2):
        for _ in range(3 * WINDOW_SECONDS):
            one.pace(HERE, "poll")
        for _ in range(100):
            with pytest.raises(TooMany) as refused:
                one.pace(HERE, "poll")
            assert (refused.value.limit, refused.value.retry_seconds) == ("polls_per_second", WINDOW_SECONDS)
        clock.now += WINDOW_SECONDS
    assert one.refused["polls_per_second"] == 200


def test_who_is_refused_is_told_when_the_window_ends() -> None:
    """Whole seconds, at least one, so that the next try is let in."""
    clock = Clock()
    one = gate(clock, new_streams_per_second=1)
    for _ in range(WINDOW_SECONDS):
        one.pace(HERE, "stream")
    for passed, told in ((0.5, 4), (0.6, 3), (2.8, 1)):
        clock.now += passed
        with pytest.raises(TooMany) as refused:
            one.pace(HERE, "stream")
        assert refused.value.retry_seconds == told
    clock.now += 1
    one.pace(HERE, "stream")


def test_rates_are_each_addresss_own_and_each_kinds_own() -> None:
    """Nobody pays for another's polls, nor with polls for streams."""
    one = gate(polls_per_second=1, new_streams_per_second=1)
    for _ in range(WINDOW_SECONDS):
        one.pace(HERE, "poll")
    one.pace(THERE, "poll")
    one.pace(HERE, "stream")
    with pytest.raises(TooMany):
        one.pace(HERE, "poll")


def test_a_network_of_ipv6_is_one_address() -> None:
    """Or each of its 2⁶⁴ addresses would have a rate of its own."""
    one = gate(polls_per_second=1)
    for number in range(WINDOW_SECONDS):
        one.pace(f"2001:db8::{number}", "poll")
    with pytest.raises(TooMany):
        one.pace("2001:db8::ffff", "poll")
    one.pace("2001:db8:0:1::1", "poll")


def test_zero_means_no_limit() -> None:
    """For rates and places alike."""
    names = [name for name in Settings.__dataclass_fields__ if "streams" in name or "polls" in name]
    one = gate(None, **dict.fromkeys(names, 0))
    with ExitStack() as stack:
        for _ in range(1000):
            one.pace(HERE, "poll")
            one.pace(HERE, "stream")
            stack.enter_context(one.place(HERE, ANN))
        assert one.streams == 1000


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "", "testclient"])
def test_this_machine_has_no_limits_of_its_own(address: str) -> None:
    """Nor who has no address, under somebody else's server; but their streams count in all."""
    one = gate(polls_per_second=1, max_streams_per_address=1, max_streams=2)
    for _ in range(100):
        one.pace(address, "poll")
    with one.place(address, ANONYMOUS), one.place(address, ANONYMOUS):
        with pytest.raises(TooMany), one.place(address, ANONYMOUS):
            pass


def test_windows_are_forgotten_when_they_are_over() -> None:
    """What is kept is what counts now."""
    clock = Clock()
    windows = Windows(clock=clock)
    for number in range(100):
        windows.incr(f"key-{number}", WINDOW_SECONDS)
        clock.now += 0.1
    assert len(windows) <= WINDOW_SECONDS / 0.1 + 1
    assert windows.get("key-0") == 0
    assert windows.get("key-99") == 1


def test_windows_are_bounded() -> None:
    """From more addresses than are remembered at once, the oldest is forgotten, and nothing else."""
    windows = Windows(most=10, clock=Clock())
    for number in range(11):
        windows.incr(f"key-{number}", WINDOW_SECONDS)
    assert len(windows) == 10
    assert [windows.get(f"key-{number}") for number in (0, 1, 10)] == [0, 1, 1]


# --- places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "others"),
    [
        ("max_streams", []),
        ("max_streams_per_address", [(THERE, ANN)]),
        ("max_streams_per_principal", [(HERE, BOB), (HERE, ANONYMOUS)]),
    ],
)
def test_places_are_given_back(limit: str, others: list[tuple[str, Visitor]]) -> None:
    """Who is over a limit is refused, others aren't; and when one leaves, the next comes in."""
    one = gate(None, **{limit: 2})
    with one.place(HERE, ANN):
        with one.place(HERE, ANN):
            with pytest.raises(TooMany) as refused, one.place(HERE, ANN):
                pass
            assert (refused.value.limit, refused.value.retry_seconds) == (limit, FULL_SECONDS)
            for address, visitor in others:
                with one.place(address, visitor):
                    assert one.streams == 3
        with one.place(HERE, ANN):
            assert one.streams == 2
    assert one.streams == 0
    assert not one._taken, "what is left would grow with every visitor"


def test_everybody_is_not_one_principal() -> None:
    """Without credentials there is nobody to count, only addresses."""
    one = gate(max_streams_per_principal=1)
    with one.place(HERE, ANONYMOUS), one.place(THERE, ANONYMOUS):
        assert one.streams == 2


@given(st.lists(st.sampled_from(["leaves", "fails", "is cancelled"]), max_size=30))
async def test_a_place_is_given_back_once_on_every_way_out(ways: list[str]) -> None:
    """Streams that end, break and are cancelled, at any time, while others wait."""
    one = gate()
    go = asyncio.Event()

    async def visit(way: str) -> None:
        with one.place(HERE, ANN):
            await go.wait()
            if way == "fails":
                raise ConnectionError
            if way == "is cancelled":
                await asyncio.Event().wait()

    visits = [asyncio.create_task(visit(way)) for way in ways]
    await asyncio.sleep(0)
    assert one.streams == len(ways)
    go.set()
    await asyncio.sleep(0)
    for way, task in zip(ways, visits, strict=True):
        if way == "is cancelled":
            task.cancel()
            task.cancel()
    await asyncio.gather(*visits, return_exceptions=True)
    assert not one._taken


class GateMachine(RuleBasedStateMachine):
    """Visitors come and go in any order; a plain list says who should be inside."""

    MOST = (6, 4, 3)

    def __init__(self) -> None:
        super().__init__()
        all_, address, principal = self.MOST
        self.gate = gate(
            max_streams=all_, max_streams_per_address=address, max_streams_per_principal=principal
        )
        self.inside: list[tuple[str, Visitor, ExitStack]] = []

    @rule(address=st.sampled_from([HERE, THERE]), visitor=st.sampled_from([ANN, BOB, ANONYMOUS]))
    def come(self, address: str, visitor: Visitor) -> None:
        same_address = sum(one[0] == address for one in self.inside)
        same_principal = sum(one[1] == visitor and visitor is not ANONYMOUS for one in self.inside)
        counts = (len(self.inside), same_address, same_principal)
        free = all(count < most for count, most in zip(counts, self.MOST, strict=True))
        stack = ExitStack()
        try:
            stack.enter_context(self.gate.place(address, visitor))
        except TooMany:
            assert not free
        else:
            assert free
            self.inside.append((address, visitor, stack))

    @precondition(lambda self: self.inside)
    @rule(number=st.integers(min_value=0))
    def go(self, number: int) -> None:
        self.inside.pop(number % len(self.inside))[2].close()

    @invariant()
    def counted(self) -> None:
        assert self.gate.streams == len(self.inside)
        if not self.inside:
            assert not self.gate._taken


TestGateMachine = GateMachine.TestCase


# --- connections --------------------------------------------------------------------------------------


def test_connections_are_counted_per_address_and_in_all() -> None:
    """Proxies carry everybody's, so theirs count in all only."""
    door = Connections(
        Settings(max_connections=6, max_connections_per_address=2, trusted_proxies="10.0.0.0/8")
    )
    assert [bool(door.enter(HERE)) for _ in range(3)] == [True, True, False]
    place = door.enter(THERE)
    assert [door.enter("10.0.0.1") for _ in range(4)] == ["", "", "", None]
    assert door.refused == {"max_connections": 1, "max_connections_per_address": 1}
    assert place is not None
    door.leave(place)
    assert door.enter("10.0.0.1") == ""
    assert door.all == 6


# --- over sockets -------------------------------------------------------------------------------------


@pytest.fixture
def narrow(redis_url: str, writer: Writer) -> Iterator[Running]:
    """A gateway behind a proxy (the test), with room for two streams per address and three in all."""
    writer.open().text("so far")
    with running(
        redis_url, trusted_proxies="127.0.0.1", max_streams=3, max_streams_per_address=2,
        polls_per_second=1, stall_timeout_seconds=1000.0,
    ) as one:  # fmt: skip
        one.stop_windows()
        yield one


def come(gateway: Running, address: str = HERE, **more: Any) -> Viewer:
    """A stream from an address."""
    headers = {"Accept": "text/event-stream", "X-Forwarded-For": address}
    return Viewer(gateway, "/tasks/job-1/events", headers=headers, **more)


def refusal(viewer: Viewer) -> tuple[int, str]:
    """After how many milliseconds it may come back, and why it was refused."""
    with viewer:
        viewer.to_end()
        assert (viewer.status, viewer.headers["content-type"]) == (200, "text/event-stream")
        said = REFUSED.match(viewer.body)
        assert said, viewer.body
        return int(said[1]), said[2].decode()


def streams(gateway: Running) -> int:
    """How many are inside."""
    return gateway.inside(lambda: gateway.gateway.gate.streams)


def test_a_stream_too_many_is_sent_away_so_that_it_comes_back(narrow: Running, writer: Writer) -> None:
    """200, `retry:`, the reason, closed: else EventSource would stop for ever. Those inside go on."""
    with come(narrow) as first, come(narrow) as second:
        for viewer in (first, second):
            viewer.text_is("so far")
        retry, why = refusal(come(narrow))
        assert retry >= FULL_SECONDS * 1000
        assert why == "too many streams are open from your address"
        with come(narrow, THERE) as third:
            third.text_is("so far")
            assert refusal(come(narrow, "198.51.100.3"))[1] == "too many streams are open"
            writer.text(" and on")
            for viewer in (first, second, third):
                viewer.text_is("so far and on")
        eventually(lambda: streams(narrow) == 2)
    eventually(lambda: streams(narrow) == 0)
    with come(narrow) as again:
        again.text_is("so far and on")


def test_new_streams_have_a_rate(redis_url: str, writer: Writer) -> None:
    """Coming back again and again is refused, too, until the window is over."""
    writer.open().end()
    with running(redis_url, trusted_proxies="127.0.0.1", new_streams_per_second=1) as gateway:
        gateway.stop_windows()
        for _ in range(WINDOW_SECONDS):
            with come(gateway) as viewer:
                assert viewer.to_end().view.ended
        retry, why = refusal(come(gateway))
        assert retry >= 1000
        assert why == "too many requests from your address"
        with come(gateway, THERE) as viewer:
            assert viewer.to_end().view.ended


@pytest.mark.parametrize("path", ["status", "cancel"])
def test_polls_too_many(narrow: Running, path: str) -> None:
    """429 with `Retry-After` in the shape of all errors, for polls and cancels; others are served."""
    ask = narrow.get if path == "status" else narrow.post
    url = f"/tasks/job-1/{path}"
    for _ in range(WINDOW_SECONDS):
        assert ask(url, headers={"X-Forwarded-For": HERE}).status_code == 200
    answer = ask(url, headers={"X-Forwarded-For": HERE})
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "too_many"
    assert 1 <= int(answer.headers["retry-after"]) <= WINDOW_SECONDS
    assert ask(url, headers={"X-Forwarded-For": THERE}).status_code == 200
    assert narrow.get("/healthz", headers={"X-Forwarded-For": HERE}).status_code == 200


def leaves(gateway: Running, writer: Writer, viewer: Viewer) -> None:
    """It closes its side."""
    viewer.close()


def is_cut(gateway: Running, writer: Writer, viewer: Viewer) -> None:
    """The gateway breaks it off."""
    assert gateway.inside(lambda: gateway.hub.cut("job-1")) == 1


def reaches_the_end(gateway: Running, writer: Writer, viewer: Viewer) -> None:
    """The task ends."""
    writer.end()
    viewer.to_end()


def is_drained(gateway: Running, writer: Writer, viewer: Viewer) -> None:
    """The gateway goes away."""
    gateway.begin_to_stop()
    viewer.to_end()


def leaves_much_unread(gateway: Running, writer: Writer, viewer: Viewer) -> None:
    """It is busy taking, and leaves."""
    big_texts(writer)
    viewer.close()


def breaks(gateway: Running, writer: Writer, viewer: Viewer) -> None:
    """A bug of ours, in the midst of a stream."""

    def bug(*_: object) -> bytes:
        raise RuntimeError("a bug")

    (follower,) = next(iter(gateway.hub._channels.values())).followers
    gateway.inside(lambda: setattr(follower, "dialect", bug))
    writer.text("more")


@pytest.mark.parametrize("way", [leaves, is_cut, reaches_the_end, is_drained, leaves_much_unread, breaks])
def test_a_streams_place_is_free_again(
    narrow: Running, writer: Writer, way: Any, expected_errors: list[str]
) -> None:
    """Whichever way it went."""
    if way is breaks:
        expected_errors += ["a bug", "Exception in ASGI", "should not"]
    with come(narrow, receive_buffer=4096) as viewer:
        viewer.text_is("so far")
        assert streams(narrow) == 1
        gate = narrow.gateway.gate
        way(narrow, writer, viewer)
        eventually(lambda: gate.streams == 0)
        eventually(lambda: not gate._taken)


def test_a_stalled_stream_gives_its_place_back(redis_url: str, writer: Writer) -> None:
    """One that takes nothing is disconnected, and counts no more."""
    writer.open()
    with running(redis_url, stall_timeout_seconds=0.2) as gateway:
        with watch(gateway, receive_buffer=4096) as stuck:
            stuck.until(lambda v: len(v.frames) == 1)
            big_texts(writer)
            eventually(lambda: streams(gateway) == 0)


def test_a_crowd_that_comes_and_goes_leaves_nothing_counted(narrow: Running) -> None:
    """Many at once, most of them refused, some gone before they are answered."""
    crowd = [come(narrow, f"198.51.100.{number % 7}") for number in range(100)]
    for viewer in crowd[::3]:
        viewer.close()
    for number, viewer in enumerate(crowd):
        if number % 3:
            viewer.until(lambda v: v.closed or b"event:" in v.body)
            assert streams(narrow) <= 3
            viewer.close()
    eventually(lambda: not narrow.gateway.gate._taken)
    with come(narrow) as viewer:
        viewer.text_is("so far")
