"""What /metrics says, and that it says the truth."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any

import httpx
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

import bridge
from bridge.codec import encode
from bridge.entries import Entry
from bridge.events import Chunk, Data, Event, Progress
from bridge.gateway.app import Gateway, create_app
from bridge.gateway.counts import DELAYS, Counts, Histogram
from bridge.gateway.delays import Delays
from bridge.gateway.hub import Hub
from bridge.gateway.limits import Connections, Gate
from bridge.gateway.metrics import Metrics
from bridge.settings import Settings
from tests.credentials import TICKET_KEY
from tests.gateway.running import Running, running
from tests.gateway.test_audit import NEVER
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.servers import free_port
from tests.waiting import DEADLINE_SECONDS, eventually

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    """All samples, by name and labels. A second one of the same name and labels is an error."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def entry(event: Event) -> Entry:
    """An event as it comes over the link."""
    return Entry.unread(1, 1, event.kind, encode(event))


class Scrape:
    """What there is at this moment. Over HTTP it may be a moment old."""

    def __init__(self, gateway: Running) -> None:
        self.text = gateway.inside(lambda: generate_latest(gateway.gateway.metrics.registry)).decode()
        self.samples = parse(self.text)

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[f"bridge_{name}", frozenset(labels.items())]

    def count(self, name: str) -> float:
        """How many a histogram has observed."""
        return self(f"{name}_bucket", le="+Inf")


def test_it_is_text_that_prometheus_reads(gateway: Running) -> None:
    """In its format, never cached; each name begins with ours, but for those that all processes share."""
    answer = gateway.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    for family in text_string_to_metric_families(answer.text):
        assert family.name.startswith(("bridge_", "process_"))
        assert family.documentation
    info = {labels for name, labels in parse(answer.text) if name == "bridge_build_info"}
    assert ("version", bridge.__version__) in next(iter(info))


def test_names_keep_to_the_conventions(gateway: Running) -> None:
    """Counters end with _total, a unit stands behind the name and is a base unit."""
    for family in gateway.inside(lambda: list(gateway.gateway.metrics.registry.collect())):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert not name.removesuffix("_total").endswith(("_count", "_sum", "_bucket", "_total")), name
        assert not any(unit in name for unit in ("milli", "_ms", "kilo", "minutes")), name
        if family.type == "histogram":
            assert name.endswith("_seconds"), name


def test_streams_and_events(gateway: Running, writer: Writer) -> None:
    """What is open, how many follow each task, what came in and what went out: events and bytes."""
    writer.open()
    with watch(gateway) as one, watch(gateway) as other, watch(gateway, "another") as third:
        for viewer in (one, other):
            viewer.until(lambda v: len(v.frames) == 1)
        third.until(lambda v: b"retry" in v.body)
        writer.text("a", "b")
        writer.text("c")
        for viewer in (one, other):
            viewer.text_is("abc")
        now = Scrape(gateway)
        assert now("streams_open") == 3
        assert now("channels") == 2
        assert now("channel_followers_bucket", le="1.0") == 1
        assert now("channel_followers_bucket", le="2.0") == now.count("channel_followers") == 2
        assert now("channel_followers_gsum") == 3
        assert (now("messages_received_total"), now("events_received_total")) == (2, 3)
        assert now("events_sent_total") == 2 * 4
        # Every stream had its heartbeats, too, by now or a moment later.
        assert now("stream_sent_bytes_total") >= len(one.body) > 100
        assert 0 < now("channels_bytes") < now("channels_limit_bytes")
    eventually(lambda: Scrape(gateway)("streams_open") == 0)
    then = Scrape(gateway)
    assert then("events_sent_total") == 2 * 4, "what is over stays counted"
    assert then("stream_sent_bytes_total") >= now("stream_sent_bytes_total")
    assert then("streams_ended_total", reason="gone") == 3


