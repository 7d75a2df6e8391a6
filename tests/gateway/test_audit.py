"""What the audit finds and judges: lost messages, silent links, leases that are over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

import pytest
import redis

from bridge.events import Reset
from bridge.gateway import audit
from bridge.gateway.audit import Audit
from bridge.gateway.channel import Channel
from bridge.store.log import Head, Store
from tests.gateway.running import Running, running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.proxy import proxy
from tests.servers import RedisProcess
from tests.waiting import eventually, eventually_async

REFUSALS = [
    pytest.param("min-replicas-to-write", 1, 0, id="no replicas"),
    pytest.param("maxmemory", 1, 0, id="full"),
]
"""A setting of Redis, its value with which Redis refuses all writes but answers reads, and its usual one."""

NEVER: dict[str, Any] = {"audit_seconds": 1000.0, "probe_seconds": 1000.0, "lease_seconds": 3000.0}


def rounds(client: redis.Redis) -> int:
    """How many rounds the gateways of this server have begun: each writes once, with its probe."""
    return int(client.info("commandstats").get("cmdstat_hset", {}).get("calls", 0))


def wait_for_rounds(client: redis.Redis, number: int) -> None:
    """Wait until so many more rounds have sent their probe, and so all but the last have ended."""
    before = rounds(client)
    eventually(lambda: rounds(client) >= before + number)


def let_it_judge(gateway: Running, lease_seconds: float) -> None:
    """Let the gateway's connections have been well for long enough, with leases of this length."""

    def change() -> None:
        inside = gateway.hub._audit
        inside._settings = inside._settings.with_(lease_seconds=lease_seconds)
        assert inside._well_since is not None
        inside._well_since -= lease_seconds

    gateway.inside(change)


def test_a_lost_last_message_is_found(gateway: Running, writer: Writer) -> None:
    """When the message never came and none follows that would betray it, the audit reads the log."""
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        writer.text("never heard")
        viewer.text_is("never heard")
        writer.end()
        viewer.to_end()
    assert viewer.view.as_dict() == writer.view().as_dict()


def test_in_health_many_tasks_are_compared_in_parts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than some at once, each part with a probe; and no task is left out."""
    asked: list[int] = []
    real = Store.heads

    async def counting(store: Store, task_ids: Sequence[str]) -> tuple[list[Head | None], int]:
        asked.append(len(task_ids))
        return await real(store, task_ids)

    monkeypatch.setattr(Store, "heads", counting)
    monkeypatch.setattr(audit, "_HEADS_PER_ROUND_TRIP", 2)
    writers = [Writer(redis_url, f"job-{number}").open() for number in range(5)]
    with running(redis_url) as gateway:
        viewers = [watch(gateway, writer.task_id) for writer in writers]
        for viewer in viewers:
            viewer.until(lambda v: len(v.frames) == 1)
        eventually(lambda: asked[-3:] == [2, 2, 1])
        wait_for_rounds(writers[0].client, 3)
        for writer in writers:
            writer.elsewhere = True
            writer.text("never heard")
        for viewer in viewers:
            viewer.text_is("never heard")
            viewer.close()
        assert gateway.hub.ready
    assert max(asked) == 2
    for writer in writers:
        writer.client.close()


def test_a_round_in_parts_takes_its_time_and_may_be_broken_off(redis_url: str) -> None:
    """Each part waits its share for the next; after trouble, or with another link, a new round is better."""
    with running(redis_url, **NEVER) as gateway:
        eventually(lambda: gateway.hub.ready)
        hub = gateway.hub
        some = [Channel(str(number), lambda _: None) for number in range(audit._HEADS_PER_ROUND_TRIP * 2 + 1)]

        async def done(happens: str) -> list[float]:
            mine, steps = Audit(hub.settings, hub.store, hub._link, hub.counts), list[float]()

            async def compare(channels: Sequence[Channel], *, whole: bool) -> None:
                steps.append(len(channels))
                if happens == "trouble":
                    mine.trouble()
                elif happens == "link":
                    mine.soon()

            async def wait(seconds: float) -> None:
                steps.append(seconds)

            mine._well_since = monotonic()
            mine._compare, mine._wait = compare, wait  # type: ignore[method-assign] # its own steps
            await mine._round(some, 6.0)
            return steps

        most = audit._HEADS_PER_ROUND_TRIP
        for happens, steps in [("", [most, 2.0, most, 2.0, 1]), ("trouble", [most]), ("link", [most])]:
            told = gateway.inside(lambda: asyncio.ensure_future(done(happens)))  # noqa: B023
            eventually(told.done)
            assert told.result() == steps


def test_trouble_in_a_part_is_over_only_after_a_whole_round(
    redis_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that goes well says nothing of the tasks that weren't compared since."""
    writer.open()
    with running(redis_url, **NEVER) as gateway:
        eventually(lambda: gateway.hub.ready)
        inside = gateway.hub._audit

        async def part(*, whole: bool) -> bool:
            inside.trouble()
            await inside._compare([], whole=whole)
            return inside.well

        for whole in (False, True):
            done = gateway.inside(lambda: asyncio.ensure_future(part(whole=whole)))  # noqa: B023
            eventually(done.done)
            assert done.result() == whole


