"""The typing indicator, by a homeserver that only writes down what it is told."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from bridge.events import Chunk, End
from bridge.settings import Settings
from bridge.sinks.matrix import MatrixSink, Place
from bridge.sinks.matrix.api import Homeserver
from bridge.sinks.matrix.indicator import RENEW_SECONDS, TIMEOUT_SECONDS, Indicators
from tests.sinks.feed import Feed
from tests.waiting import eventually_async

URL = "http://matrix.example.org"
BOT = "@bot:example.org"


class Typing:
    """A homeserver that takes everything, and remembers who types."""

    def __init__(self) -> None:
        self.said: list[bool] = []
        self.works = True
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("m.room.encryption/"):
            return httpx.Response(404, json={"errcode": "M_NOT_FOUND"})
        if "/typing/" in request.url.path:
            self.said.append(json.loads(request.content)["typing"])
            if not self.works:
                return httpx.Response(403, json={"errcode": "M_FORBIDDEN"})
        return httpx.Response(200, json={"user_id": BOT, "event_id": "$1"})


async def test_it_is_renewed_before_it_runs_out() -> None:
    """And taken back at the end; where it fails nothing else does."""
    server = Typing()
    indicators = Indicators(Homeserver(URL, "token", http=server.http))
    async with indicators.shown("!a:b", BOT) as indicator:
        assert indicator.due <= time.monotonic()
        server.works = False
        await indicator.renew()
        assert 0 < indicator.due - time.monotonic() <= RENEW_SECONDS < TIMEOUT_SECONDS
    assert server.said == [True, False]


async def test_the_last_answer_in_a_room_takes_it_back() -> None:
    """Until then the user types; where nobody said so, nothing is taken back."""
    server = Typing()
    indicators = Indicators(Homeserver(URL, "token", http=server.http))
    async with indicators.shown("!a:b", BOT) as one:
        async with indicators.shown("!a:b", BOT) as other, indicators.shown("!c:d", BOT):
            await one.renew()
            await other.renew()
        assert server.said == [True, True]
    assert server.said == [True, True, False]


async def test_it_goes_on_while_a_task_says_nothing(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink renews it although there is nothing else to send."""
    monkeypatch.setattr("bridge.sinks.matrix.indicator.RENEW_SECONDS", 0.01)
    server = Typing()
    settings = Settings(redis_url=redis_url, matrix_homeserver=URL, matrix_token="token")
    feed = Feed()
    feed.tell(Chunk("a"))
    async with MatrixSink(settings, http=server.http) as sink:
        showing = asyncio.create_task(sink.show("job-1", Place("!a:b"), feed.views()))
        await eventually_async(lambda: len(server.said) > 3)
        feed.tell(End("succeeded"))
        assert await asyncio.wait_for(showing, 20)
    assert server.said[-2:] == [True, False]