def test_delays(redis_url: str, writer: Writer) -> None:
    """Live events are measured, by our clock and by that of Redis; nothing is where nobody reads."""
    writer.open()
    with running(redis_url) as gateway:
        with watch(gateway) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            assert Scrape(gateway).count("fan_out_seconds") == 0
            for number in range(1, 6):
                writer.progress(number / 10)
                viewer.until(lambda v: len(v.frames) == 1 + number)  # noqa: B023 (called at once)
            # It is measured after it was sent, and who has it may ask sooner than that.
            eventually(lambda: Scrape(gateway).count("fan_out_seconds") == 5)
            now = Scrape(gateway)
            assert now.count("fan_out_seconds") == now.count("delivery_seconds") == 5
            assert 0 < now("fan_out_seconds_sum") < 5
            assert 0 <= now("delivery_seconds_sum") < 25
        eventually(lambda: gateway.followers() == 0)
        writer.progress(0.9)
        eventually(lambda: Scrape(gateway)("events_received_total") == 6)
        assert Scrape(gateway).count("fan_out_seconds") == 5


def test_heals_and_resets(redis_url: str, writer: Writer) -> None:
    """A message that was lost is one heal, whatever it took; a log that was replaced a reset for each."""
    writer.open()
    with running(redis_url, **NEVER) as gateway, watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        writer.text("lost ")
        writer.elsewhere = False
        writer.text("found")
        viewer.text_is("lost found")
        now = Scrape(gateway)
        assert now("heals_total", reason="gap") == 1
        assert now.count("fan_out_seconds") == 0, "what was read from the log is no live event"
        assert now("streams_reset_total") == 0
        writer.restore(Chunk("all anew"))
        viewer.text_is("all anew")
        now = Scrape(gateway)
        assert now("heals_total", reason="epoch") == 1
        assert now("streams_reset_total") == 1
        heals = {labels: value for (name, labels), value in now.samples.items() if "heals_total" in name}
        assert sum(heals.values()) == 2


def test_a_lost_last_message_is_a_heal(gateway: Running, writer: Writer) -> None:
    """That the audit found."""
    writer.open()
    with watch(gateway) as viewer:
        viewer.until(lambda v: len(v.frames) == 1)
        writer.elsewhere = True
        writer.text("never heard")
        viewer.text_is("never heard")
    assert Scrape(gateway)("heals_total", reason="audit") == 1


def test_what_is_no_heal(gateway: Running, writer: Writer) -> None:
    """Joining, a task that begins while it is waited for, a late reader and a retry."""
    with watch(gateway) as viewer:
        viewer.head()
        writer.open()
        writer.text("one")
        viewer.text_is("one")
        with watch(gateway) as late:
            late.text_is("one")
        writer.open()
        writer.text("two")
        viewer.text_is("two")
    now = Scrape(gateway)
    assert {value for (name, _), value in now.samples.items() if "heals_total" in name} == {0}


def test_a_lost_worker(redis_url: str) -> None:
    """Is counted by the gateway that ended its task."""
    with Writer(redis_url, lease_ms=200) as writer, running(redis_url, lease_seconds=0.5) as gateway:
        writer.open()
        with watch(gateway) as viewer:
            viewer.to_end()
        assert Scrape(gateway)("leases_lost_total") == 1


def test_the_link(redis_url: str, redis_client: redis.Redis, writer: Writer) -> None:
    """Up, with the time that the probe takes; each time it drops is counted, and being ready is said."""
    with running(redis_url) as gateway:
        now = Scrape(gateway)
        assert (now("link_up"), now("ready"), now("link_drops_total")) == (1, 1, 0)
        assert 0 < now("link_lag_seconds") < 5
        redis_client.client_kill_filter(_type="pubsub")
        eventually(lambda: Scrape(gateway)("link_drops_total") == 1)
        eventually(lambda: (now := Scrape(gateway))("link_up") == 1 == now("ready"))


def test_without_redis() -> None:
    """It answers, and says that nothing is well."""
    with running(f"redis://127.0.0.1:{free_port()}/0", ready=False) as gateway:
        assert gateway.get("/metrics").status_code == 200
        now = Scrape(gateway)
        assert (now("link_up"), now("ready")) == (0, 0)
        assert ("bridge_link_lag_seconds", frozenset[tuple[str, str]]()) not in now.samples