def test_a_round_takes_nothing_back_that_was_read_since(redis_url: str, writer: Writer) -> None:
    """What it saw before its probe is old when that comes back: whose the task is may be known by then."""
    writer.open()
    with running(redis_url, **NEVER) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        inside = gateway.hub._audit
        (channel,) = gateway.hub.channels

        async def probe(*, whole: bool) -> None:
            await asyncio.to_thread(writer.create, "ann")
            number = channel.want_read()
            await eventually_async(lambda: channel.reads_done >= number)

        async def compare() -> None:
            await inside._compare([channel], whole=True)

        assert channel.owner == ""
        inside._probe = probe  # type: ignore[method-assign] # one that takes long
        done = gateway.inside(lambda: asyncio.ensure_future(compare()))
        eventually(done.done)
        done.result()
        assert (channel.owner, channel.head and channel.head.owner) == ("ann", "ann")


def test_a_lost_message_is_found_by_the_next(redis_url: str, writer: Writer) -> None:
    """A hole before a message is filled from the log, without waiting for an audit."""
    writer.open()
    with running(redis_url, **NEVER) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        writer.text("lost ")
        writer.elsewhere = False
        writer.text("found")
        viewer.text_is("lost found")


def test_a_killed_link_is_healed(redis_url: str, writer: Writer, redis_client: redis.Redis) -> None:
    """What is written while Redis has cut the link arrives as soon as there is a new one."""
    writer.open()
    with running(redis_url, **NEVER) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        text = ""
        for number in range(5):
            redis_client.client_kill_filter(_type="pubsub")
            writer.text(f"{number}")
            text += f"{number}"
            viewer.text_is(text)
        eventually(lambda: gateway.hub.ready)
        assert viewer.ids == sorted(set(viewer.ids))


def test_a_silent_link_is_replaced(redis_url: str, writer: Writer) -> None:
    """A connection that looks alive but brings nothing is found by the probe; what it lost is read."""
    writer.open()
    with (
        proxy(redis_url) as relay,
        running(relay.url, probe_seconds=0.3) as gateway,
        watch(gateway) as viewer,
    ):
        viewer.until(lambda v: len(v.frames) == 1)
        relay.silence()
        writer.text("unheard")
        writer.end()
        viewer.to_end()
        assert viewer.view.text == "unheard"
        eventually(lambda: relay.links_made == 2)
        eventually(lambda: gateway.hub.ready)


def test_a_probe_lost_with_its_link_is_not_waited_for(redis_url: str, writer: Writer) -> None:
    """When a link drops while a probe is on its way, the new link is audited at once, and kept."""
    writer.open()
    patient: dict[str, Any] = {"audit_seconds": 0.1, "probe_seconds": 0.1, "lease_seconds": 3000.0}
    with proxy(redis_url) as relay, running(relay.url, **patient) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        audit = gateway.hub._audit
        # Rounds stay frequent, but from now on a probe would be waited for practically for ever.
        gateway.inside(lambda: setattr(audit, "_settings", audit._settings.with_(probe_seconds=1000.0)))
        relay.silence()
        eventually(lambda: not gateway.hub.ready)
        writer.text("unheard")
        relay.cut(links=True)
        viewer.text_is("unheard")
        eventually(lambda: gateway.hub.ready)
        assert relay.links_made == 2


