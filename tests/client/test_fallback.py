"""Where streams don't get through: both clients over real sockets, also behind a real proxy that buffers."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from bridge import sse
from bridge.client import Client
from bridge.errors import GatewayUnavailable, RequestRefused
from bridge.events import Chunk, Data, End, Progress
from bridge.view import View
from tests.client.both import Both
from tests.client.buffering import buffering
from tests.client.scripted import Answer, Gateway, gateway, plain, wire
from tests.gateway.running import running
from tests.gateway.writer import Writer

SOON = 0.3
"""Seconds that these tests wait for a stream's first byte."""


def poll(position: str, text: str = "", **members: Any) -> Answer:
    """The answer to a poll."""
    view = {**View("job").as_dict(), "state": "running", "attempt": 1, "position": position, "text": text}
    body = json.dumps({**view, "reset": False, **members}).encode()
    return Answer([body], headers={"Content-Type": "application/json", "Retry-After": "1"})


def asked(server: Gateway) -> list[tuple[str, dict[str, list[str]], str | None]]:
    """Of each request: the last step of its path, its query, its Last-Event-ID."""
    addresses = [(urlsplit(one.path), one.headers.get("last-event-id")) for one in server.requests]
    return [(url.path.rpartition("/")[2], parse_qs(url.query), position) for url, position in addresses]


MUTE = [
    pytest.param(Answer(mute=True), id="no head comes"),
    pytest.param(Answer(then="hold"), id="no body comes"),
]


@pytest.mark.parametrize("mute", MUTE)
async def test_a_stream_that_is_held_back_is_followed_by_long_polls(both: Both, mute: Answer) -> None:
    """Nothing within `open_seconds`: the same text comes by long polls, each from the last position on."""
    answers = [mute, poll("7-2", "Hel"), poll("7-3", "lo", state="succeeded")]
    drops: list[tuple[str, float]] = []
    with gateway(*answers) as server:
        texts = await both.texts(server.url, open_seconds=SOON, on_drop=lambda *drop: drops.append(drop))
    assert texts == ["Hel", "Hello"]
    assert asked(server) == [
        ("events", {}, None),
        ("status", {"after": ["0"]}, None),
        ("status", {"after": ["7-2"], "wait": ["25"]}, None),
    ]
    assert drops == [(f"no stream gets through from {server.url}; polling instead", 0.0)]


async def test_events_of_polls(both: Both) -> None:
    """`events` tells a poll as the events that a stream would have brought, at the poll's position."""
    more = {"data": {"x": 1}, "progress": 0.5}
    answers = [Answer(mute=True), poll("7-4", "Hel", **more), poll("7-5", "lo", **more, state="succeeded")]
    with gateway(*answers) as server:
        events = await both.events(server.url, open_seconds=SOON)
    assert [(str(position), event.kind) for position, event in events] == [
        ("7-4", "state"),
        ("7-4", "data"),
        ("7-4", "progress"),
        ("7-4", "chunk"),
        ("7-5", "chunk"),
        ("7-5", "end"),
    ]


async def test_a_path_that_lets_polls_through_alone(both: Both) -> None:
    """A long poll that somebody on the way cuts off with a 504 gives way to plain polls."""
    answers = [
        Answer(mute=True),
        poll("7-1", "Hel"),
        plain("<html>", 504),
        poll("7-2", "lo", state="succeeded"),
    ]
    with gateway(*answers) as server:
        assert await both.texts(server.url, open_seconds=SOON) == ["Hel", "Hello"]
    assert [query for _, query, _ in asked(server)] == [
        {},
        {"after": ["0"]},
        {"after": ["7-1"], "wait": ["25"]},
        {"after": ["7-1"]},
    ]


async def test_back_from_an_outage(both: Both) -> None:
    """While the gateway is away every way is tried in turn, and it goes on with the first that works."""
    away = plain('{"error":{"code":"redis_away","message":"Redis is away"}}', 503)
    answers = [
        Answer([sse.retry(0), wire("7-1", Chunk("Hel"))], then="reset"),
        *[away] * 5,
        Answer([wire("7-2", Chunk("lo")), wire("7-3", End("succeeded"))]),
    ]
    with gateway(*answers) as server:
        assert (await both.texts(server.url))[-1] == "Hello"
    assert [(what, bool(query)) for what, query, _ in asked(server)] == [
        *[("events", False)] * 4,
        *[("status", True)] * 2,
        ("events", False),
    ]


async def test_a_slow_stream_is_not_a_held_back_one(both: Both) -> None:
    """Only the first byte has to come soon: after it a stream may be silent for much longer."""
    late = threading.Event()
    stream = Answer([sse.retry(0), late, wire("7-1", Chunk("a")), wire("7-2", End("succeeded"))])

    def wait_longer_than_for_a_first_byte(url: str) -> None:
        with Client(url, open_seconds=2.0) as client:
            with pytest.raises(RequestRefused):
                list(client.events("job"))
        late.set()

    with gateway(stream) as slow, gateway(Answer(mute=True), plain("", 400)) as held_back:
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(wait_longer_than_for_a_first_byte, held_back.url)
            assert (await both.texts(slow.url, open_seconds=2.0))[-1] == "a"
            other.result()
    assert len(slow.requests) == 1


async def test_nothing_gets_through(both: Both) -> None:
    """An address that answers to no way is given up."""
    with gateway(Answer(mute=True), plain("", 504), plain("", 504)) as server:
        with pytest.raises(GatewayUnavailable, match="504"):
            await both.events(server.url, open_seconds=SOON)


@pytest.mark.parametrize("passes_head", [False, True])
async def test_a_real_gateway_behind_a_buffering_proxy(both: Both, redis_url: str, passes_head: bool) -> None:
    """Each step of the worker is seen when it is done, a retry too, and the last view is that of /status."""
    with Writer(redis_url) as writer, running(redis_url) as one:
        writer.create()
        steps = iter(
            [
                lambda: writer.open().text("Hel"),
                lambda: writer.append(Data("sources", [1]), Progress(0.5, "half"), Chunk("lost")),
                lambda: writer.open().append(Chunk("Hello"), Chunk("hm", "reasoning"), Data("sources", [2])),
                lambda: writer.text("\u2028 world"),
                lambda: writer.end("succeeded", Progress(1.0), result={"n": 1}, usage={"tokens": 3}),
            ]
        )
        views: list[View] = []

        def look(view: View) -> None:
            views.append(view)
            next(steps, lambda: None)()

        with buffering(one.address, passes_head=passes_head) as proxy:
            await both.follow(proxy.url, writer.task_id, look, open_seconds=SOON)
        assert views[-1].as_dict() == one.get(f"/tasks/{writer.task_id}/status").json()
        assert views[-1].text == "Hello\u2028 world"
        assert proxy.paths[0].endswith("/events")
        assert {urlsplit(path).path.rpartition("/")[2] for path in proxy.paths[1:]} == {"status"}