def test_a_silent_link_lags(redis_url: str) -> None:
    """While a probe isn't back, the lag is how long it has been gone."""
    with running(redis_url) as gateway:
        audit = gateway.hub._audit

        def overdue() -> float | None:
            audit._sent_at = monotonic() - 3
            return audit.lag

        lag = gateway.inside(overdue)
        assert lag is not None
        assert lag >= 3


def test_polls_by_answer(gateway: Running, writer: Writer) -> None:
    """Under every path of theirs, and cancels beside them; what isn't about a task is not among them."""
    writer.open()
    tag = gateway.get("/tasks/job-1/status").headers["etag"]
    for path, headers in (
        ("/status/job-1", {}),
        ("/status?task_id=job-1", {"If-None-Match": tag}),
        ("/tasks/nobody/status", {}),
        ("/tasks/job-1/status?after=x", {}),
        ("/healthz", {}),
    ):
        gateway.get(path, headers=headers)
    gateway.post("/tasks/job-1/cancel")
    now = Scrape(gateway)
    assert {
        (dict(labels)["endpoint"], dict(labels)["code"]): value
        for (name, labels), value in now.samples.items()
        if name == "bridge_requests_total"
    } == {
        ("status", "200"): 2,
        ("status", "304"): 1,
        ("status", "404"): 1,
        ("status", "400"): 1,
        ("cancel", "200"): 1,
    }


