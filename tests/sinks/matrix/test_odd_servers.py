"""The sink, with a homeserver that does what Synapse doesn't, or not when it is asked to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable

import httpx
import pytest

from bridge.errors import SinkError, SinkUnavailable
from bridge.events import Chunk, End, Reset, State
from bridge.settings import Settings
from bridge.sinks.matrix import MatrixSink, Place
from bridge.view import View
from tests.sinks.feed import Feed
from tests.waiting import eventually_async

URL = "http://matrix.example.org"
REFUSED = httpx.Response(403, json={"errcode": "M_FORBIDDEN"})
Odd = Callable[[httpx.Request], httpx.Response | None]


class Server:
    """Takes everything that `odd` doesn't answer."""

    def __init__(self, odd: Odd = lambda _: None) -> None:
        self.odd = odd
        self.sent: list[str] = []
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("m.room.encryption/"):
            return httpx.Response(404, json={"errcode": "M_NOT_FOUND"})
        if (answer := self.odd(request)) is not None:
            return answer
        if "/send/" in path:
            said = json.loads(request.content)
            self.sent.append(said.get("m.new_content", said)["body"])
        return httpx.Response(200, json={"user_id": "@bot:b", "event_id": f"${len(self.sent)}"})


async def show(redis_url: str, server: Server, views: AsyncGenerator[View, None]) -> bool:
    """Show a task there."""
    settings = Settings(redis_url=redis_url, matrix_homeserver=URL, matrix_token="token")
    async with MatrixSink(settings, http=server.http) as sink:
        return await asyncio.wait_for(sink.show("job-1", Place("!a:b"), views), 20)


async def test_a_server_that_says_too_many_for_ever(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is believed for as long as the task runs, and some time longer; then it is given up."""
    monkeypatch.setattr("bridge.sinks.matrix.patience.PATIENCE_SECONDS", 0.0)
    asked: list[str] = []

    def odd(request: httpx.Request) -> httpx.Response | None:
        if "/send/" not in request.url.path:
            return None
        asked.append(request.url.path)
        return httpx.Response(429, json={"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1})

    feed = Feed()
    feed.tell(Chunk("a"))
    showing = asyncio.create_task(show(redis_url, Server(odd), feed.views()))
    await eventually_async(lambda: len(asked) > 3)
    feed.tell(End("succeeded"))
    with pytest.raises(SinkUnavailable, match="too many"):
        await showing
    assert len(set(asked)) == len(asked), "a request that was refused is not repeated, but made anew"


async def test_a_message_that_can_not_be_removed(redis_url: str) -> None:
    """What is left over of an earlier attempt stays, and the answer is complete all the same."""
    server = Server(lambda request: REFUSED if "/redact/" in request.url.path else None)
    feed = Feed()
    feed.tell(Chunk("a" * 20_000))
    showing = asyncio.create_task(show(redis_url, server, feed.views()))
    await eventually_async(lambda: len(server.sent) == 2)
    feed.tell(Reset("retry", 2), State("running", 2), Chunk("again"), End("succeeded"))
    assert await showing
    assert server.sent[-1] == "again"


async def test_views_that_end_before_the_task(redis_url: str) -> None:
    """It is said that the answer isn't complete."""

    async def views() -> AsyncGenerator[View, None]:
        feed = Feed()
        feed.tell(Chunk("a"))
        yield feed.view

    with pytest.raises(SinkError, match="ended before the task did"):
        await show(redis_url, Server(), views())
