"""Connections to Redis, made in one place, so that every part has the same time limits.

redis-py's own retries are off: the worker's pump and the gateway know better what may be repeated.
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
from bridge.store.keys import Keys

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0
"""So long one command may take. Well under a third of a lease, so that a hung Redis costs no lease."""


def sync_client(settings: Settings, on_connect: Callable[[Any], None] | None = None) -> redis.Redis:
    """A client with one connection, for the worker's pump; connects when first used.

    `on_connect` is called with every new connection in place of the connection's own `on_connect` (which it
    has to call). What it raises as a `RedisError` undoes the connection.
    """
    client: redis.Redis = _from_url(
        redis.Redis,
        settings,
        retry=Retry(NoBackoff(), 0),
        max_connections=1,
        redis_connect_func=on_connect,
    )
    return client


def async_client(settings: Settings) -> redis.asyncio.Redis:
    """A client for the gateway; connects when first used."""
    client: redis.asyncio.Redis = _from_url(redis.asyncio.Redis, settings, retry=AsyncRetry(NoBackoff(), 0))
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


def shown(url: str) -> str:
    """A Redis URL without its password, which may also stand in its query, for messages and logs."""
    url, _, query = url.partition("?")
    scheme, separator, rest = url.partition("://")
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return scheme + separator + rest + ("?***" if query else "")


def _without(url: str, *names: str) -> str:
    """The URL without these parameters.

    redis-py lets a URL overrule its caller. An app that shares its REDIS_URL with us may want its answers
    as text; we read bytes.
    """
    head, _, query = url.partition("?")
    kept = [item for item in query.split("&") if item and item.partition("=")[0] not in names]
    return head + ("?" + "&".join(kept) if kept else "")


def _from_url(client: Any, settings: Settings, **more: Any) -> Any:
    try:
        return client.from_url(
            _without(settings.redis_url, "protocol", "decode_responses"),
            protocol=2,
            socket_timeout=min(ANSWER_SECONDS, settings.lease_seconds / 3),
            socket_connect_timeout=min(CONNECT_SECONDS, settings.lease_seconds / 3),
            client_name="bridge",
            **more,
        )
    except (ValueError, RedisError) as error:
        raise SettingsError(f"redis_url can't be used ({shown(settings.redis_url)}): {error}") from None