def test_a_bug_is_a_500(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """Although the answer to it is made further out."""
    expected_errors.append("Exception in ASGI application")

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bridge.gateway.status.parse_wait", broken)
    assert gateway.get("/tasks/job-1/status").status_code == 500
    assert Scrape(gateway)("requests_total", endpoint="status", code="500") == 1


def test_refusals_by_limit(redis_url: str, writer: Writer) -> None:
    """All limits are there; those that were hit have counted."""
    writer.open()
    limits: dict[str, Any] = {"unlimited_addresses": "", "max_streams": 1, "max_connections": 5}
    with running(redis_url, **limits) as gateway, watch(gateway) as inside:
        inside.until(lambda v: len(v.frames) == 1)
        with watch(gateway) as refused:
            refused.to_end()
        with ExitStack() as others:
            for _ in range(6):
                with suppress(ConnectionError):  # one is refused, perhaps while it is made
                    others.enter_context(socket.create_connection(gateway.address)).sendall(b"GET ")
            eventually(lambda: gateway.inside(lambda: gateway.gateway.connections.refused))
        eventually(lambda: gateway.connections() == 1)
        now = Scrape(gateway)
        assert now("refusals_total", limit="max_streams") == 1
        assert now("refusals_total", limit="max_connections") >= 1
        assert now("refusals_total", limit="polls_per_second") == 0
        assert now("streams_ended_total", reason="refused") == 1


def test_it_names_nobody(redis_url: str) -> None:
    """No task, user or address, whatever was asked for; and so it needs no credentials."""
    with Writer(redis_url, "secret-task") as writer:
        writer.create(owner="somebody")
        writer.open()
        with running(redis_url, auth="jwt", ticket_keys=TICKET_KEY) as gateway:
            assert gateway.get("/tasks/secret-task/status").status_code == 401
            assert gateway.get("/tasks/<script>/status").status_code == 400
            now = Scrape(gateway)
            assert gateway.get("/metrics").status_code == 200
    assert now("requests_total", endpoint="status", code="401") == 1
    for word in ("secret-task", "somebody", "<script", "127.0.0.1"):
        assert word not in now.text


def test_while_draining(redis_url: str, writer: Writer) -> None:
    """Who has a connection still gets an answer, and reads that the gateway isn't ready."""
    writer.open()
    with (
        running(redis_url, drain_seconds=1000.0) as gateway,
        watch(gateway) as first,
        watch(gateway) as second,
        httpx.Client(base_url=gateway.url, timeout=DEADLINE_SECONDS) as client,
    ):
        for viewer in (first, second):
            viewer.until(lambda v: len(v.frames) == 1)
        assert client.get("/healthz").status_code == 200
        gateway.begin_to_stop()
        eventually(lambda: gateway.hub.draining)
        # The one answer that this connection still gets.
        assert parse(client.get("/metrics").text)["bridge_ready", frozenset()] == 0


@pytest.mark.parametrize("base_path", ["", "/live"])
async def test_two_gateways_in_one_process(base_path: str) -> None:
    """Below a path, mounted, each with its own numbers, and nothing in the registry that all share."""
    before = {metric.name for metric in REGISTRY.collect()}
    settings = Settings(redis_url="redis://127.0.0.1:1/0", base_path=base_path)
    one, other = Gateway(settings), create_app(settings)
    app = Starlette(routes=[Mount("/one", one), Mount("/other", other)])
    transport = httpx.ASGITransport(app=app)
    async with (
        one.lifespan(),
        other.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        assert (await client.get(f"/one{base_path}/tasks/a/status?after=x")).status_code == 400
        asked = frozenset({("endpoint", "status"), ("code", "400")})
        for name, number in (("one", 1), ("other", None)):
            answer = await client.get(f"/{name}{base_path}/metrics")
            assert answer.status_code == 200
            assert parse(answer.text).get(("bridge_requests_total", asked)) == number
    assert {metric.name for metric in REGISTRY.collect()} == before


async def test_what_was_counted_stays_when_it_is_started_again() -> None:
    """An app that enters the lifespan a second time has the same counters."""
    gateway = Gateway(Settings(redis_url="redis://127.0.0.1:1/0"))
    transport = httpx.ASGITransport(app=gateway)
    for number in (1, 2):
        async with gateway.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            await client.get("/tasks/a/status?after=x")
        text = generate_latest(gateway.metrics.registry).decode()
        assert f'bridge_requests_total{{code="400",endpoint="status"}} {number}.0' in text


async def test_asking_too_often_costs_little() -> None:
    """Who asks again at once gets the same; after 19 times as long as it took to make it is made anew."""
    settings = Settings()
    hub, looked = Hub(settings), list[int]()

    def look() -> Hub:
        looked.append(1)
        return hub

    times = iter([100.0, 101.0, 101.5, 119.9, 120.0, 120.5])
    metrics = Metrics(look, Gate(settings), Connections(settings), clock=lambda: next(times))
    request = Request({"type": "http"})
    made = []
    for _ in range(4):
        assert b"bridge_ready" in (await metrics.answer(hub, request)).body
        made.append(len(looked))
    assert made == [1, 1, 1, 2]


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_up_to_its_bounds(values: list[float]) -> None:
    """Each value once, with the first bound that isn't less."""
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    for index, bound in enumerate(DELAYS):
        assert sum(histogram.numbers[: index + 1]) == len([value for value in values if value <= bound])
    assert sum(histogram.numbers) == len(values)
    assert histogram.sum == pytest.approx(sum(values))


async def test_one_measurement_per_turn() -> None:
    """Of many messages that come at once the first is measured, behind all that they made the loop do."""
    counts, order = Counts(), list[str]()
    loop = asyncio.get_running_loop()

    def redis_ms(_: float) -> float:
        order.append("measured")
        return 5000.0

    delays = Delays(counts, redis_ms)
    entries: Sequence[Entry] = [
        entry(Chunk(',"at":7}')),
        entry(Data("n", {"at": 7}, at=4000)),
    ]
    loop.call_soon(order.append, "a follower")
    for _ in range(3):
        delays.handed_out(loop.time() - 0.25, entries)
    await asyncio.sleep(0)
    assert order == ["a follower", "measured"]
    assert (sum(counts.fan_out.numbers), counts.delivery.sum) == (1, 1.0)
    delays.handed_out(loop.time(), entries[:1])
    await asyncio.sleep(0)
    assert (sum(counts.fan_out.numbers), sum(counts.delivery.numbers)) == (2, 1)


async def test_a_clock_that_runs_behind_gives_no_negative_delay() -> None:
    """What can't be is told as nothing, not as less."""
    counts = Counts()
    delays = Delays(counts, lambda _: 3000.0)
    delays.handed_out(0.0, [entry(Progress(0.5, at=4000))])
    await asyncio.sleep(0)
    assert counts.delivery.sum == 0
