"""Both clients over real sockets: one script of bytes, drops and statuses, and the same outcome for each."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import bridge.client
from bridge import sse
from bridge.client import AsyncClient, Client
from bridge.errors import (
    ClientError,
    GatewayUnavailable,
    InvalidInput,
    InvalidPosition,
    InvalidTaskId,
    RequestRefused,
    TaskNotFound,
)
from bridge.events import Chunk, End, Event, Position, Reset, State
from bridge.view import View
from tests.client.both import Both
from tests.client.scripted import Answer, gateway, plain, wire
from tests.servers import free_port

SOON = sse.retry(0)
END = wire("7-9", End("succeeded", length={}))


def text_of(events: list[tuple[Position, Event]]) -> list[str]:
    """The chunks' texts."""
    return [event.text for _, event in events if isinstance(event, Chunk)]


async def test_follows_to_the_end(both: Both) -> None:
    """A stream is read to its `end`, and the connection is let go then although the gateway holds it."""
    body = wire("7-1", State("running", 1)) + wire("7-2", Chunk("a\u2028b\u0085c")) + END
    with gateway(Answer([body], then="hold")) as server:
        events = await both.events(server.url + "/base/", "job-42", headers={"Authorization": "Bearer t"})
    assert [str(position) for position, _ in events] == ["7-1", "7-2", "7-9"]
    assert text_of(events) == ["a\u2028b\u0085c"]
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/base/tasks/job-42/events")
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["authorization"] == "Bearer t"
    assert "last-event-id" not in request.headers


@pytest.mark.parametrize(
    ("cut", "silence_seconds"),
    [
        (Answer([SOON, wire("7-1", Chunk("Hel")), wire("7-2", Chunk("lost"))[:-1]]), 45.0),
        (Answer([SOON, wire("7-1", Chunk("Hel"))], chunked=True), 45.0),
        (Answer([SOON + wire("7-1", Chunk("Hel"))], then="hold"), 1.0),
    ],
    ids=["closed inside an event", "broken chunked body", "silent"],
)
async def test_resumes_after_a_drop(both: Both, cut: Answer, silence_seconds: float) -> None:
    """However a connection goes away, the next resumes behind the last whole event; no text comes twice."""
    with gateway(cut, Answer([wire("7-1", Chunk("Hel")) + wire("7-2", Chunk("lo")) + END])) as server:
        texts = await both.texts(server.url, silence_seconds=silence_seconds)
    assert texts[0] == "Hel"
    assert texts[-1] == "Hello"
    assert [request.headers.get("last-event-id") for request in server.requests] == [None, "7-1"]


def test_connection_reset_by_peer() -> None:
    """A connection that is torn down hard is a drop like any other."""
    read = threading.Event()
    first = Answer([SOON, wire("7-1", Chunk("Hel")), read], then="reset")
    with gateway(first, Answer([wire("7-2", Chunk("lo")), END])) as server, Client(server.url) as client:
        events = client.events("job")
        got = [next(events)]
        read.set()
        assert text_of([*got, *events]) == ["Hel", "lo"]


async def test_survives_passing_refusals(both: Both) -> None:
    """A stream that was closed, a 503 and a 429 are waited out once the gateway was there."""
    with gateway(
        Answer([SOON, wire("7-1", Chunk("at ")), sse.comment("redis is away")]),
        plain("", 503),
        plain('{"error":{"code":"busy","message":"too many"}}', 429),
        Answer([wire("7-2", Chunk("last")), END]),
    ) as server:
        dropped: list[str] = []
        events = await both.events(server.url, on_drop=lambda reason, _: dropped.append(reason))
    assert text_of(events) == ["at ", "last"]
    assert [reason.partition(": ")[2] for reason in dropped[1:]] == [
        "no reason given (503)",
        "too many (429)",
    ]
    assert "closed the stream before the task's end" in dropped[0]


async def test_reset_brings_the_new_text(both: Both) -> None:
    """After a `reset` the view holds the new text alone."""
    old = Answer([SOON, wire("7-1", Chunk("old"))])
    new = wire("8-0", Reset("log_lost", 1)) + wire("8-1", Chunk("new")) + wire("8-2", End("succeeded"))
    with gateway(old, Answer([new])) as server:
        assert (await both.texts(server.url))[-1] == "new"


async def test_nothing_more_to_say(both: Both) -> None:
    """204 ends the following without an event; `after` is sent as text or as a position."""
    with gateway(Answer(status=204), Answer(status=204)) as server:
        assert await both.events(server.url, after="7-9") == []
        assert await both.events(server.url, after=Position(7, 9)) == []
    assert [request.headers["last-event-id"] for request in server.requests] == ["7-9", "7-9"]


