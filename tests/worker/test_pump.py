"""The pump against servers that come late, die, forget and freeze."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import bridge
from bridge import report_progress
from bridge.errors import SettingsError, StoreUnavailable
from bridge.events import Chunk, Reset
from bridge.settings import Settings
from bridge.store import packing, writer
from bridge.worker import process
from bridge.worker import pump as module
from bridge.worker.attempt import Attempt
from bridge.worker.buffer import Buffer
from bridge.worker.notice import Notice
from bridge.worker.pump import Pump
from tests.servers import RedisProcess
from tests.waiting import eventually, eventually_async
from tests.worker.conftest import brisk
from tests.worker.logs import (
    as_json,
    call,
    change,
    end_of,
    events,
    fields,
    read_view,
    scripts_run,
)


def acknowledged(client: redis.Redis, task_id: str, text: str) -> None:
    """Wait until the log holds that text, and the task that runs here knows it."""
    eventually(lambda: read_view(client, task_id).text == text)
    task = bridge.current_task()
    if task is not None and task.id == task_id:
        answered(task)


def answered(task: bridge.Task) -> None:
    """Wait until Redis has answered to all that the task has reported."""
    eventually(lambda: task._attempt is not None and task._attempt.quiet())


def resets(client: redis.Redis, task_id: str) -> list[str]:
    """The reasons of a log's resets."""
    return [event.reason for event in events(client, task_id) if isinstance(event, Reset)]


# What goes over the wire.

steps = st.one_of(
    st.tuples(st.just("text"), st.sampled_from([None, "a", "b"]), st.text(max_size=40)),
    st.tuples(st.just("data"), st.sampled_from(["x", "y"]), st.integers() | st.lists(st.text(max_size=5))),
    st.tuples(st.just("progress"), st.none() | st.text(max_size=10), st.floats(0, 1)),
    st.tuples(st.just("message"), st.text(max_size=10), st.none()),
    st.tuples(st.just("wait"), st.none(), st.none()),
)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(reports=st.lists(steps, max_size=30), hurried=st.booleans())
def test_any_reports_are_what_a_reader_gets(
    settings: Settings, redis_client: redis.Redis, reports: list[tuple[str, Any, Any]], hurried: bool
) -> None:
    """Whatever is reported, however it was merged: the log folds to exactly that."""
    texts: dict[str, str] = {}
    data: dict[str, Any] = {}
    progress, message = None, None
    redis_client.flushall()
    with bridge.task("t", settings=settings.with_(flush_milliseconds=0 if hurried else 20)) as task:
        for kind, first, second in reports:
            if kind == "text":
                assert report_progress(second, field=first) if first else report_progress(second)
                texts[first or "text"] = texts.get(first or "text", "") + second
            elif kind == "data":
                assert report_progress(name=first, value=second)
                data[first] = as_json(second)
            elif kind == "progress":
                assert report_progress(second, message=first)
                progress, message = second, message if first is None else first
            elif kind == "message":
                assert report_progress(message=first)
                message = first
            elif hurried:
                eventually(lambda: task.buffer.level == 0)
    view = read_view(redis_client, "t")
    assert {"text": view.text, **view.fields} == {"text": "", **{f: t for f, t in texts.items() if t}}
    assert (view.data, view.progress, view.message) == (data, progress, message)
    end_of(redis_client, "t")


def test_works_with_fakeredis(fake_redis_url: str) -> None:
    """A server without INFO and WAIT will do, too."""
    bridge.configure(brisk(fake_redis_url))
    with redis.Redis.from_url(fake_redis_url) as client:
        assert bridge.create_task("t", owner="ann")
        with bridge.task("t"):
            assert report_progress("Hello")
            acknowledged(client, "t", "Hello")
            report_progress(" there")
        assert read_view(client, "t").text == "Hello there"


