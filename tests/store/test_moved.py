"""After a failover, or a restart with older data, the newest events of a log may be gone, and somebody may
have read them. Whoever writes next without knowing the text gives no id again: a new epoch begins.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.events import Chunk, End, Event, Reset, State
from tests.store.bench import Bench
from tests.store.test_scripts import WORKER_LOST

HI = Chunk("hi")
RUNNING = State("running", 1)
LOST = Reset("log_lost", 1)


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    """A task on a real server: fakeredis doesn't tell its replication id."""
    with Bench(redis_url) as bench:
        yield bench


def move(bench: Bench) -> None:
    """As far as the task can tell, its log began on another server."""
    bench.client.hset(bench.keys.task(bench.task_id), "server", "0" * 40)


def begun(bench: Bench, moved: bool = True) -> int:
    """A task with some text, whose server then changed; the epoch."""
    bench.open("t1")
    epoch = bench.append("t1", 1, HI).position.epoch
    if moved:
        move(bench)
    return epoch


def repeated(bench: Bench, epoch: int) -> list[Event]:
    """The events; fails if they are in the old epoch."""
    assert bench.log()[0].position.epoch > epoch
    return bench.events()


def test_epoch_remembers_its_server(bench: Bench) -> None:
    """The task's hash names the replication id under which its epoch began, and of a restored one the new."""
    bench.open("t1")
    replid = bench.client.info("replication")["master_replid"]
    assert bench.hash()["server"] == replid
    move(bench)
    assert bench.restore("t1", 1, HI).verdict == "applied"
    assert bench.hash()["server"] == replid


def test_cancel_elsewhere_begins_a_new_epoch_with_the_same_log(bench: Bench) -> None:
    """The text that is left stands in the new epoch, too, with its times, and the request after it."""
    epoch = begun(bench)
    before = bench.log()
    assert bench.cancel().verdict == "applied"
    assert repeated(bench, epoch) == [LOST, RUNNING, HI, State("running", 1, True)]
    assert [entry.data for entry in bench.log()[1:3]] == [entry.data for entry in before]
    assert bench.view().text == "hi"


def test_expire_elsewhere_begins_a_new_epoch_with_the_same_log(bench: Bench) -> None:
    """The partial text is kept, and the end has an id that was never given before."""
    epoch = begun(bench)
    bench.let_lease_end()
    assert bench.expire().verdict == "applied"
    end = End("failed", WORKER_LOST, length={})
    assert repeated(bench, epoch) == [LOST, RUNNING, HI, end]


def test_retry_elsewhere_begins_a_new_epoch(bench: Bench) -> None:
    """A second attempt on a running task gives no id of the first one's text to its own."""
    epoch = begun(bench)
    assert bench.open("t2").verdict == "applied"
    assert repeated(bench, epoch) == [Reset("retry", 2), State("running", 2)]


def test_open_elsewhere_of_a_queued_task_begins_a_new_epoch(bench: Bench) -> None:
    """The lost events may have been those of a worker that had begun."""
    epoch = bench.create("c1", owner="ann").position.epoch
    move(bench)
    assert bench.open("t1").verdict == "applied"
    assert repeated(bench, epoch) == [Reset("retry", 1), RUNNING]
    assert bench.hash()["owner"] == "ann"


def test_open_of_a_cancelled_task_elsewhere_begins_a_new_epoch(bench: Bench) -> None:
    """Also the end that a worker finds instead of a task has an id of its own."""
    begun(bench, moved=False)
    epoch = bench.cancel().position.epoch
    move(bench)
    assert bench.open("t2").verdict == "ended"
    assert repeated(bench, epoch) == [
        LOST, RUNNING, HI, State("running", 1, True), End("cancelled", length={})
    ]  # fmt: skip


@pytest.mark.parametrize("call", ["cancel", "expire"])
def test_same_server_keeps_the_epoch(bench: Bench, call: str) -> None:
    """Without a change of the server nothing is copied, and readers need no reset."""
    epoch = begun(bench, moved=False)
    bench.let_lease_end()
    assert getattr(bench, call)().verdict == "applied"
    assert bench.log()[0].position.epoch == epoch


def test_task_of_an_older_release_has_no_server(bench: Bench) -> None:
    """Where nothing is known nothing is suspected."""
    epoch = begun(bench)
    bench.client.hdel(bench.keys.task(bench.task_id), "server")
    assert bench.cancel().position.epoch == epoch


def test_large_log_is_copied_without_being_published(bench: Bench) -> None:
    """A copy is announced by its last position alone; readers take it from the log."""
    bench.open("t1")
    for batch in range(1, 4):
        bench.append("t1", batch, *[Chunk("x" * 1000)] * 500)
    move(bench)
    assert bench.cancel().verdict == "applied"
    assert len(bench.view().text) == 1_500_000