async def test_heartbeats_keep_a_quiet_stream(both: Both) -> None:
    """Comment lines are no events and no reason to reconnect."""
    quiet = [sse.HEARTBEAT] * 20
    with gateway(Answer([*quiet, wire("7-1", Chunk("a")), *quiet, END])) as server:
        assert text_of(await both.events(server.url)) == ["a"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (plain('{"error":{"code":"x","message":"bad position"}}', 400), RequestRefused, "bad position"),
        (plain("", 404), TaskNotFound, "404"),
        (plain("", 503), GatewayUnavailable, "503"),
        (Answer([b"<html>"], headers={"Content-Type": "text/html"}), ClientError, "is this a gateway"),
        (Answer([sse.frame("?", event="chunk", id="7-1")], then="hold"), ClientError, "makes no sense"),
    ],
    ids=["refused", "unknown", "never served", "a web page", "nonsense"],
)
async def test_errors_end_the_following(
    both: Both, answer: Answer, error: type[ClientError], words: str
) -> None:
    """What can't get better by waiting, and a first connection that fails, is raised at once."""
    with gateway(answer) as server:
        with pytest.raises(error, match=words):
            await both.events(server.url)
    assert len(server.requests) == 1


async def test_no_gateway(both: Both) -> None:
    """Nobody at the address: one error that says what to do."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(GatewayUnavailable, match=rf"no gateway at {url}.* \(start one with: bridge serve\)"):
        await both.events(url)
    with pytest.raises(GatewayUnavailable, match="no gateway"):
        await both.ask(url, "status")


async def test_patience_ends(both: Both) -> None:
    """A gateway that was there and stays away too long is given up."""
    with gateway(Answer([SOON]), plain("", 503)) as server:
        with pytest.raises(GatewayUnavailable, match="closed the stream"):
            await both.events(server.url, patience_seconds=-1)


async def test_a_slow_reader_is_no_outage(both: Both) -> None:
    """Patience is for a gateway that is away: the time since the last byte was read doesn't count, be it that
    nothing came or that the caller was busy with a view.
    """
    first = Answer([SOON, wire("7-1", Chunk("Hel"))], then="reset")
    with gateway(first, Answer([wire("7-2", Chunk("lo")), END])) as server:
        # Any time at all would be too long.
        assert (await both.texts(server.url, patience_seconds=0))[-1] == "Hello"


async def test_coming_with_a_position(both: Both) -> None:
    """`follow` shows at once what the task is like now, also at that very position; `events` asks for nothing
    but the events.
    """
    view = View("job").as_dict()
    now = {**view, "position": "7-2", "state": "running", "attempt": 2, "progress": 0.5, "reset": False}
    stream = Answer([wire("7-3", Chunk("lo")), END])
    with gateway(plain(json.dumps(now)), stream, stream) as server:
        seen: list[tuple[str, int, float | None, str]] = []
        await both.follow(
            server.url,
            "job",
            lambda view: seen.append((view.state, view.attempt, view.progress, view.text)),
            after="7-2",
        )
        events = await both.events(server.url, after="7-2")
    assert seen[0] == ("running", 2, 0.5, "")
    assert seen[-1] == ("succeeded", 2, 0.5, "lo")
    assert [event.kind for _, event in events] == ["chunk", "end"]
    assert [request.path for request in server.requests] == [
        "/tasks/job/status?after=7-2",
        "/tasks/job/events",
        "/tasks/job/events",
    ]


@pytest.mark.parametrize("what", ["status", "cancel"])
async def test_plain_questions(both: Both, what: str) -> None:
    """`status` and `cancel` give the gateway's JSON object."""
    with gateway(plain('{"id":"job","state":"running"}')) as server:
        assert await both.ask(server.url, what) == {"id": "job", "state": "running"}
    (request,) = server.requests
    assert (request.method, request.path) == (
        {"status": "GET", "cancel": "POST"}[what],
        f"/tasks/job/{what}",
    )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (plain('{"error":{"code":"unknown_task","message":"never heard of it"}}', 404), TaskNotFound),
        (plain("", 400), RequestRefused),
        (plain("", 500), GatewayUnavailable),
        (plain("[]"), ClientError),
        (plain("<html>"), ClientError),
    ],
)
async def test_plain_questions_refused(both: Both, answer: Answer, error: type[ClientError]) -> None:
    """An answer that is an error, or no JSON object, is raised by its kind."""
    with gateway(answer) as server, pytest.raises(error) as caught:
        await both.ask(server.url, "status")
    assert type(caught.value) is error


async def test_bad_arguments(both: Both) -> None:
    """Bad ids, positions and addresses are refused without a request."""
    with gateway() as server:
        with pytest.raises(InvalidTaskId):
            await both.events(server.url, "a/b")
        with pytest.raises(InvalidTaskId):
            await both.ask(server.url, "cancel", "")
        with pytest.raises(InvalidPosition):
            await both.events(server.url, after="seven")
        with pytest.raises(InvalidInput, match="begins with http"):
            await both.events("localhost:8620")
        with pytest.raises(ClientError, match="can't be a gateway's address"):
            await both.ask("http://127.0.0.1:port", "status")
    assert server.requests == []


def test_text_is_there_as_it_grows() -> None:
    """A view is yielded for what has come, before the rest of the stream exists."""
    more = threading.Event()
    with gateway(Answer([wire("7-1", Chunk("Hel")), more, wire("7-2", Chunk("lo")), END])) as server:
        with Client(server.url) as client:
            views: Iterator[View] = client.follow("job")
            assert next(views).text == "Hel"
            more.set()
            assert [view.text for view in views][-1] == "Hello"


