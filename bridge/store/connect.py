"""Connections to Redis, made in one place, so that every part has the same time limits.

redis-py's own retries are off: the worker's pump and the gateway know better what may be repeated.
A URL that begins with `redis+sentinel://` is read by `sentinel.py`; all others by redis-py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bridge.errors import SettingsError
from bridge.settings import Settings
from bridge.store import sentinel
from bridge.store.keys import Keys
from bridge.urls import shown

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0
"""So long one command may take. Well under a third of a lease, so that a hung Redis costs no lease."""


def sync_client(settings: Settings, on_connect: Callable[[Any], None] | None = None) -> redis.Redis:
    """A client with one connection, for the worker's pump; connects when first used.

    `on_connect` is called with every new connection in place of the connection's own `on_connect` (which it
    has to call). What it raises as a `RedisError` undoes the connection.
    """
    options = _options(settings, retry=Retry(NoBackoff(), 0), max_connections=1)
    url = _url(settings)
    with _explained(settings):
        if sentinel.is_sentinel(url):
            return sentinel.sync_master(
                url, on_connect=on_connect, timeout=_sentinel_seconds(settings), **options
            )
        client: redis.Redis = redis.Redis.from_url(url, redis_connect_func=on_connect, **options)
        return client


def async_client(settings: Settings) -> redis.asyncio.Redis:
    """A client for the gateway; connects when first used."""
    options = _options(settings, retry=AsyncRetry(NoBackoff(), 0))
    url = _url(settings)
    with _explained(settings):
        if sentinel.is_sentinel(url):
            return sentinel.async_master(url, timeout=_sentinel_seconds(settings), **options)
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, **options)
        return client


@contextmanager
def cancellable() -> Iterator[None]:
    """Around an `await` of redis-py: a cancellation that comes meanwhile is raised at the end if not before.

    redis-py sends with `asyncio.wait_for`, and in Python 3.11 that forgets a cancellation which comes while
    the last bytes are on their way. A loop that was cancelled would then go on for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


def keys_for(settings: Settings, client: redis.Redis | redis.asyncio.Redis) -> Keys:
    """Key names for the database that the client uses."""
    return Keys.from_settings(settings, int(client.connection_pool.connection_kwargs.get("db") or 0))


def _url(settings: Settings) -> str:
    """The URL without the parameters that would change how we read.

    redis-py lets a URL overrule its caller. An app that shares its REDIS_URL with us may want its answers
    as text; we read bytes.
    """
    head, _, query = settings.redis_url.partition("?")
    ours = ("protocol", "decode_responses")
    kept = [item for item in query.split("&") if item and item.partition("=")[0] not in ours]
    return head + ("?" + "&".join(kept) if kept else "")


def _options(settings: Settings, **more: Any) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": min(ANSWER_SECONDS, settings.lease_seconds / 3),
        "socket_connect_timeout": min(CONNECT_SECONDS, settings.lease_seconds / 3),
        "client_name": "bridge",
        **more,
    }


def _sentinel_seconds(settings: Settings) -> float:
    return min(sentinel.ANSWER_SECONDS, settings.lease_seconds / 3)


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    try:
        yield
    except (ValueError, RedisError) as error:
        raise SettingsError(f"redis_url can't be used ({shown(settings.redis_url)}): {error}") from None
