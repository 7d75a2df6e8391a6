"""The package `httpx-sse` reads our streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from threading import Thread

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse, connect_sse

import bridge
from bridge.events import Position
from tests.gateway.running import running
from tests.servers import free_port
from tests.waiting import DEADLINE_SECONDS, eventually

KINDS = {"state", "chunk", "progress", "data", "reset", "end"}


class Tap(httpx.BaseTransport):
    """Remembers the bytes of all answers, because the client shows no comments."""

    def __init__(self) -> None:
        self.heard = b""
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        stream = _TappedStream(self, answer.stream)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=stream)

    def heartbeats(self) -> int:
        """How many came so far."""
        return self.heard.split(b"\n").count(b":")

    def close(self) -> None:
        self._inner.close()


class _TappedStream(httpx.SyncByteStream):
    def __init__(self, tap: Tap, stream: httpx.SyncByteStream) -> None:
        self._tap, self._stream = tap, stream

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            self._tap.heard += data
            yield data

    def close(self) -> None:
        self._stream.close()


@pytest.fixture
def tap() -> Tap:
    """What the client's connections bring."""
    return Tap()


@pytest.fixture
def client(tap: Tap) -> Iterator[httpx.Client]:
    """A client whose bytes are tapped."""
    with httpx.Client(transport=tap, timeout=DEADLINE_SECONDS) as client:
        yield client


def read(client: httpx.Client, url: str, after: str = "") -> Iterator[ServerSentEvent]:
    """The events of one connection."""
    with connect_sse(client, "GET", url, headers={"Last-Event-ID": after} if after else {}) as source:
        yield from source.iter_sse()


def text(events: list[ServerSentEvent]) -> str:
    """The main text that they bring."""
    return "".join(event.json()["text"] for event in events if event.event == "chunk")


def check_ids(events: list[ServerSentEvent]) -> None:
    """Every event has an id, and they strictly increase."""
    ids = [Position.parse(event.id) for event in events]
    assert all(before < after for before, after in pairwise(ids))


async def test_events_are_typed(redis_url: str) -> None:
    """Every event has its name, its id and the JSON that was reported, whatever stands in it."""
    with running(redis_url) as gateway:
        async with bridge.task("job-1") as task:
            task.report_progress(0.5, message="writing")
            task.report_progress({"a": ["\n", "\r\n", "\u2028"]}, name="breaks")
            task.report_progress("Grüße,\r\n\u2028\x85「世界」 🙂")
            task.succeed(result={"done": True})
        async with (
            httpx.AsyncClient(timeout=DEADLINE_SECONDS) as client,
            aconnect_sse(client, "GET", f"{gateway.url}/tasks/job-1/events") as source,
        ):
            events = [event async for event in source.aiter_sse()]
    assert [event.event for event in events] == ["state", "progress", "data", "chunk", "end"]
    _, progress, data, chunk, end = (json.loads(event.data) for event in events)
    assert (progress["progress"], progress["message"]) == (0.5, "writing")
    assert (data["name"], data["value"]) == ("breaks", {"a": ["\n", "\r\n", "\u2028"]})
    assert chunk["text"] == "Grüße,\r\n\u2028\x85「世界」 🙂"
    assert (end["state"], end["result"]) == ("succeeded", {"done": True})
    check_ids(events)


def test_heartbeats_are_nothing(redis_url: str, tap: Tap, client: httpx.Client) -> None:
    """Neither before the first event nor after it does a heartbeat make an event."""

    def work() -> None:
        eventually(lambda: tap.heartbeats() >= 3)
        with bridge.task("job-1") as task:
            task.report_progress("a")
            eventually(lambda: b"chunk" in tap.heard)
            known = tap.heartbeats()
            eventually(lambda: tap.heartbeats() >= known + 3)
            task.report_progress("b")

    worker = Thread(target=work)
    with running(redis_url, heartbeat_seconds=0.05) as gateway:
        worker.start()
        events = list(read(client, f"{gateway.url}/tasks/job-1/events"))
        worker.join()
    assert [event.event for event in events] == ["state", "chunk", "chunk", "end"]
    assert all(event.data for event in events)
    assert text(events) == "ab"


def test_the_gateway_is_restarted(redis_url: str, client: httpx.Client) -> None:
    """A stream that a leaving gateway closes goes on at the next one behind the last event that was seen:
    what was written meanwhile is there, and nothing comes twice. After the `end` there is no more.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/tasks/job-1/events"
    events: list[ServerSentEvent] = []
    task = bridge.task("job-1").start()

    with running(redis_url, port=port) as gateway:
        task.report_progress("one ")
        for event in read(client, url):
            events.append(event)
            if text(events) == "one ":
                task.report_progress("two ")
            elif text(events) == "one two ":
                gateway.begin_to_stop()
    task.report_progress("three ")
    with running(redis_url, port=port):
        for event in read(client, url, after=events[-1].id):
            events.append(event)
            if text(events) == "one two three ":
                task.report_progress("four")
                task.finish()
        assert client.get(url, headers={"Last-Event-ID": events[-1].id}).status_code == 204

    assert [event.event for event in events] == ["state", "chunk", "chunk", "chunk", "chunk", "end"]
    assert text(events) == "one two three four"
    check_ids(events)