def test_few_commands_for_many_events(settings: Settings, redis_client: redis.Redis) -> None:
    """A guard: scripts run per event, with the bound and why."""
    quiet = settings.with_(flush_milliseconds=60_000, cancel_check_seconds=60, lease_seconds=600)
    redis_client.config_resetstat()
    with bridge.task("t", settings=quiet):
        for _ in range(1000):
            report_progress("x")
    # open, the first text at once, and the rest with the end.
    assert scripts_run(redis_client) <= 3
    redis_client.config_resetstat()
    with bridge.task("u", settings=quiet):
        for _ in range(100):
            report_progress("x" * 4096)
    # open, close, and at most one append for each text as large as a flush.
    assert scripts_run(redis_client) <= 102
    redis_client.config_resetstat()
    with bridge.task("v", settings=quiet):
        pass
    assert scripts_run(redis_client) == 2


def test_few_writes_for_many_tasks(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard: each call is packed once and written with many others; what is due first waits for few."""
    counted: Counter[str] = Counter()
    real_pack = packing.pack
    real_send: Any = redis.Connection.send_packed_command  # redis-py leaves it untyped

    def pack(parts: tuple[Any, ...]) -> bytes:
        counted["packs"] += 1
        return real_pack(parts)

    def send(self: Any, *arguments: Any, **more: Any) -> None:
        counted["writes"] += 1
        real_send(self, *arguments, **more)

    pump = Pump(settings)
    buffers = [Buffer(1000, 1000) for _ in range(2 * module.ROUND_JOBS)]
    for number, buffer in enumerate(buffers):
        buffer.add_text("x", "text")
        pump._inbox.put(Attempt(f"t{number}", settings, buffer))
    pump._writer.send([])  # connects
    redis_client.config_resetstat()
    monkeypatch.setattr("bridge.store.scripts.pack", pack)
    monkeypatch.setattr(redis.Connection, "send_packed_command", send)
    pump._turn()
    assert [buffer.level for buffer in buffers] == [0] * module.ROUND_JOBS + [2] * module.ROUND_JOBS
    # An open and an append of each, and 32 calls in a write.
    assert counted == {"packs": 2 * module.ROUND_JOBS, "writes": math.ceil(2 * module.ROUND_JOBS / 32)}
    pump._turn()
    assert counted["packs"] == scripts_run(redis_client) == 4 * module.ROUND_JOBS
    pump._writer.disconnect()


def test_busy_tasks_share_turns(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard: what follows a turn of several tasks gathers first; a task alone never waits, nor a crowd."""
    pauses: list[float] = []
    monkeypatch.setattr("bridge.worker.pump.time.sleep", pauses.append)
    pump = Pump(settings.with_(cancel_check_seconds=60, lease_seconds=600))
    paused = []
    for round_, tasks in enumerate((1, module.GATHER_JOBS, 1, 1, module.ROUND_JOBS, 1)):
        for number in range(tasks):
            buffer = Buffer(1000, 1000)
            buffer.add_text("x", "text")
            pump._inbox.put(Attempt(f"t{round_}-{number}", pump.settings, buffer))
        pump._turn()
        paused.append(len(pauses))
    assert paused == [0, 0, 1, 1, 1, 1]
    pump._writer.disconnect()


def test_forgotten_scripts_are_loaded_again(settings: Settings, redis_client: redis.Redis) -> None:
    """A script cache that is flushed under a living connection costs a round trip, nothing else."""
    with bridge.task("t"):
        for text in ("a", "b", "c"):
            report_progress(text)
            eventually(lambda text=text: read_view(redis_client, "t").text.endswith(text))  # type: ignore[misc]  # a default
            redis_client.script_flush()
    assert read_view(redis_client, "t").text == "abc"


def test_the_first_text_goes_at_once(settings: Settings, redis_client: redis.Redis) -> None:
    """It doesn't wait for the interval in which later text is merged; data takes waiting text along."""
    with bridge.task("t", settings=settings.with_(flush_milliseconds=3_600_000)):
        report_progress("first")
        acknowledged(redis_client, "t", "first")
        report_progress(" second")
        report_progress(name="x", value=1)
        acknowledged(redis_client, "t", "first second")
        report_progress(" third")
        report_progress(0.5)
        acknowledged(redis_client, "t", "first second third")
        report_progress("x" * 4096)
        acknowledged(redis_client, "t", "first second third" + "x" * 4096)
        report_progress("!")
    chunks = [event.text for event in events(redis_client, "t") if isinstance(event, Chunk)]
    assert chunks == ["first", " second", " third", "x" * 4096, "!"]


def test_many_tasks_share_one_pump(settings: Settings, redis_client: redis.Redis) -> None:
    """Hundreds of open tasks: one thread, one connection, each text whole."""
    redis_client.config_resetstat()
    tasks = [bridge.task(f"t{number}").start() for number in range(300)]
    for word in ("one ", "two ", "three"):
        for task in tasks:
            assert task.report_progress(f"{word}")
    for task in tasks:
        assert task.finish()
    assert all(read_view(redis_client, task.id).text == "one two three" for task in tasks)
    clients: Any = redis_client.client_list()
    assert len([each for each in clients if each["name"] == "bridge"]) == 1


def test_different_settings_have_different_pumps(settings: Settings, redis_client: redis.Redis) -> None:
    """Two tasks of one process may live in two places."""
    other = settings.with_(prefix="other:")
    with bridge.task("t"), bridge.task("t", settings=other) as task:
        task.report_progress("there")
    assert read_view(redis_client, "t").text == ""
    assert redis_client.exists("other:{t}:log")


# Redis away.


def test_redis_may_come_later(caplog: pytest.LogCaptureFixture) -> None:
    """A task that began and ended without Redis is there, whole, when Redis is."""
    server = RedisProcess()
    bridge.configure(brisk(server.url).with_(close_timeout_seconds=0.05))
    with bridge.task("t") as task:
        assert report_progress("written ")
        assert report_progress("without Redis")
        task.succeed(1)
    assert "isn't confirmed yet" in caplog.text
    eventually(lambda: "reports are kept" in caplog.text)
    with server, server.client() as client:
        end = eventually(lambda: end_of(client, "t"))
        assert (end.state, end.result) == ("succeeded", 1)
        assert read_view(client, "t").text == "written without Redis"
        process.reset()
    assert caplog.text.count("reports are kept") == 1


async def test_waiting_for_the_end_does_not_block_the_loop() -> None:
    """While an async block waits for an absent Redis, other coroutines run."""
    server = RedisProcess()
    bridge.configure(brisk(server.url))
    left = asyncio.Event()

    async def work() -> None:
        async with bridge.task("t"):
            report_progress("x")
        left.set()

    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert not left.is_set()
    with server, server.client() as client:
        await running
        await eventually_async(lambda: end_of(client, "t"))
        process.reset()


async def test_a_cancelled_wait_lets_the_pump_go_on(server: RedisProcess) -> None:
    """Who is cancelled while the end is awaited leaves at once; the end still comes."""
    server.pause()

    async def work() -> None:
        async with bridge.task("t") as task:
            task.succeed("done")

    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.resume()
    with server.client() as client:
        assert eventually(lambda: end_of(client, "t")).result == "done"


def test_a_crash_costs_nothing(server: RedisProcess) -> None:
    """Redis dies and comes back empty in the middle of a task: the log is written anew, text whole."""
    with bridge.task("t") as task:
        with server.client() as client:
            report_progress("before ")
            report_progress(0.3, message="half")
            report_progress(name="x", value=[1])
            eventually(lambda: read_view(client, "t").data)
            answered(task)  # of what it doesn't know to be there, nothing can be lost
        server.kill()
        assert report_progress("during ")
        server.start()
        with server.client() as client:
            acknowledged(client, "t", "before during ")
            assert resets(client, "t") == ["log_lost"]
            assert report_progress("after")
            task.succeed()
    with server.client() as client:
        end_of(client, "t")
        view = read_view(client, "t")
    assert (view.text, view.data, view.state) == ("before during after", {"x": [1]}, "succeeded")
    assert (view.progress, view.message, view.attempt) == (0.3, "half", 1)


def test_a_restart_with_old_data_costs_nothing(tmp_path: Path) -> None:
    """Acknowledged writes that a restarted server doesn't have any more are written again."""
    with RedisProcess(data_dir=tmp_path) as server:
        bridge.configure(brisk(server.url))
        with bridge.task("t"):
            with server.client() as client:
                report_progress("old ")
                acknowledged(client, "t", "old ")
                client.save()
                report_progress("lost ")
                acknowledged(client, "t", "old lost ")
                epoch = fields(client, "t")["epoch"]
            server.kill()
            server.start()
            with server.client() as client:
                acknowledged(client, "t", "old lost ")
                assert resets(client, "t") == ["log_lost"]
                assert int(fields(client, "t")["epoch"]) > int(epoch)
            report_progress("new")
        with server.client() as client:
            assert read_view(client, "t").text == "old lost new"
        process.reset()


def test_a_frozen_redis_gets_everything_once(server: RedisProcess) -> None:
    """After a stop that outlasts the socket's patience, repeated calls apply once."""
    impatient = brisk(server.url).with_(lease_seconds=1)
    with server.client() as client, bridge.task("t", settings=impatient) as task:
        report_progress("before ")
        acknowledged(client, "t", "before ")
        server.pause()
        pump = process._state.pumps[impatient]
        for number in range(50):
            report_progress(f"{number} ")
        eventually(lambda: pump._failures > 1)
        server.resume()
        expected = "before " + "".join(f"{number} " for number in range(50))
        acknowledged(client, "t", expected)
        task.succeed()
    with server.client() as client:
        assert read_view(client, "t").text == expected
        assert resets(client, "t") == []


def test_a_cut_connection_is_only_a_delay(settings: Settings, redis_client: redis.Redis) -> None:
    """The same server behind a new connection needs no repair."""
    with bridge.task("t"):
        expected = ""
        for number in range(10):
            report_progress(f"{number} ")
            expected += f"{number} "
            acknowledged(redis_client, "t", expected)
            redis_client.client_kill_filter(_type="normal", skipme=True)
    assert read_view(redis_client, "t").text == expected
    assert resets(redis_client, "t") == []


def test_an_outage_is_one_line_in_the_log(server: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    """However long Redis is away, it is said once, and once that it is back."""
    caplog.set_level(logging.INFO)
    with bridge.task("t"), server.client() as client:
        eventually(lambda: events(client, "t"))
        server.kill()
        pump = process._state.pumps[process.current_settings()]
        eventually(lambda: pump._failures > 3)
        server.start()
        eventually(lambda: "is back" in caplog.text)
    assert caplog.text.count("reports are kept") == 1


def test_a_full_redis_is_waited_for(server: RedisProcess) -> None:
    """Out of memory is no reason to lose anything: it is sent when there is room again."""
    with server.client() as client, bridge.task("t") as task:
        report_progress("before ")
        acknowledged(client, "t", "before ")
        client.config_set("maxmemory", 1)
        report_progress("during ")
        pump = process._state.pumps[process.current_settings()]
        eventually(lambda: pump._failures > 1)
        assert read_view(client, "t").text == "before "
        client.config_set("maxmemory", 0)
        acknowledged(client, "t", "before during ")
        task.succeed()


# Redis forgets.


def test_flushall_is_repaired(settings: Settings, redis_client: redis.Redis) -> None:
    """Everything gone under a living connection: the next call notices."""
    with bridge.task("t"):
        report_progress("a")
        acknowledged(redis_client, "t", "a")
        redis_client.flushall()
        report_progress("b")
        acknowledged(redis_client, "t", "ab")
        redis_client.flushall()
        # Silent now: the next sign of life notices.
        acknowledged(redis_client, "t", "ab")
    assert (read_view(redis_client, "t").text, read_view(redis_client, "t").state) == ("ab", "succeeded")
    assert resets(redis_client, "t") == ["log_lost"]


def test_a_repaired_task_keeps_its_owner_and_its_beginning(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """What Redis told the worker of the task comes back with it: whose it is, and since when."""
    bridge.create_task("t", owner="ann")
    created = fields(redis_client, "t")["created"]
    with bridge.task("t"):
        report_progress("a")
        acknowledged(redis_client, "t", "a")
        redis_client.flushall()
        acknowledged(redis_client, "t", "a")
        assert (fields(redis_client, "t")["owner"], fields(redis_client, "t")["created"]) == ("ann", created)


@pytest.mark.parametrize("key", ["bridge:{t}:log", "bridge:{t}:task"])
def test_one_lost_key_is_repaired(settings: Settings, redis_client: redis.Redis, key: str) -> None:
    """Half a task counts as none, and is written anew in a later epoch."""
    with bridge.task("t"):
        report_progress("a")
        acknowledged(redis_client, "t", "a")
        epoch = fields(redis_client, "t")["epoch"]
        redis_client.delete(key)
        report_progress("b")
        eventually(lambda: read_view(redis_client, "t").text == "ab" and fields(redis_client, "t"))
        assert int(fields(redis_client, "t")["epoch"]) > int(epoch)
    assert read_view(redis_client, "t").state == "succeeded"


def test_lost_batches_are_repaired(settings: Settings, redis_client: redis.Redis) -> None:
    """A batch number below what was acknowledged: Redis went back in time without our noticing."""
    with bridge.task("t"):
        for text in ("a", "b", "c"):
            report_progress(text)
            eventually(lambda text=text: read_view(redis_client, "t").text[-1:] == text)  # type: ignore[misc]  # a default
        change(redis_client, "t", batch=1)
        eventually(lambda: resets(redis_client, "t") == ["log_lost"])
        acknowledged(redis_client, "t", "abc")


def test_a_lost_open_is_repaired(settings: Settings, redis_client: redis.Redis) -> None:
    """Redis knows only the announcement any more: the attempt takes its place again."""
    bridge.create_task("t")
    with bridge.task("t"):
        report_progress("a")
        acknowledged(redis_client, "t", "a")
        change(redis_client, "t", attempt=0, token="", tokens="", state="queued", started=0, batch=0)
        report_progress("b")
        acknowledged(redis_client, "t", "ab")
    assert read_view(redis_client, "t").state == "succeeded"


def test_the_end_repairs_too(settings: Settings, redis_client: redis.Redis) -> None:
    """A loss that only the end finds out doesn't lose the end."""
    calm = settings.with_(cancel_check_seconds=600, lease_seconds=1800)
    with bridge.task("t", settings=calm) as task:
        report_progress("a")
        acknowledged(redis_client, "t", "a")
        redis_client.flushall()
        task.succeed("done")
    end = end_of(redis_client, "t")
    assert (end.result, read_view(redis_client, "t").text) == ("done", "a")


def declared_lost(settings: Settings, client: redis.Redis) -> bool:
    """Let the lease be over, and a gateway find that. A renewal may come in between."""
    change(client, "t", lease=1)
    return call(settings, "expire", "t", sent_at=10**15).verdict == "applied"


def test_a_worker_that_was_declared_lost_comes_back(settings: Settings, redis_client: redis.Redis) -> None:
    """Its lease ran out though it lives: the end is taken back and the text is whole."""
    with bridge.task("t"):
        report_progress("a")
        acknowledged(redis_client, "t", "a")
        eventually(lambda: declared_lost(settings, redis_client))
        report_progress("b")
        eventually(lambda: resets(redis_client, "t") == ["worker_returned"])
        acknowledged(redis_client, "t", "ab")
    view = read_view(redis_client, "t")
    assert (view.text, view.state, view.error) == ("ab", "succeeded", None)


def test_a_full_log_is_marked(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Where writing the log anew wouldn't help, the end says truncated, and the work isn't stopped."""
    small = settings.with_(max_task_bytes=1024)
    with bridge.task("t", settings=small):
        assert report_progress("\x00" * 500)  # six bytes each, in JSON
        acknowledged(redis_client, "t", "\x00" * 500)
        assert report_progress("\x00" * 500)
        eventually(lambda: "its log is full" in caplog.text)
        assert report_progress("c")
    end = end_of(redis_client, "t")
    assert (end.truncated, end.length, end.state) == (True, {"text": 500}, "succeeded")


def test_a_log_full_of_old_progress_is_compacted(settings: Settings, redis_client: redis.Redis) -> None:
    """What nobody needs any more makes room, as often as need be; nothing that counts is left out."""
    with bridge.task("t") as task:
        text = ""
        for number in range(3):
            report_progress(number / 10, message="reading")
            text += f"{number}"
            report_progress(f"{number}")
            acknowledged(redis_client, "t", text)
            change(redis_client, "t", bytes=settings.max_task_bytes * 4)
        task.report_progress("end")
    assert resets(redis_client, "t") == ["compacted"]
    view, end = read_view(redis_client, "t"), end_of(redis_client, "t")
    assert (view.text, view.progress, view.message, end.truncated) == ("012end", 0.2, "reading", False)


def test_earlier_attempts_take_no_room(settings: Settings, redis_client: redis.Redis) -> None:
    """However much text retries have voided, the next one may write as much as the first."""
    small = settings.with_(max_task_bytes=1024)
    runs = [bridge.task("t", settings=small, bind=False) for _ in range(6)]
    for number, run in enumerate(runs):
        run.start()
        run.report_progress(f"{number}" * 1000)
        acknowledged(redis_client, "t", f"{number}" * 1000)
    assert runs[-1].finish()
    end = end_of(redis_client, "t")
    assert (end.state, end.truncated, end.length) == ("succeeded", False, {"text": 1000})


def test_a_key_of_another_type_disturbs_only_its_task(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that Redis refuses for good is logged once; other tasks go on."""
    redis_client.set("bridge:{t}:task", "not a hash", ex=100)
    impatient = settings.with_(close_timeout_seconds=0)
    with bridge.task("t", settings=impatient), bridge.task("u", settings=impatient) as other:
        other.report_progress("fine")
        acknowledged(redis_client, "u", "fine")
    assert eventually(lambda: end_of(redis_client, "u")).state == "succeeded"
    assert caplog.text.count("it is tried again") == 1
    redis_client.delete("bridge:{t}:task")
    assert eventually(lambda: end_of(redis_client, "t")).state == "succeeded"


# Replicas.


def linked(replica: redis.Redis) -> bool:
    """Whether a replica has all of its master."""
    info: Any = replica.info("replication")
    return bool(info["master_link_status"] == "up")


def test_what_nobody_else_holds_waits_for_a_replica(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are replicas, an announcement and an end are forgotten only when one has them."""
    # Less than the connection's patience, and more than a busy machine needs.
    monkeypatch.setattr(writer, "REPLICA_MILLISECONDS", 4000)
    with server.client() as client:
        client.config_set("repl-diskless-sync-delay", 0)
    with RedisProcess(options=["--replicaof", "127.0.0.1", str(server.port)]) as replica:
        with replica.client() as client:
            eventually(lambda: linked(client))
        assert bridge.create_task("t", owner="ann")
        with replica.client() as client:
            assert client.hget("bridge:{t}:task", "owner") == b"ann"
        with bridge.task("t") as task:
            task.succeed("done")
        with replica.client() as client:
            end = end_of(client, "t")
        assert end.result == "done"
        with server.client() as client:
            stats: Any = client.info("commandstats")
            assert stats["cmdstat_wait"]["calls"] == 2
        process.reset()


def test_a_promoted_replica_gets_a_repair(server: RedisProcess) -> None:
    """The server changes its role under a living connection: its new replication id is noticed."""
    impatient = brisk(server.url).with_(lease_seconds=0.6)
    at_once = ["--repl-diskless-sync-delay", "0"]
    with (
        RedisProcess(options=at_once) as other,
        server.client() as client,
        bridge.task("t", settings=impatient),
    ):
        report_progress("a")
        acknowledged(client, "t", "a")
        client.execute_command("REPLICAOF", "127.0.0.1", str(other.port))
        eventually(lambda: linked(client))
        report_progress("b")
        client.execute_command("REPLICAOF", "NO", "ONE")
        acknowledged(client, "t", "ab")


# Its own limits and errors.


def test_too_many_announcements_are_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While Redis is away a bounded number waits and comes later; a further one is refused and logged."""
    monkeypatch.setattr(module, "MAX_CREATIONS", 3)
    server = RedisProcess()
    bridge.configure(brisk(server.url).with_(create_timeout_seconds=0))
    for number in range(5):
        assert not bridge.create_task(f"t{number}")
    assert caplog.text.count("further ones are not kept") == 1
    with server, server.client() as client:
        eventually(lambda: len(client.keys("bridge:*:task")) == 3)
        assert bridge.create_task("t4", settings=process.current_settings().with_(create_timeout_seconds=8))
        process.reset()


@pytest.mark.parametrize("trouble", ["away", "refusing"])
def test_too_many_ended_tasks_are_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, server: RedisProcess, trouble: str
) -> None:
    """While Redis takes nothing the newest ended tasks are kept, the oldest logged and dropped."""
    monkeypatch.setattr(module, "MAX_LEAVING", 2)
    bridge.configure(brisk(server.url).with_(close_timeout_seconds=0))
    if trouble == "away":
        server.stop()
    else:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-evalsha")
    for number in range(4):
        with bridge.task(f"t{number}"):
            report_progress("x")
    eventually(lambda: caplog.text.count("too many tasks have ended") == 2)
    if trouble == "away":
        server.start()
    else:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "+evalsha")
    with server.client() as client:
        eventually(lambda: [end_of(client, "t2"), end_of(client, "t3")])
        assert not client.exists("bridge:{t0}:log", "bridge:{t1}:log")


def test_an_error_of_its_own_stays_inside(
    settings: Settings,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug in one task's protocol is logged, the work goes on, and other tasks are sent."""
    real = Attempt.next_calls

    def broken(self: Attempt, *args: Any) -> Any:
        if self.task_id == "broken":
            raise ZeroDivisionError
        return real(self, *args)

    monkeypatch.setattr(Attempt, "next_calls", broken)
    with bridge.task("broken") as task, bridge.task("fine"):
        eventually(lambda: task.buffer.closed)
        assert task.report_progress("still True")
        assert report_progress("fine")
    assert "ZeroDivisionError" in caplog.text
    assert read_view(redis_client, "fine").text == "fine"


def test_a_job_with_an_error_is_forgotten(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given up takes no place from others, and nobody waits for it."""
    monkeypatch.setattr(module, "MAX_CREATIONS", 1)
    real = Notice.next_calls
    monkeypatch.setattr(Notice, "next_calls", lambda self, *_: 1 // 0)
    pump = process._pump_for(settings)
    for number in range(3):
        assert not bridge.create_task(f"broken{number}")
        eventually(lambda: not pump._creations)  # who waits for it is told before its place is free
    monkeypatch.setattr(Notice, "next_calls", real)
    assert bridge.create_task("fine")
    eventually(lambda: (pump._jobs, pump._creations) == ({}, set()))


def test_the_thread_survives_what_nobody_expected(
    settings: Settings,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even a turn that fails as a whole is only logged and repeated."""
    real, calls = Pump._exchange, []

    def broken(self: Pump, now: float) -> None:
        calls.append(now)
        if len(calls) < 3:
            raise ZeroDivisionError
        real(self, now)

    monkeypatch.setattr(Pump, "_exchange", broken)
    with bridge.task("t"):
        report_progress("x")
    assert read_view(redis_client, "t").text == "x"
    assert "an error of its own" in caplog.text


def test_a_bad_url_is_an_error_of_the_caller() -> None:
    """What can never work is said at once."""
    bridge.configure(redis_url="nonsense://x")
    with pytest.raises(SettingsError, match="redis_url"):
        bridge.create_task("t")


def test_patience_is_counted_from_when_redis_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first end waits its whole time; when that is over, each further one waits a second only."""
    pump = Pump(Settings(redis_url="redis://127.0.0.1:1/0", close_timeout_seconds=10.0))
    now = 100.0
    monkeypatch.setattr("bridge.worker.pump.time.monotonic", lambda: now)
    assert pump.patience() == 10.0
    pump._failed(StoreUnavailable("away"))
    now += 4.0
    assert pump.patience() == 6.0
    now += 100.0
    assert pump.patience() == 1.0
    pump._recovered()
    assert pump.patience() == 10.0
