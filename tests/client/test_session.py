"""Following without I/O: what counts as new, what to resume with, when to come back and when to give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import sse
from bridge.client.session import FIRST_WAIT, LONGEST_RETRY, LONGEST_WAIT, Batch, Session, refusal
from bridge.errors import ClientError, GatewayUnavailable, InvalidTaskId, RequestRefused, TaskNotFound
from bridge.events import Chunk, Data, End, Event, Position, Progress, Reset, State
from bridge.view import View
from tests.client.scripted import wire

STREAM = {"content-type": "text/event-stream"}
AWAY = GatewayUnavailable("away")


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(session: Session) -> Session:
    """`session`, with a stream open."""
    session.connect()
    session.answered(200, STREAM)
    return session


def positions(batch: Batch) -> list[str]:
    """The positions of a batch, as text."""
    return [str(position) for position, _ in batch]


def test_events_are_folded_and_returned_once() -> None:
    """Each new event is in the batch and in the view; one that comes again is in neither."""
    session = opened(Session("job"))
    first = wire("7-1", State("running", 1)) + wire("7-2", Chunk("Hel"))
    assert positions(session.receive(first)) == ["7-1", "7-2"]
    assert positions(session.receive(first + wire("7-3", Chunk("lo")))) == ["7-3"]
    assert session.view.text == "Hello"
    assert session.connect()["Last-Event-ID"] == "7-3"


def test_first_connection_asks_from_the_start() -> None:
    """Without a position there is no Last-Event-ID; with `after` it is that position."""
    assert "Last-Event-ID" not in Session("job").connect()
    assert Session("job", after=Position(7, 3)).connect()["Last-Event-ID"] == "7-3"


def test_resumes_after_the_last_whole_event() -> None:
    """An event that was cut off neither counts nor spoils the next connection."""
    session = opened(Session("job"))
    cut = wire("7-2", Chunk("lost"))
    session.receive(wire("7-1", Chunk("a")) + cut[:-1])
    assert session.connect()["Last-Event-ID"] == "7-1"
    assert positions(session.receive(wire("7-2", Chunk("b")))) == ["7-2"]
    assert session.view.text == "ab"


@pytest.mark.parametrize("reset_at", ["7-0", "7-3", "9-0", "9-1", "5-0", "5-1"])
def test_reset_starts_the_text_again(reset_at: str) -> None:
    """A reset is believed, also when its epoch is older or its position goes back to the start."""
    session = opened(Session("job"))
    session.receive(wire("7-1", Chunk("old")) + wire("7-2", Chunk("er")))
    session.receive(wire(reset_at, Reset("other_log", 1)))
    assert session.connect()["Last-Event-ID"] == reset_at
    epoch = reset_at[0]
    session.receive(wire(f"{epoch}-4", Chunk("new")))
    assert session.view.text == "new"


def test_repeated_reset_of_the_log_does_not_count() -> None:
    """A numbered reset that was seen already is a repetition like any other event."""
    session = opened(Session("job"))
    again = wire("7-1", Reset("retry", 2)) + wire("7-2", Chunk("text"))
    session.receive(again)
    assert session.receive(again) == []
    assert session.view.text == "text"


def test_end_is_the_end() -> None:
    """After `end` the session is done and takes nothing more."""
    session = opened(Session("job"))
    batch = session.receive(wire("7-1", End("succeeded")) + wire("7-2", Chunk("more")))
    assert positions(batch) == ["7-1"]
    assert session.done
    assert session.view.state == "succeeded"


def test_forgotten_task_ends_from_anywhere() -> None:
    """The `end` of an unknown task has the id 0-1, which counts after any position."""
    session = opened(Session("job", after=Position(7, 3)))
    session.receive(wire("0-1", End("failed", {"code": "unknown_task", "message": "?"})))
    assert session.done
    assert session.view.error == {"code": "unknown_task", "message": "?"}


def test_no_more_content_is_the_end() -> None:
    """204 says that there is nothing after our position."""
    session = Session("job", after=Position(7, 3))
    session.connect()
    session.answered(204, {})
    assert session.done


def test_unknown_kinds_and_unnamed_events_are_skipped() -> None:
    """What a newer gateway adds doesn't disturb an older client."""
    session = opened(Session("job"))
    extra = sse.frame("[1]", event="sparkle", id="7-1") + sse.frame("hi") + sse.HEARTBEAT + b"\n"
    assert session.receive(extra) == []
    assert positions(session.receive(wire("7-2", Progress(0.5)))) == ["7-2"]


@pytest.mark.parametrize(
    "nonsense",
    [
        sse.frame("{}", event="chunk", id="7-1"),
        sse.frame("not json", event="chunk", id="7-1"),
        sse.frame('{"text":"a"}', event="chunk", id="seven"),
        sse.frame('{"text":"a"}', event="chunk"),
    ],
)
def test_nonsense_is_an_error_that_says_so(nonsense: bytes) -> None:
    """An event that no gateway sends is refused: going on would lose text silently."""
    with pytest.raises(ClientError, match="makes no sense"):
        opened(Session("job")).receive(nonsense)


