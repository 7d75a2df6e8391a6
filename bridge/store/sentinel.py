"""Clients that ask Redis Sentinel who the master is: at first, and again with every new connection.

The URL names the Sentinels, the master's name among them, and the database:

    redis+sentinel://user:password@host1:26379,host2:26379,host3/mymaster/0?sentinel_password=…

User and password are those of Redis; `sentinel_username` and `sentinel_password` those of the Sentinels. The
port is 26379 where none is given, the database 0. `rediss+sentinel://` speaks TLS, with both. Other
parameters are redis-py's, as in a `redis://` URL, and hold for the connections to Redis.

Sentinels may be a moment behind: they may name a master that was demoted, or a replica that isn't promoted
yet. So a new connection asks the server itself, and is given up if that is a replica (for asyncio here; the
worker's connection asks more, see `writer.py`). No connection to a Sentinel is kept: they are asked seldom,
and one that was kept would outlive those who close a client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.connection import parse_url

DEFAULT_PORT: Final = 26379
ANSWER_SECONDS: Final = 1.0
"""So long one Sentinel may take; then the next is asked."""

_SCHEMES: Final = {"redis+sentinel": False, "rediss+sentinel": True}


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """What such a URL says. The options are those of redis-py's connections."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def is_sentinel(url: str) -> bool:
    """Whether the URL names Sentinels."""
    return url.partition("://")[0] in _SCHEMES


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Read a URL. Raises ValueError, without the password in its message."""
    head, _, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    authority, _, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    service, _, database = path.rstrip("/").partition("/")
    if not service:
        raise ValueError("after the Sentinels' addresses comes the master's name, as in …:26379/mymaster/0")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("after the master's name comes the number of the database, or nothing")
    of_sentinels: dict[str, Any] = {}
    of_redis = []
    for name, value in parse_qsl(query):
        if name in ("sentinel_username", "sentinel_password"):
            of_sentinels[name.removeprefix("sentinel_")] = value
        else:
            of_redis.append((name, value))
    read: Any = parse_url  # untyped
    options: dict[str, Any] = read(f"redis://{login}{at}host/{database}?{urlencode(of_redis)}")
    del options["host"]
    if _SCHEMES[scheme]:
        options["ssl"] = of_sentinels["ssl"] = True
        of_sentinels |= {name: value for name, value in options.items() if name.startswith("ssl_")}
    return SentinelUrl(
        tuple(_address(host) for host in hosts.split(",")), unquote(service), options, of_sentinels
    )


def sync_master(
    url: str, *, on_connect: Callable[[Any], None] | None, timeout: float, **options: Any
) -> redis.Redis:
    """A client of the server that the Sentinels name. Raises ValueError for a URL that can't be read."""
    where = parse_sentinel_url(url)
    sentinels: Any = _SENTINELS(where.sentinels, sentinel_kwargs=_asking(where, timeout, options))
    client: redis.Redis = sentinels.master_for(
        where.service,
        redis_connect_func=on_connect,
        **{**options, **where.options},
    )
    return client


def async_master(url: str, *, timeout: float, **options: Any) -> redis.asyncio.Redis:
    """A client of the master. Raises ValueError for a URL that can't be read."""
    where = parse_sentinel_url(url)
    sentinels: Any = _ASYNC_SENTINELS(where.sentinels, sentinel_kwargs=_asking(where, timeout, options))
    client: redis.asyncio.Redis = sentinels.master_for(
        where.service, redis_connect_func=_check_async, **{**options, **where.options}
    )
    return client


class _Sentinels(redis.sentinel.Sentinel):
    """Asks with connections of each question's own. Whoever answered last is asked first."""

    def discover_master(self, service_name: str) -> Any:
        asked: Any = _SENTINELS_ONCE(_addresses(self.sentinels), sentinel_kwargs=self.sentinel_kwargs)
        try:
            return asked.discover_master(service_name)
        finally:
            for sentinel in asked.sentinels:
                sentinel.close()
            self.sentinels = asked.sentinels


class _AsyncSentinels(redis.asyncio.sentinel.Sentinel):
    """The same for asyncio, where several may ask at the same time."""

    async def discover_master(self, service_name: str) -> Any:
        asked: Any = _ASYNC_SENTINELS_ONCE(_addresses(self.sentinels), sentinel_kwargs=self.sentinel_kwargs)
        try:
            return await asked.discover_master(service_name)
        finally:
            for sentinel in asked.sentinels:
                await sentinel.aclose()
            self.sentinels = asked.sentinels


def _addresses(clients: Sequence[Any]) -> list[tuple[str, int]]:
    told = [client.connection_pool.connection_kwargs for client in clients]
    return [(one["host"], one["port"]) for one in told]


# redis-py leaves their construction untyped.
_SENTINELS_ONCE: Final[Any] = redis.sentinel.Sentinel
_ASYNC_SENTINELS_ONCE: Final[Any] = redis.asyncio.sentinel.Sentinel
_SENTINELS: Final[Any] = _Sentinels
_ASYNC_SENTINELS: Final[Any] = _AsyncSentinels


async def _check_async(connection: Any) -> None:
    await connection.on_connect()
    await connection.send_command("ROLE")
    _must_be_master(await connection.read_response())


def _must_be_master(role: Any) -> None:
    if role[0] not in (b"master", "master"):
        raise redis.ConnectionError("the server that the Sentinels name is no master")


def _asking(where: SentinelUrl, timeout: float, options: dict[str, Any]) -> dict[str, Any]:
    """How the Sentinels are talked to: as Redis is, but they have to be quick."""
    ours = {name: options[name] for name in ("protocol", "retry")}
    return ours | {"socket_timeout": timeout, "socket_connect_timeout": timeout} | where.sentinel_options


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError("the Sentinels are given as host:port,host:port,…")
    return host, port or DEFAULT_PORT
