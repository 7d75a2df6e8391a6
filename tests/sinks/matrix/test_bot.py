"""The bot's rules, with a homeserver that is told what to bring, and a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import redis

from bridge.errors import GatewayUnavailable, SinkRefused
from bridge.events import Chunk, End
from bridge.settings import Settings
from bridge.sinks.matrix import MatrixSink
from bridge.sinks.matrix.asked import Asked
from bridge.sinks.matrix.bot import Bot
from bridge.view import View
from tests.sinks.feed import Feed
from tests.waiting import eventually_async

URL = "http://matrix.example.org"
BOT = "@bot:example.org"
ROOM = "!room:example.org"


class Server:
    """A homeserver with one room: a history that grows, and what was sent."""

    def __init__(self, name: str = "s") -> None:
        self.name = name
        """What its places in the history begin with."""
        self.history: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self.limited = False
        self.token_works = True
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self._more = asyncio.Condition()

    async def say(self, text: str) -> None:
        """Somebody writes this."""
        event = {
            "type": "m.room.message",
            "event_id": f"${self.name}{len(self.history)}",
            "sender": "@ann:example.org",
            "content": {"msgtype": "m.text", "body": text},
        }
        async with self._more:
            self.history.append(event)
            self._more.notify_all()

    async def wake(self) -> None:
        """Whoever waits for something new is answered."""
        async with self._more:
            self._more.notify_all()

    @property
    def answers(self) -> list[str]:
        """What the messages said that are complete."""
        done = (one.get("m.new_content", one) for one in self.sent)
        return [one["body"] for one in done if "org.matrix.msc4357.live" not in one]

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if self.token_works and path.endswith("/sync"):
            since = request.url.params.get("since", "")
            name, _, place = since.partition("/")
            if since and name != self.name:
                return httpx.Response(400, json={"errcode": "M_UNKNOWN", "error": "No such place"})
            return await self._sync(int(place or 0), wait=request.url.params["timeout"] != "0")
        if not self.token_works:
            return httpx.Response(401, json={"errcode": "M_UNKNOWN_TOKEN", "error": "Gone"})
        if path.endswith("m.room.encryption/"):
            return httpx.Response(404, json={"errcode": "M_NOT_FOUND"})
        if "/send/" in path:
            self.sent.append(json.loads(request.content))
        return httpx.Response(200, json={"user_id": BOT, "room_id": ROOM, "event_id": f"$a{len(self.sent)}"})

    async def _sync(self, since: int, *, wait: bool) -> httpx.Response:
        async with self._more:
            if wait:
                await self._more.wait_for(lambda: len(self.history) > since or not self.token_works)
            if not self.token_works:
                return httpx.Response(401, json={"errcode": "M_UNKNOWN_TOKEN", "error": "Gone"})
            timeline = {"events": self.history[since:], "limited": self.limited}
            return httpx.Response(
                200,
                json={
                    "next_batch": f"{self.name}/{len(self.history)}",
                    "rooms": {"join": {ROOM: {"timeline": timeline}}},
                },
            )


class Works:
    """What answers the questions: each begins with its text, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.feeds: dict[str, Feed] = {}
        self.fails: Callable[[], Exception | None] = lambda: None
        self.stopped = False

    def views(self, asked: Asked) -> AsyncGenerator[View, None]:
        """As `Bot` wants them."""

        async def generate() -> AsyncGenerator[View, None]:
            self.begun.append(asked.text)
            if error := self.fails():
                raise error
            feed = self.feeds[asked.text] = Feed(asked.task_id)
            feed.tell(Chunk(f"re: {asked.text}"))
            async for view in feed.views():
                yield view

        return generate()

    def end(self, *texts: str) -> None:
        """These are answered."""
        for text in texts:
            self.feeds[text].tell(End("succeeded"))

    def stop(self) -> None:
        """All end as they are."""
        self.stopped = True
        for feed in self.feeds.values():
            if not feed.view.ended:
                feed.tell(End("failed", {"code": "stopped", "message": "Stopped."}))


@asynccontextmanager
async def listening(
    redis_url: str, server: Server, works: Works, *, lease_seconds: float = 30.0, **options: Any
) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Event]]:
    """A bot that listens, and is killed at the end."""
    settings = Settings(
        redis_url=redis_url, matrix_homeserver=URL, matrix_token="token", lease_seconds=lease_seconds
    )
    ready, leave = asyncio.Event(), asyncio.Event()
    async with MatrixSink(settings, http=server.http) as sink:
        bot = Bot(sink, works.views, rooms=(ROOM,), **options)
        running = asyncio.create_task(bot.run(leave, works.stop, 60.0, ready.set))
        await asyncio.wait_for(ready.wait(), 10)
        try:
            yield running, leave
        finally:
            running.cancel()
            await asyncio.wait((running,))


def complete(client: redis.Redis) -> int:
    """How many answers are noted as complete."""
    return sum(b'"done":true' in (client.get(key) or b"") for key in client.keys("bridge:note:*}"))


async def test_what_was_there_before_anybody_listened_is_no_question(redis_url: str) -> None:
    """A first start begins with now."""
    server, works = Server(), Works()
    await server.say("old")
    async with listening(redis_url, server, works):
        await server.say("new")
        await eventually_async(lambda: works.begun)
    assert works.begun == ["new"]