async def test_text_is_there_as_it_grows_async() -> None:
    """The same for asyncio."""
    more = threading.Event()
    with gateway(Answer([wire("7-1", Chunk("Hel")), more, wire("7-2", Chunk("lo")), END])) as server:
        async with AsyncClient(server.url) as client:
            views = client.follow("job")
            assert (await anext(views)).text == "Hel"
            more.set()
            assert [view.text async for view in views][-1] == "Hello"


def test_a_client_brought_along_stays_open() -> None:
    """An httpx client of the caller's own is used and not closed."""
    with gateway(plain("{}"), plain("{}")) as server, httpx.Client(headers={"X-Mine": "1"}) as mine:
        with Client(server.url, http=mine) as client:
            client.status("job")
        assert not mine.is_closed
    assert server.requests[0].headers["x-mine"] == "1"


async def test_an_async_client_brought_along_stays_open() -> None:
    """The same for asyncio."""
    with gateway(plain("{}")) as server:
        async with httpx.AsyncClient(headers={"X-Mine": "1"}) as mine:
            async with AsyncClient(server.url, http=mine) as client:
                await client.status("job")
            assert not mine.is_closed
    assert server.requests[0].headers["x-mine"] == "1"


async def test_a_ticket_goes_into_the_header(both: Both, caplog: pytest.LogCaptureFixture) -> None:
    """With every request of every kind; never into a URL, nor into a log, however fine."""
    caplog.set_level(logging.DEBUG)
    first = Answer([SOON, wire("7-1", Chunk("Hel"))])
    with gateway(first, Answer([END]), plain("{}"), plain("{}")) as server:
        await both.events(server.url, ticket="s3cret.s3cret")
        await both.ask(server.url, "status", ticket="s3cret.s3cret")
        await both.ask(server.url, "cancel", ticket="s3cret.s3cret")
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer s3cret.s3cret"] * 4
    assert not any("s3cret" in request.path for request in server.requests)
    assert "s3cret" not in caplog.text


async def test_a_function_gives_a_new_ticket_each_time(both: Both) -> None:
    """They run out while a task is followed. Without one nothing is sent."""
    tickets = iter(["one", "two", ""])
    first = Answer([SOON, wire("7-1", Chunk("Hel"))])
    with gateway(first, first, Answer([END])) as server:
        await both.events(server.url, ticket=lambda: next(tickets))
    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == ["Bearer one", "Bearer two", None]


async def test_what_a_function_raises_ends_the_following(both: Both) -> None:
    """Who can't get a ticket is told so by whoever should have given one."""
    with gateway() as server, pytest.raises(ZeroDivisionError):
        await both.events(server.url, ticket=lambda: 1 // 0)
    assert server.requests == []


async def test_a_ticket_may_be_awaited() -> None:
    """Where there is an event loop."""

    async def ticket() -> str:
        return "one"

    with gateway(Answer([END]), plain("{}")) as server:
        async with AsyncClient(server.url, ticket=ticket) as client:
            assert len([one async for one in client.events("job")]) == 1
            await client.status("job")
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer one"}


@pytest.mark.parametrize("ticket", ["s3cret s3cret", "s3cret\r\nX: 1", "s3cretß", "s3cret;", b"s3cret", 7])
async def test_what_is_no_ticket_is_not_sent(both: Both, ticket: Any) -> None:
    """Nor repeated in the error."""
    with gateway() as server, pytest.raises(InvalidInput, match=r"^a ticket must be") as caught:
        await both.ask(server.url, "status", ticket=ticket)
    assert server.requests == []
    assert "s3cret" not in str(caught.value)


async def test_a_ticket_goes_to_its_gateway_only(both: Both) -> None:
    """An answer that leads elsewhere doesn't take it along."""
    with gateway(plain("{}")) as other:
        away = Answer(status=307, headers={"Location": f"{other.url}/tasks/job/status"})
        with gateway(away) as server:
            await both.ask(server.url, "status", ticket="s3cret")
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"
    assert "authorization" not in other.requests[0].headers


async def test_a_ticket_beside_a_header_of_ones_own(both: Both) -> None:
    """Of two nobody could say which counts."""
    with pytest.raises(InvalidInput, match="not both"):
        await both.ask("http://127.0.0.1:1", "status", ticket="a", headers={"authorization": "Bearer b"})


async def test_a_password_in_the_address_is_not_repeated(both: Both) -> None:
    """Errors name the gateway, and not how to get in."""
    for url in (f"http://me:s3cret@127.0.0.1:{free_port()}", "ftp://me:s3cret@127.0.0.1"):
        with pytest.raises((ClientError, InvalidInput), match=r"127\.0\.0\.1") as caught:
            await both.ask(url, "status")
        assert "s3cret" not in str(caught.value)


def test_exported_names() -> None:
    """The package exports its two clients."""
    assert bridge.client.__all__ == ["AsyncClient", "Client"]
