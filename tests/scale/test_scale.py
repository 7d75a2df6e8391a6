"""Two thousand followers over two hundred tasks: gateway, worker and Redis are processes of their own."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import redis

from bridge.settings import Settings
from bridge.store.keys import Keys
from bridge.view import View
from tests.followers import Follower
from tests.processes import environ, program
from tests.scale.script import ROUNDS, result, task_ids, written
from tests.waiting import eventually_async

TASKS = 200
FOLLOWERS_PER_TASK = 10
LATE = 2
"""So many of them come only when their task is over."""
FILES = 3 * TASKS * FOLLOWERS_PER_TASK
SECONDS = 120.0
ROOT = Path(__file__).parents[2]


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for a socket per follower, here and in the processes started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def gateway(redis_url: str, many_files: None) -> Iterator[str]:
    """The URL of a gateway."""
    arguments = ["--redis-url", redis_url, "--port", "0", "--drain-seconds", "0", "--log-level", "warning"]
    with program("serve", *arguments, stderr=None) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().split()[3]
        process.terminate()


class Worker:
    """The process that writes all tasks, a round at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self._process, self._stdin = process, process.stdin

    def write_round(self) -> None:
        """Let it write one more round of every task."""
        self._stdin.write(b"\n")
        self._stdin.flush()

    async def end(self) -> None:
        """Let it end all tasks, and wait until it has."""
        self._stdin.close()
        assert await asyncio.to_thread(self._process.wait) == 0


@contextmanager
def working(redis_url: str) -> Iterator[Worker]:
    """A worker, killed if it outlives the block."""
    command = [sys.executable, "-m", "tests.scale.worker", str(TASKS)]
    env = environ(BRIDGE_REDIS_URL=redis_url)
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE) as process:
        try:
            yield Worker(process)
        finally:
            if process.poll() is None:
                process.kill()


def plan(gateway: str) -> dict[int, list[Follower]]:
    """All followers, by the round in which they come. One per task comes before the work begins (-1)."""
    random = Random(20)
    joining: dict[int, list[Follower]] = {number: [] for number in range(-1, ROUNDS + 1)}
    for task_id in task_ids(TASKS):
        joining[-1].append(Follower(gateway, task_id))
        for place in range(1, FOLLOWERS_PER_TASK):
            breaks = [random.randint(1, 3000) for _ in range(random.choice([0, 0, 1, 3]))]
            number = ROUNDS if place <= LATE else random.randrange(ROUNDS)
            joining[number].append(Follower(gateway, task_id, breaks))
    return joining


async def join(followers: list[Follower]) -> None:
    """Let them come, a hundred at the same moment."""
    for start in range(0, len(followers), 100):
        await asyncio.gather(*(follower.join() for follower in followers[start : start + 100]))


async def all_read(followers: list[Follower], number: int) -> None:
    """Wait until they have read to the end of that round, or to the end of their stream."""
    await eventually_async(
        lambda: all(f.view.message == f"round {number}" or f.done.is_set() for f in followers),
        timeout=SECONDS,
    )


def check_log(client: redis.Redis, task_id: str) -> None:
    """The log is one epoch without holes, and ends with its only `end`."""
    entries: Any = client.xrange(Keys.from_settings(Settings(), database=0).log(task_id))
    epoch = entries[0][0].decode().partition("-")[0]
    assert [key.decode() for key, _ in entries] == [f"{epoch}-{n}" for n in range(1, len(entries) + 1)]
    kinds = [fields[b"kind"] for _, fields in entries]
    assert kinds.count(b"end") == 1
    assert kinds[-1] == b"end"


def check_content(view: View) -> None:
    """It is what the worker wrote."""
    wanted = written(view.task_id)
    for name in ("text", "fields", "data", "progress", "message"):
        assert getattr(view, name) == getattr(wanted, name)
    assert (view.state, view.result) == ("succeeded", result(view.task_id))


@pytest.mark.timeout(SECONDS)
async def test_every_follower_has_what_its_worker_wrote(
    redis_url: str, redis_client: redis.Redis, gateway: str
) -> None:
    """Followers that come early, late and in between, half of them over broken connections, all end with
    exactly what their worker wrote, one `end` each, and with what a poll says.
    """
    joining = plan(gateway)
    crowd = [follower for followers in joining.values() for follower in followers]
    assert len(crowd) == TASKS * FOLLOWERS_PER_TASK
    watchers = joining[-1]

    with working(redis_url) as worker:
        await join(watchers)
        for number in range(ROUNDS):
            # Those who come now find a part of the round in the log and get the rest as it is written.
            worker.write_round()
            await join(joining[number])
            await all_read(watchers, number)
        await worker.end()
    await join(joining[ROUNDS])
    await asyncio.gather(*(follower.done.wait() for follower in crowd))

    assert [wrong for follower in crowd for wrong in follower.wrong] == []
    assert {follower.ends.total() for follower in crowd} == {1}
    assert [reason for follower in crowd for reason in follower.resets] == []
    assert sum(follower.connections for follower in crowd) > 1.4 * len(crowd), "too few broke off"
    assert {status for follower in crowd for status in follower.statuses} == {200}
    async with httpx.AsyncClient(base_url=gateway, timeout=SECONDS) as client:
        polled = {id_: (await client.get(f"/tasks/{id_}/status")).json() for id_ in task_ids(TASKS)}
    for follower in crowd:
        assert follower.view.as_dict() == polled[follower.view.task_id]
    for watcher in watchers:
        check_content(watcher.view)
        check_log(redis_client, watcher.view.task_id)

    # Everyone who comes back is told that there is no more.
    await join(crowd)
    await eventually_async(lambda: all(follower.statuses[-1] == 204 for follower in crowd), timeout=SECONDS)
