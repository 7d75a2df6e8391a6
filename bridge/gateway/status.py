"""`GET /tasks/{id}/status`: the view, for clients that poll, and the long poll.

A poll of a task that the gateway follows is answered from its channel: no Redis, and no encode when nothing
changed since the last poll. A long poll is a follower like a stream; it only waits for the next change.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bridge.codec import dumps
from bridge.entries import Entry
from bridge.errors import InvalidInput, StoreUnavailable
from bridge.events import START, Chunk, Position
from bridge.gateway.answers import NOSNIFF, json_bytes
from bridge.gateway.auth import Visitor
from bridge.gateway.channel import Channel
from bridge.gateway.connection import connection_of
from bridge.gateway.disconnect import Watching
from bridge.gateway.follower import Batch
from bridge.gateway.history import Dialect
from bridge.gateway.hub import Hub
from bridge.gateway.wire import native, parse_after
from bridge.store.connect import ANSWER_SECONDS

_CACHING: Final = {"cache-control": "private, no-cache"}
"""A cache may keep it, but must ask every time; that is what the ETag is for."""


class PollFollower:
    """A cursor that waits for any change, until there is no use in waiting."""

    def __init__(self, position: Position = START, *, leaving: bool = False) -> None:
        self.position = position
        self.generation = -1
        self.dialect: Dialect = native
        self.read_awaited = 0
        self.leaving = leaving
        self._changed = asyncio.Event()

    def offer(self, batch: Batch) -> bool:
        """A batch came; it is looked up in the view."""
        self._changed.set()
        return False

    def restarted(self) -> None:
        """The answer says so itself."""

    def wake(self) -> None:
        """Something changed."""
        self._changed.set()

    def tick(self, now: float) -> float:
        """Never due: a poll has its own time limit."""
        return math.inf

    def drain(self) -> None:
        """Answer now with what there is."""
        self.leaving = True
        self._changed.set()

    def cut(self) -> bool:
        """A poll is over soon anyway, and has nothing to resume."""
        return False

    def disconnected(self) -> None:
        """Nobody waits for the answer any more."""
        self.drain()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()
        self._changed.clear()


async def status(hub: Hub, visitor: Visitor, task_id: str, request: Request) -> Response:
    """Answer one poll or long poll. A task that the visitor may not see is as good as unknown."""
    after = request.query_params.get("after")
    known = parse_etag(request.headers.get("if-none-match"))
    wait = parse_wait(request.query_params.get("wait"), hub.settings.longest_wait_seconds)
    poll = PollFollower(parse_after(after), leaving=hub.draining)
    with hub.attach(task_id, poll) as channel:
        await hub.fresh(channel, poll, known or START)
        if wait:
            base = known if after is None else poll.position
            await _wait(visitor, channel, poll, base, wait, request)
        check_seen(visitor, channel)
        if known != channel.position and after is not None:
            body = dumps(await _since(visitor, channel, poll))
            return json_bytes(body, headers=_headers(hub, channel))
        return unchanged(hub, channel) if known == channel.position else whole(hub, channel)


def whole(hub: Hub, channel: Channel) -> Response:
    """The view as it is."""
    return json_bytes(channel.view_json(), headers=_headers(hub, channel))


def unchanged(hub: Hub, channel: Channel) -> Response:
    """To a client that has it already."""
    return Response(status_code=304, headers=_headers(hub, channel))


def check_seen(visitor: Visitor, channel: Channel) -> None:
    """Raise HTTPException 404. To be called after every `await`: whose a task is may have changed."""
    if not visitor.may_see(channel.owner):
        raise HTTPException(404, "There is no such task.")


def parse_wait(text: str | None, longest: float) -> float:
    """Seconds of a long poll, cut to the longest allowed. Raises `InvalidInput` for what is no number."""
    if text is None:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise InvalidInput(f"wait must be a number of seconds, not negative (got {text[:20]!r})")
    return min(seconds, longest)


def parse_etag(text: str | None) -> Position | None:
    """The position in an `If-None-Match` header of ours; None for anything else, which never matches."""
    if text is None:
        return None
    with suppress(InvalidInput):
        return Position.parse(text.removeprefix("W/").strip('"'))
    return None


async def _wait(
    visitor: Visitor,
    channel: Channel,
    poll: PollFollower,
    base: Position | None,
    seconds: float,
    request: Request,
) -> None:
    """Until the position is another than `base`, or, without one, until the end."""
    cursor = poll.position, poll.generation

    def over() -> bool:
        if poll.leaving or not visitor.may_see(channel.owner):
            return True
        return channel.view.ended if base is None else channel.position != base

    with suppress(TimeoutError):
        async with Watching(connection_of(request.scope), request.receive, poll), asyncio.timeout(seconds):
            while not over():
                # A channel offers what is new to those who are up to date.
                poll.position, poll.generation = channel.position, channel.generation
                await poll.changed()
    poll.position, poll.generation = cursor


async def _since(visitor: Visitor, channel: Channel, poll: PollFollower) -> dict[str, Any]:
    """The view with only the text after the poll's position, and whether to forget what was before."""
    from_start = poll.position == START
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while (answer := channel.since(poll)) is None:
                await poll.changed()
                check_seen(visitor, channel)
    except TimeoutError:
        raise StoreUnavailable("Redis doesn't answer") from None
    entries, restarted = answer
    view = channel.view.as_dict(_texts(entries))
    view["reset"] = not from_start and (restarted or any(entry.kind == "reset" for entry in entries))
    return view


def _texts(entries: list[Entry]) -> dict[str, str]:
    parts: dict[str, list[str]] = {}
    for entry in entries:
        if isinstance(entry.event, Chunk):
            parts.setdefault(entry.event.field, []).append(entry.event.text)
    return {field: "".join(texts) for field, texts in parts.items()}


def _headers(hub: Hub, channel: Channel) -> dict[str, str]:
    headers = {"etag": f'"{channel.position}"', **_CACHING, **NOSNIFF}
    if not channel.view.ended:
        headers["retry-after"] = str(math.ceil(hub.settings.poll_interval_seconds))
    return headers
