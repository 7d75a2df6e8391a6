"""Following without I/O, where examples don't suffice. The examples are cases/following.yaml."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import sse
from bridge.client import session as session_module
from bridge.client.session import Batch, Session
from bridge.codec import dumps
from bridge.entries import Entry
from bridge.errors import ClientError, GatewayUnavailable, InvalidTaskId
from bridge.events import START, Chunk, End, Position, Reset, Unknown
from bridge.view import View
from tests.client.scripted import wire
from tests.strategies import as_log, logs

STREAM = {"content-type": "text/event-stream"}


def opened(session: Session) -> Session:
    """`session`, with a stream open."""
    session.next()
    session.answered(200, STREAM)
    return session


@pytest.mark.parametrize("reset_at", ["7-0", "7-3", "9-0", "9-1", "5-0", "5-1"])
def test_reset_starts_the_text_again(reset_at: str) -> None:
    """A reset is believed, also when its epoch is older or its position goes back to the start."""
    session = opened(Session("job"))
    session.receive(wire("7-1", Chunk("old")) + wire("7-2", Chunk("er")))
    session.receive(wire(reset_at, Reset("other_log", 1)))
    assert session.next().headers["Last-Event-ID"] == reset_at
    epoch = reset_at[0]
    session.receive(wire(f"{epoch}-4", Chunk("new")))
    assert session.view.text == "new"


def test_end_is_the_end() -> None:
    """After `end` the session is done and takes nothing more."""
    session = opened(Session("job"))
    batch = session.receive(wire("7-1", End("succeeded")) + wire("7-2", Chunk("more")))
    assert [str(position) for position, _ in batch] == ["7-1"]
    assert session.done


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


def test_an_endless_line_is_an_error_of_the_clients_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over the limit of a stream is a `ClientError`, which is all that callers are promised."""
    monkeypatch.setattr(session_module, "Decoder", lambda: sse.Decoder(max_bytes=100))
    with pytest.raises(ClientError, match="is it an event stream"):
        opened(Session("job")).receive(b"a" * 101)


def test_another_type_is_not_a_stream() -> None:
    """200 with a page instead of a stream is an error that doubts the address; parameters don't matter."""
    session = Session("job")
    with pytest.raises(ClientError, match=r"text/html, not an event stream"):
        session.answered(200, {"content-type": "text/html"})
    session.answered(200, {"content-type": "Text/Event-Stream; charset=utf-8"})


def test_bad_id_is_refused() -> None:
    """A session is only made for ids that can name a task."""
    with pytest.raises(InvalidTaskId):
        Session("a/b")


class PureGateway:
    """One log of a task, and what a gateway says of it, whole or in part."""

    def __init__(self, log: list[Entry]) -> None:
        self.log = log

    def stream(self, after: Position) -> bytes:
        """All events after a position, with heartbeats."""
        return b"".join(
            wire(str(one.position), one.event) + sse.HEARTBEAT for one in self.log if one.position > after
        )

    def status(self, after: Position, upto: int) -> dict[str, Any]:
        """The answer to `?after` when only so many events exist."""
        view = View("job")
        view.apply_all(self.log[:upto])
        since = [one for one in self.log[:upto] if one.position > after]
        if any(isinstance(one.event, Reset) for one in since):
            resets = [n for n, one in enumerate(since) if isinstance(one.event, Reset)]
            restarted, since = after != START, since[resets[-1] :]
        else:
            restarted = False
        texts: dict[str, str] = {}
        for one in since:
            if isinstance(one.event, Chunk):
                texts[one.event.field] = texts.get(one.event.field, "") + one.event.text
        return {**view.as_dict(texts), "reset": restarted}


@given(logs(), st.data())
def test_any_mixture_of_streams_and_polls_gives_the_same_view(log: list[Entry], data: st.DataObject) -> None:
    """However streams are cut and repeated, and whatever is polled between them: the view is that of the
    log, and folding the events gives that view too.
    """
    events = [one.event for one in log if not isinstance(one.event, End | Unknown)]
    log = as_log([*events, End("succeeded", result={"n": 1}, at=1_700_000_000_000)])
    gateway, seen, now = PureGateway(log), Batch(), 0.0
    session = Session("job", clock=lambda: now, jitter=lambda: 1.0)
    while not session.done:
        request = session.next()
        have = sum(one.position <= session.view.position for one in log)
        if request.way != "stream":
            upto = data.draw(st.integers(min(have + 1, len(log)), len(log)))
            after = request.query["after"]
            answer = gateway.status(START if after == "0" else Position.parse(after), upto)
            seen += session.polled(200, {}, dumps(answer))
            now += session.pause()
            continue
        known = session.view.position
        if data.draw(st.booleans()):
            now += 5
            session.failed(GatewayUnavailable("mute"), "mute")
            continue
        session.answered(200, STREAM)
        repeated = max(0, known.seq - data.draw(st.integers(0, 2)))
        stream = gateway.stream(Position(known.epoch, repeated))
        cut = data.draw(st.integers(0, len(stream)))
        middle = data.draw(st.integers(0, cut))
        seen += session.receive(stream[:middle]) + session.receive(stream[middle:cut])
        if not session.done:
            now += session.failed(GatewayUnavailable("cut"))
    whole, folded = View("job"), View("job")
    whole.apply_all(log)
    for position, event in seen:
        folded.apply(position, event)
    assert dumps(session.view.as_dict()) == dumps(whole.as_dict())
    assert dumps({**folded.as_dict(), "updated_at": None}) == dumps({**whole.as_dict(), "updated_at": None})