def test_another_type_is_not_a_stream() -> None:
    """200 with a page instead of a stream is an error that doubts the address; parameters don't matter."""
    session = Session("job")
    with pytest.raises(ClientError, match=r"text/html, not an event stream"):
        session.answered(200, {"content-type": "text/html"})
    session.answered(200, {"content-type": "Text/Event-Stream; charset=utf-8"})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRefused),
        (401, RequestRefused),
        (307, RequestRefused),
        (404, TaskNotFound),
        (408, GatewayUnavailable),
        (429, GatewayUnavailable),
        (500, GatewayUnavailable),
        (503, GatewayUnavailable),
    ],
)
def test_statuses(status: int, error: type[ClientError]) -> None:
    """A status says whether trying again can help, and the gateway's own words are passed on."""
    told = refusal(status, b'{"error":{"code":"x","message":"because\\n of this"}}')
    assert type(told) is error
    assert "because of this" in str(told)
    for body in (b"", b"<html>", b"[]", b'{"error":7}', b'{"error":{"message":7}}', b"[" * 100_000):
        assert type(refusal(status, body)) is error


def test_bad_id_is_refused() -> None:
    """A session is only made for ids that can name a task."""
    with pytest.raises(InvalidTaskId):
        Session("a/b")


def test_never_reached_fails_at_once() -> None:
    """Whoever was never reached may be a wrong address: no second try."""
    session = Session("job")
    session.connect()
    with pytest.raises(GatewayUnavailable, match="away"):
        session.dropped(AWAY)


def test_reached_once_may_be_away_for_the_patience() -> None:
    """After a contact, drops are survived until the patience is over; a new contact renews it."""
    clock = Clock()
    session = opened(Session("job", patience_seconds=60, clock=clock))
    clock.now += 60
    assert session.dropped(AWAY) > 0
    opened(session)
    clock.now += 60
    assert session.dropped(AWAY) > 0
    clock.now += 1
    with pytest.raises(GatewayUnavailable):
        session.dropped(AWAY)


@given(st.floats(0, 1), st.integers(1, 40))
def test_backoff_doubles_within_bounds(jitter: float, failures: int) -> None:
    """Without a wish of the server: half to one second, twice as long each time, never over the cap."""
    session = opened(Session("job", jitter=lambda: jitter, clock=Clock()))
    waits = [session.dropped(AWAY) for _ in range(failures)]
    for n, wait in enumerate(waits):
        full = min(FIRST_WAIT * 2**n, LONGEST_WAIT)
        assert full / 2 <= wait <= full


def test_the_servers_wish_is_kept() -> None:
    """`retry:` is waited exactly at first, since it is jittered already, and never undercut later."""
    session = opened(Session("job", jitter=lambda: 0.0, clock=Clock()))
    session.receive(sse.retry(4000))
    assert [session.dropped(AWAY) for _ in range(4)] == [4.0, 4.0, 8.0, 15.0]


def test_a_wish_sticks_and_has_a_limit() -> None:
    """A `retry:` holds for later connections that say none, and an absurd one is cut."""
    session = opened(Session("job", clock=Clock()))
    session.receive(sse.retry(10**14))
    opened(session)
    assert session.dropped(AWAY) == LONGEST_RETRY


def test_events_or_a_long_life_forgive_failures() -> None:
    """Backoff starts anew after a connection that carried an event or lasted, not after an empty one."""
    clock = Clock()
    session = opened(Session("job", jitter=lambda: 1.0, clock=clock))
    assert [session.dropped(AWAY), session.dropped(AWAY)] == [1.0, 2.0]
    opened(session).receive(b": busy\n")
    assert session.dropped(AWAY) == 4.0
    opened(session).receive(wire("7-1", Chunk("a")))
    assert session.dropped(AWAY) == 1.0
    opened(session)
    clock.now += 10
    assert session.dropped(AWAY) == 1.0


@pytest.mark.parametrize(
    ("header", "wait"),
    [("7", 7.0), ("", 1.0), ("soon", 1.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0), ("9" * 50, LONGEST_RETRY)],
)
def test_retry_after(header: str, wait: float) -> None:
    """`Retry-After` in seconds is waited for; anything else counts as none."""
    session = opened(Session("job", jitter=lambda: 1.0, clock=Clock()))
    session.connect()
    with pytest.raises(GatewayUnavailable) as caught:
        session.answered(503, {"retry-after": header})
    assert session.dropped(caught.value) == wait


some_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Chunk, st.text(max_size=6), st.sampled_from(["text", "reasoning"])),
    st.builds(Progress, st.sampled_from([None, 0.5]), st.none()),
    st.builds(Data, st.sampled_from(["a", "b"]), st.integers()),
    st.builds(State, st.just("running"), st.integers(0, 3)),
    st.just(Reset("retry", 2)),
)


@given(st.lists(some_events, max_size=12), st.data())
def test_any_drops_give_the_same_view(events: list[Event], data: st.DataObject) -> None:
    """However the stream is cut, dropped and partly repeated, view and batches are those of the log."""
    log = [(Position(7, seq), event) for seq, event in enumerate([*events, End("succeeded", length={})], 1)]
    session, seen = Session("job", clock=Clock()), Batch()
    drops = data.draw(st.integers(0, 5))
    while not session.done:
        known = Position.parse(session.connect().get("Last-Event-ID", "7-0"))
        session.answered(200, STREAM)
        repeated = data.draw(st.integers(0, 2))
        stream = b"".join(
            wire(str(at), event) + sse.HEARTBEAT for at, event in log if at.seq > known.seq - repeated
        )
        cut = data.draw(st.integers(0, len(stream))) if drops else len(stream)
        drops -= 1 if drops else 0
        middle = data.draw(st.integers(0, cut))
        seen += session.receive(stream[:middle]) + session.receive(stream[middle:cut])
    whole = View("job")
    for position, event in log:
        whole.apply(position, event)
    assert seen == log
    assert session.view.as_dict() == whole.as_dict()