def test_polls_read_the_log_while_memory_is_doubtful(redis_url: str, writer: Writer) -> None:
    """A poll tells what was written while the link was silent, once the probe is overdue; it isn't ready."""
    writer.open()
    with proxy(redis_url) as relay, running(relay.url, probe_seconds=1000.0) as gateway:
        assert gateway.get("/tasks/job-1/status").json()["text"] == ""
        relay.silence()
        eventually(lambda: gateway.get("/readyz").status_code == 503)
        for number in range(1, 4):
            writer.text("x")
            assert gateway.get("/tasks/job-1/status").json()["text"] == "x" * number
        relay.cut(links=True)


def test_a_silent_link_keeps_nobody_from_reading(redis_url: str, writer: Writer) -> None:
    """A task that is asked for first while nothing is acknowledged is read all the same, before long."""
    writer.open()
    with proxy(redis_url) as relay, running(relay.url, **NEVER) as gateway:
        eventually(lambda: gateway.hub.ready)
        relay.silence()
        assert gateway.get("/tasks/job-1/status").json()["state"] == "running"
        relay.cut(links=True)
        eventually(lambda: gateway.hub.ready)


def test_a_lost_worker_ends_its_task(redis_url: str) -> None:
    """Who watches sees the end of a task whose worker gave no sign for its lease, with the text so far."""
    with Writer(redis_url, lease_ms=200) as writer, running(redis_url, lease_seconds=0.5) as gateway:
        writer.open()
        writer.text("partial")
        with watch(gateway) as viewer:
            viewer.to_end()
        assert viewer.view.state == "failed"
        assert viewer.view.text == "partial"
        assert viewer.view.error is not None
        assert viewer.view.error["code"] == "worker_lost"
        body = gateway.get("/tasks/job-1/status").json()
        assert (body["state"], body["error"]["code"]) == ("failed", "worker_lost")


def test_a_poll_finds_a_lost_worker_too(redis_url: str) -> None:
    """Nobody needs to stream, nor to wait for an audit: any read of a task looks at its lease."""
    with Writer(redis_url, lease_ms=1) as writer, running(redis_url, **NEVER) as gateway:
        eventually(lambda: gateway.hub.ready)
        let_it_judge(gateway, 0.5)
        writer.open()
        seconds, micros = writer.client.time()
        eventually(lambda: writer.client.time() > (seconds, micros + 2000))  # the lease is over
        eventually(lambda: gateway.get("/tasks/job-1/status").json()["state"] == "failed")


def test_a_gateway_judges_only_after_a_whole_lease(redis_url: str, redis_client: redis.Redis) -> None:
    """One whose connections were not yet well for so long leaves a lease that looks over alone."""
    with Writer(redis_url, lease_ms=1) as writer:
        writer.open()
        with running(redis_url, lease_seconds=1000) as gateway, watch(gateway) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            wait_for_rounds(redis_client, 5)
            assert writer.text("alive").verdict == "applied"
            viewer.text_is("alive")


def test_a_task_without_a_lease_is_never_lost(redis_url: str, redis_client: redis.Redis) -> None:
    """A lease of 0 means that nobody declares the worker lost."""
    with Writer(redis_url, lease_ms=0) as writer, running(redis_url, lease_seconds=0.5) as gateway:
        writer.open()
        with watch(gateway) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            eventually(lambda: gateway.hub._audit.judges)
            wait_for_rounds(redis_client, 3)
            assert writer.text("alive").verdict == "applied"


def test_a_stopped_redis_loses_no_worker() -> None:
    """After Redis stood still for longer than a lease, a worker that renews goes on, and nobody ended it."""
    with RedisProcess() as server, Writer(server.url, lease_ms=3000) as writer:
        writer.open()
        with (
            running(server.url, probe_seconds=60.0, lease_seconds=1000.0) as gateway,
            watch(gateway) as viewer,
        ):
            viewer.until(lambda v: len(v.frames) == 1)
            assert writer.renew().verdict == "applied"
            # It would judge, were the lease over.
            let_it_judge(gateway, 3.0)
            eventually(lambda: gateway.hub._audit.judges)
            server.pause()
            since = monotonic()
            eventually(lambda: monotonic() - since > 3.2)
            server.resume()
            assert writer.renew().verdict == "applied"
            eventually(lambda: gateway.hub.ready)
            writer.text("still here")
            viewer.text_is("still here")
            assert not any(isinstance(event, Reset) for event in viewer.events)
            assert not viewer.view.ended