async def test_so_many_answers_at_once(redis_url: str) -> None:
    """The others wait for their turn."""
    server, works = Server(), Works()
    async with listening(redis_url, server, works, most_answers=1):
        for text in "abc":
            await server.say(text)
        for text in "abc":
            await eventually_async(partial(works.feeds.get, text))
            assert works.begun[-1] == text
            works.end(text)
        await eventually_async(lambda: len(server.answers) == 3)
    assert server.answers == ["re: a", "re: b", "re: c"]


async def test_a_question_that_was_not_answered_is_read_again(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """A bot died over it; those around it, which were answered, aren't asked again."""
    server, works = Server(), Works()
    async with listening(redis_url, server, works):
        for text in "abc":
            await server.say(text)
        await eventually_async(lambda: len(works.feeds) == 3)
        works.end("a", "c")
        await eventually_async(lambda: len(server.answers) == 2)
        await server.say("d")
        await eventually_async(lambda: works.feeds.get("d"))
        works.end("d")
        await eventually_async(lambda: complete(redis_client) == 3)
    again = Works()
    async with listening(redis_url, server, again):
        await eventually_async(lambda: again.feeds)
        again.end("b")
        await eventually_async(lambda: len(server.answers) == 4)
        await server.say("e")
        await eventually_async(lambda: again.feeds.get("e"))
    assert again.begun == ["b", "e"]
    assert sorted(server.answers) == ["re: a", "re: b", "re: c", "re: d"]


async def test_a_gateway_that_is_away_is_tried_again(redis_url: str) -> None:
    """The question is answered when it is back."""
    server, works = Server(), Works()
    works.fails = lambda: GatewayUnavailable("away") if len(works.begun) < 2 else None
    async with listening(redis_url, server, works):
        await server.say("a")
        await eventually_async(lambda: works.feeds)
        works.end("a")
        await eventually_async(lambda: server.answers)
    assert server.answers == ["re: a"]


async def test_a_question_that_breaks_its_answerer(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next is answered; the first isn't asked again."""
    server, works = Server(), Works()
    works.fails = lambda: RuntimeError("a bug") if works.begun[-1] == "bad" else None
    async with listening(redis_url, server, works):
        await server.say("bad")
        await server.say("good")
        await eventually_async(lambda: works.feeds)
        works.end("good")
        await eventually_async(lambda: server.answers)
    assert any("stays without an answer" in one for one in caplog.messages)
    assert sorted(works.begun) == ["bad", "good"]


async def test_a_place_that_the_server_does_not_know(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and the bot begins with now, on a server that was set up anew, say."""
    server, works = Server(), Works()
    async with listening(redis_url, server, works):
        await server.say("a")
        await eventually_async(lambda: works.feeds)
        works.end("a")
        await eventually_async(lambda: server.answers)
    other = Server("t")
    async with listening(redis_url, other, works):
        await other.say("b")
        await eventually_async(lambda: works.feeds.get("b"))
    assert works.begun == ["a", "b"]
    assert any("of no use" in one for one in caplog.messages)


async def test_what_is_left_out_is_said(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The room of which not everything could be read is named."""
    server, works = Server(), Works()
    async with listening(redis_url, server, works):
        server.limited = True
        await server.say("a")
        await eventually_async(lambda: works.begun)
    assert any(ROOM in one and "too many" in one for one in caplog.messages)


async def test_a_token_that_was_revoked(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The bot ends, and its questions wait for one with another token."""
    server, works = Server(), Works()
    async with listening(redis_url, server, works) as (running, _):
        await server.say("a")
        await eventually_async(lambda: server.sent)
        server.token_works = False
        works.end("a")
        await eventually_async(lambda: any("stays without an answer" in one for one in caplog.messages))
        await server.wake()
        with pytest.raises(SinkRefused, match="log in anew"):
            await asyncio.wait_for(running, 10)
    server.token_works = True
    again = Works()
    async with listening(redis_url, server, again):
        await eventually_async(lambda: again.feeds)
        again.end("a")
        await eventually_async(lambda: server.answers)
    assert server.answers == ["re: a"]


async def test_an_answer_that_somebody_took_over(
    redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Who lost its lease looks again, and goes on when the other has died."""
    server, works = Server(), Works()
    async with listening(redis_url, server, works, lease_seconds=1.5):
        await server.say("a")
        await eventually_async(lambda: server.sent)
        (lease,) = await eventually_async(lambda: redis_client.keys("bridge:note:*:lease"))
        redis_client.set(lease, "somebody", px=60_000)
        works.feeds["a"].tell(Chunk(", and more"))
        await eventually_async(lambda: any("taken this over" in one for one in caplog.messages))
        redis_client.delete(lease)
        await eventually_async(lambda: len(works.begun) == 2)
        works.end("a")
        await eventually_async(lambda: server.answers)
    assert server.answers == ["re: a"]


async def test_leaving(redis_url: str) -> None:
    """What has begun may end; what waits is left to others, and so is what is asked from then on."""
    server, works = Server(), Works()
    async with listening(redis_url, server, works, most_answers=1) as (running, leave):
        await server.say("a")
        await eventually_async(lambda: works.feeds)
        await server.say("b")
        leave.set()
        await asyncio.sleep(0)
        await server.say("c")
        works.end("a")
        await asyncio.wait_for(running, 10)
    assert works.begun == ["a"]
    assert works.stopped
    assert server.answers == ["re: a"]
