"""The helpers of the tests: one that couldn't fail would make every test using it worthless."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import redis
from _pytest.outcomes import Failed, Skipped

from tests.servers import _turns, free_port, keys_without_ttl
from tests.tools import require_tool
from tests.waiting import eventually, eventually_async


def test_eventually_returns_the_first_true_value() -> None:
    """It asks again while the answer is false or an assertion fails."""
    answers = iter([0, None, 3])

    def predicate() -> int | None:
        answer = next(answers)
        assert answer != 0
        return answer

    assert eventually(predicate) == 3


def test_eventually_shows_the_last_value_when_time_is_up() -> None:
    """The message says what was seen instead."""
    with pytest.raises(AssertionError, match=r"within 0\.05 s; the last value was: \[\]"):
        eventually(list, timeout=0.05)


async def test_eventually_async_takes_both_kinds_of_predicate() -> None:
    """Async and plain predicates are polled alike, without blocking the loop."""
    answers = iter([0, 0, 7])

    async def predicate() -> int:
        return next(answers)

    assert await eventually_async(predicate) == 7
    assert await eventually_async(lambda: 8) == 8
    with pytest.raises(AssertionError, match="the last value was: 0"):
        await eventually_async(lambda: 0, timeout=0.05)


def test_a_missing_tool_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason begins with the tool's name."""
    monkeypatch.delenv("BRIDGE_CI", raising=False)
    with pytest.raises(Skipped, match=r"^needs: no-such-tool$"):
        require_tool("no-such-tool")


def test_a_missing_tool_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """With BRIDGE_CI=1 nothing is skipped silently."""
    monkeypatch.setenv("BRIDGE_CI", "1")
    with pytest.raises(Failed, match=r"^needs: no-such-tool"):
        require_tool("no-such-tool")


@pytest.mark.needs("sh")
def test_a_tool_that_is_there_is_found() -> None:
    """The marker lets the test run, and the path is the program's."""
    assert require_tool("sh").name == "sh"


@pytest.mark.parametrize("server", ["redis_url", "fake_redis_url"])
def test_a_key_without_ttl_is_seen(server: str, request: pytest.FixtureRequest) -> None:
    """Of two keys the one that would stay for ever is named."""
    url: str = request.getfixturevalue(server)
    with redis.Redis.from_url(url) as client:
        client.set("mortal", "1", ex=60)
        client.set("immortal", "1")
        assert keys_without_ttl(url) == ["immortal"]
        client.delete("immortal")
    assert keys_without_ttl(url) == []


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in one process of the run nor in two of them."""
    assert len({free_port() for _ in range(100)}) == 100
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    given: list[int] = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        given += islice(_turns(), 4500)
    assert len(set(given)) == 9000


def test_every_test_finds_an_empty_server(redis_client: redis.Redis, redis_binary: Path) -> None:
    """What an earlier test wrote is gone."""
    assert redis_binary.exists()
    assert redis_client.dbsize() == 0
