from __future__ import annotations

import pytest
import redis

from bridge.errors import SettingsError
from bridge.settings import Settings
from bridge.store.connect import async_client, keys_for, sync_client
from bridge.store.log import Store
from bridge.store.scripts import run_pipeline


@pytest.mark.parametrize(
    "url",
    ["", "redis", "http://127.0.0.1", "redis://[::1", "redis://:secret@h:port/0", "redis://h?password=secret&db=x"],
)  # fmt: skip
def test_unusable_url_is_a_settings_error_without_its_password(url: str) -> None:
    """A URL that redis-py can't read is the setting's fault, and its password isn't told to the log."""
    for client in (sync_client, async_client):
        with pytest.raises(SettingsError, match="redis_url") as caught:
            client(Settings(redis_url=url))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "database"),
    [("redis://h", 0), ("redis://h/3", 3), ("unix:///s?db=4", 4), ("redis://h/3?db=5", 5)],
)
def test_database_of_the_url_is_in_the_channel(url: str, database: int) -> None:
    """Two apps in two databases of one server don't hear each other."""
    for client in (sync_client, async_client):
        keys = keys_for(Settings(), client(Settings(redis_url=url)))
        assert keys.database == database
        assert keys.channel("a").endswith(f":{database}")


@pytest.mark.parametrize("query", ["decode_responses=True", "protocol=3&decode_responses=1"])
async def test_options_of_the_app_do_not_disturb(
    redis_url: str, redis_client: redis.Redis, query: str
) -> None:
    """A shared URL that asks for text, or another protocol, works like any other."""
    settings = Settings(redis_url=f"{redis_url}?{query}")
    worker = sync_client(settings)
    store = Store(async_client(settings), keys_for(settings, worker))
    run_pipeline(worker, [store.calls.open("a", token="t", lease_ms=1000)])
    reading = await store.read("a")
    assert [entry.event.kind for entry in reading.entries] == ["state"]
    assert (await store.heads(["a"]))[0] == [reading.head]
    worker.close()
    await store.client.aclose()
