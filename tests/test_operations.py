"""What docs/operations.md tells to type in."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.gateway.app import Gateway
from bridge.gateway.counts import Counts
from bridge.settings import Settings
from bridge.store.notes import Notes
from bridge.worker import process
from tests.gateway.running import running
from tests.servers import RedisProcess
from tests.waiting import DEADLINE_SECONDS, eventually

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its own head, as the code of each cell."""
    below = PAGE.read_text().partition(f"\n{heading}\n")[2].partition("\n|")[2]
    rows = itertools.takewhile(lambda line: line.startswith("|"), ("|" + below).splitlines())
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows][2:]


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_metric_is_in_the_table() -> None:
    """With its type and its labels, and none that isn't there; all have values from the start but one."""
    suffixes = {"counter": "_total", "info": "_info"}
    found = {}
    gateway = Gateway(Settings())
    gateway.counts.answers["status", 200] += 1
    for family in gateway.metrics.registry.collect():
        if family.name.startswith("bridge_"):
            name = family.name + suffixes.get(family.type, "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, labels)
            assert family.samples or name == "bridge_link_lag_seconds"
    told = {
        code(name)[0]: (kind.replace(" ", ""), set(code(labels)))
        for name, kind, labels, _ in table("## Metrics")
    }
    assert told == found


def test_every_reason_is_explained() -> None:
    """Those of heals, and those of streams that are over."""
    heals = next(text for name, _, _, text in table("## Metrics") if "bridge_heals_total" in name)
    assert set(code(heals)) == set(Counts().heals)
    below = "**One line per stream**, when it is over, at level `info` on the logger `bridge.streams`:"
    assert {code(reason)[0] for reason, _ in table(below)} == set(Counts().streams)


def test_alarms_are_about_metrics_that_exist() -> None:
    """With their labels' values."""
    names = {code(name)[0] for name, _, _, _ in table("## Metrics")}
    alarms = " ".join(when for when, _ in table("**What to alarm on.**"))
    named = set(re.findall(r"bridge_[a-z_]+", alarms))
    assert len(named) > 5
    assert {name.removesuffix("_bucket") for name in named} <= names
    values = {word for one in re.findall(r'reason=~?"([^"]+)"', alarms) for word in one.split("\\|")}
    assert values <= {*Counts().heals, *Counts().streams}


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
    bridge.configure(redis_url=url, cancel_check_seconds=0.05, create_timeout_seconds=DEADLINE_SECONDS)
    with running(url) as gateway:

        def status() -> dict[str, Any]:
            return dict(gateway.get("/tasks/job/status").json())

        assert bridge.create_task("job", owner="ann")
        with bridge.task("job") as task:
            task.report_progress("before ")
            eventually(lambda: status().get("text") == "before ")
            client.delete("bridge:{job}:log")
            task.report_progress("after")
            eventually(lambda: status().get("text") == "before after")  # unknown, until it is repaired
            assert gateway.post("/tasks/job/cancel").is_success
            eventually(lambda: not task.report_progress())
        eventually(lambda: (status()["state"], status()["text"]) == ("cancelled", "before after"))
    assert client.execute_command("ACL", "LOG") == []
    client.close()


async def test_what_a_sink_needs_beyond_that(server: RedisProcess) -> None:
    """With the two rights more that the page names, a sink can take leases and keep notes."""
    (command,) = [line.split() for line in PAGE.read_text().splitlines() if "ACL SETUSER" in line]
    (more,) = re.findall(r"`bridge matrix` needs `([^`]+)` as well", PAGE.read_text())
    client: Any = server.client()
    client.execute_command(*command, *more.split())
    url = server.url.replace("redis://", "redis://bridge:secret@")
    async with Notes(Settings(redis_url=url)) as notes:
        hold = await notes.take("matrix:a")
        assert hold is not None
        async with hold:
            await hold.write(b"x")
        await notes.write("matrix-bot:a", b"y")
        assert await notes.read("matrix:a") == b"x"
    assert client.execute_command("ACL", "LOG") == []
    client.close()
