"""What docs/operations.md tells to type in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.worker import process
from tests.gateway.running import running
from tests.servers import RedisProcess
from tests.waiting import eventually

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    """A server whose users the test may change."""
    with RedisProcess() as server:
        yield server
        process.reset()


def test_the_user_of_the_page_may_do_all_that_is_needed(server: RedisProcess) -> None:
    """With those rights alone, a task is announced, written, repaired, cancelled, read and ended."""
    (command,) = [line.split() for line in PAGE.read_text().splitlines() if "ACL SETUSER" in line]
    client: Any = server.client()
    client.execute_command(*command)
    url = server.url.replace("redis://", "redis://bridge:secret@")
    bridge.configure(redis_url=url, cancel_check_seconds=0.05)
    with running(url) as gateway:
        assert bridge.create_task("job", owner="ann")
        with bridge.task("job") as task:
            task.report_progress("before ")
            eventually(lambda: gateway.get("/tasks/job/status").json()["text"] == "before ")
            client.delete("bridge:{job}:log")
            task.report_progress("after")
            eventually(lambda: gateway.get("/tasks/job/status").json()["text"] == "before after")
            assert gateway.post("/tasks/job/cancel").is_success
            eventually(lambda: not task.report_progress())
        view = gateway.get("/tasks/job/status").json()
    assert (view["state"], view["text"]) == ("cancelled", "before after")
    assert client.execute_command("ACL", "LOG") == []
    client.close()
