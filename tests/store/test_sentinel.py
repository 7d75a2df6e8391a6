"""URLs that name Sentinels. What they lead to when a master fails is in tests/chaos."""

from __future__ import annotations

import pytest

from bridge.errors import SettingsError, StoreUnavailable
from bridge.settings import Settings
from bridge.store.connect import async_client, keys_for, sync_client
from bridge.store.log import Store
from bridge.store.scripts import Calls, run_pipeline
from bridge.store.sentinel import SentinelUrl, parse_sentinel_url
from tests.servers import free_port

PLAIN = SentinelUrl((("h", 26379),), "main", {}, {})


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis+sentinel://h/main", PLAIN),
        ("redis+sentinel://h/main/", PLAIN),
        (
            "redis+sentinel://h:1,i,[::1]:3/main",
            SentinelUrl((("h", 1), ("i", 26379), ("::1", 3)), "main", {}, {}),
        ),
        ("redis+sentinel://h/main/3", SentinelUrl(PLAIN.sentinels, "main", {"db": 3}, {})),
        ("redis+sentinel://h/a%20b?db=4", SentinelUrl(PLAIN.sentinels, "a b", {"db": 4}, {})),
        (
            "redis+sentinel://u:p%40q@h/main/0?sentinel_password=s%20t&sentinel_username=v&socket_timeout=2",
            SentinelUrl(
                PLAIN.sentinels,
                "main",
                {"username": "u", "password": "p@q", "db": 0, "socket_timeout": 2.0},
                {"username": "v", "password": "s t"},
            ),
        ),
        (
            "rediss+sentinel://:p@h/main?ssl_cert_reqs=none",
            SentinelUrl(
                PLAIN.sentinels,
                "main",
                {"password": "p", "ssl_cert_reqs": "none", "ssl": True},
                {"ssl_cert_reqs": "none", "ssl": True},
            ),
        ),
    ],
)  # fmt: skip
def test_url_says_sentinels_master_database_and_passwords(url: str, read: SentinelUrl) -> None:
    """Each part of the URL is read, and only what is there."""
    assert parse_sentinel_url(url) == read


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://:secret@h", "master's name"),
        ("redis+sentinel://:secret@/main", "host:port"),
        ("redis+sentinel://:secret@h,/main", "host:port"),
        ("redis+sentinel://:secret@h:x/main", "host:port"),
        ("redis+sentinel://:secret@h/main/first", "number of the database"),
        ("redis+sentinel://:secret@h/main/0/1", "number of the database"),
    ],
)
def test_unusable_url_says_what_is_wrong(url: str, why: str) -> None:
    """The message says which part is missing, and tells no password."""
    for client in (sync_client, async_client):
        with pytest.raises(SettingsError, match=why) as caught:
            client(Settings(redis_url=url))
        assert "secret" not in str(caught.value)


async def test_clients_are_made_without_anybody_there() -> None:
    """They connect when first used; when no Sentinel answers Redis is away. The database is known before."""
    settings = Settings(redis_url=f"redis+sentinel://127.0.0.1:{free_port()}/main/5", lease_seconds=3)
    worker, gateway = sync_client(settings), async_client(settings)
    keys = keys_for(settings, worker)
    assert keys == keys_for(settings, gateway)
    assert keys.database == 5
    with pytest.raises(StoreUnavailable):
        run_pipeline(worker, [Calls(keys).cancel("a")])
    with pytest.raises(StoreUnavailable):
        await Store(gateway, keys).read("a")
    worker.close()
    await gateway.aclose()