@pytest.mark.parametrize(("setting", "refusing", "usual"), REFUSALS)
def test_a_redis_that_refuses_writes_loses_no_worker(setting: str, refusing: int, usual: int) -> None:
    """It answers, but nobody can renew a lease: the gateway is not ready, and judges none."""
    with RedisProcess() as server, Writer(server.url, lease_ms=3000) as writer, server.client() as client:
        writer.open()
        with running(server.url, lease_seconds=1000.0) as gateway, watch(gateway) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            assert writer.renew().verdict == "applied"
            let_it_judge(gateway, 3.0)
            eventually(lambda: gateway.hub._audit.judges)
            client.config_set(setting, refusing)
            eventually(lambda: not gateway.hub.ready)
            assert gateway.get("/readyz").status_code == 503
            assert gateway.get("/tasks/job-1/status").status_code == 200, "what can be read is told"
            assert gateway.post("/tasks/job-1/cancel").status_code == 503
            since = monotonic()
            eventually(lambda: monotonic() - since > 3.2)
            client.config_set(setting, usual)
            eventually(lambda: gateway.hub.ready)
            # Its lease is over; all that the worker has is the time that the gateway waits.
            writer.text("still here")
            viewer.text_is("still here")
            assert not any(isinstance(event, Reset) for event in viewer.events)
            assert not viewer.view.ended


def test_one_lease_that_can_not_be_ended_keeps_no_other_from_it(
    redis_url: str, redis_client: redis.Redis, expected_errors: list[str]
) -> None:
    """A log that Redis refuses to extend is reported; the task after it in the same round still ends."""
    expected_errors.append("can't be ended")
    with Writer(redis_url, "a-bad", lease_ms=1) as bad, Writer(redis_url, "b-good", lease_ms=1) as good:
        with running(redis_url, lease_seconds=1000.0) as gateway:
            bad.open()
            good.open()
            with watch(gateway, "a-bad") as one, watch(gateway, "b-good") as other:
                one.until(lambda v: len(v.frames) == 1)
                other.until(lambda v: len(v.frames) == 1)
                # The log becomes a key of another type: XADD fails, what is in memory stays.
                redis_client.delete(bad.keys.log("a-bad"))
                redis_client.set(bad.keys.log("a-bad"), "no stream", ex=60)
                let_it_judge(gateway, 0.5)
                other.to_end()
            assert other.view.state == "failed"
            bad.forget()


def test_a_hash_that_becomes_another_s_keeps_no_other_from_being_compared(
    redis_url: str, redis_client: redis.Redis, expected_errors: list[str]
) -> None:
    """Also where its task was followed before, and so is compared together with all others."""
    expected_errors.append("can't be read")
    with Writer(redis_url, "a-bad") as bad, Writer(redis_url, "b-good") as good:
        bad.open()
        good.open()
        with running(redis_url) as gateway, watch(gateway, "a-bad") as one, watch(gateway, "b-good") as other:
            for viewer in (one, other):
                viewer.until(lambda v: len(v.frames) == 1)
            redis_client.set(bad.keys.task("a-bad"), "no hash", ex=60)
            eventually(lambda: gateway.get("/tasks/a-bad/status").status_code == 500)
            good.elsewhere = True
            good.text("never heard")
            other.text_is("never heard")
            wait_for_rounds(redis_client, 3)
            assert gateway.hub.ready
            bad.forget()


def test_a_cluster_of_one_server_is_like_any_other() -> None:
    """It refuses questions about several tasks in one command, though it has them all."""
    with RedisProcess(options=["--cluster-enabled", "yes"]) as server, server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: client.cluster("INFO")["cluster_state"] == "ok")
        with Writer(server.url, "job-1") as one, Writer(server.url, "job-2") as other:
            one.open()
            other.open()
            with running(server.url) as gateway, watch(gateway) as viewer, watch(gateway, "job-2") as more:
                for each in (viewer, more):
                    each.until(lambda v: len(v.frames) == 1)
                wait_for_rounds(client, 2)
                assert gateway.hub.ready
                one.elsewhere = True
                one.text("never heard")
                viewer.text_is("never heard")
