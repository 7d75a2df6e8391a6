from __future__ import annotations

import asyncio

import pytest

from bridge.errors import GatewayUnavailable
from bridge.events import Chunk, End
from bridge.sinks.newest import Newest
from tests.sinks.feed import Feed


async def test_the_first_view_is_there_when_it_comes() -> None:
    """Before that there is none, and nobody is kept waiting for longer than they want."""
    feed = Feed()
    async with Newest(feed.views()) as newest:
        assert newest.view is None
        assert await newest.changed()
        assert newest.view is feed.view
        assert not await newest.changed(0.001)


async def test_what_came_meanwhile_is_one_change() -> None:
    """Whoever was busy gets the newest, once."""
    feed = Feed()
    async with Newest(feed.views()) as newest:
        await newest.changed()
        for letter in "abc":
            feed.tell(Chunk(letter))
        await asyncio.sleep(0)
        assert await newest.changed()
        assert newest.view is not None
        assert newest.view.text == "abc"
        assert not await newest.changed(0.001)


async def test_the_last_view_is_not_missed() -> None:
    """It counts as a change, also when the views have ended since; then they are over."""
    feed = Feed()
    feed.tell(Chunk("a"), End("succeeded"))
    async with Newest(feed.views()) as newest:
        assert [view.state async for view in newest.every(0)][-1] == "succeeded"
        assert newest.over
        assert not await newest.changed(0.001)
        assert not await newest.changed()


async def test_views_that_break_off_raise() -> None:
    """What their source raises, after what had come before."""
    feed = Feed()
    feed.fail(GatewayUnavailable("gone"))
    async with Newest(feed.views()) as newest:
        views = newest.every(0)
        assert await anext(views) is feed.view
        with pytest.raises(GatewayUnavailable, match="gone"):
            await anext(views)
        with pytest.raises(GatewayUnavailable, match="gone"):
            await newest.changed()


async def test_leaving_early_closes_the_views() -> None:
    """A generator in its middle holds a connection: it isn't left to the garbage collector."""
    feed = Feed()
    views = feed.views()
    async with Newest(views) as newest:
        await newest.changed()
    with pytest.raises(StopAsyncIteration):
        await anext(views)
