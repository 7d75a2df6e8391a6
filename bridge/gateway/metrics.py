"""`GET /metrics`: what a gateway does, for Prometheus.

Rules
-----
1. A registry of its own per gateway, and nothing global: several gateways may live in one process.
2. Nothing is done for it but when somebody asks: plain numbers are read from `counts.py`, and what can be
   seen by looking is counted at that moment, once per channel and per stream. With many of them that takes
   milliseconds in which no event goes out, so who asks too often gets the last answer again (`_SHARE`).
3. Labels are of short, fixed lists. No task, user or address ever appears, so no credentials are needed.
4. A series with a fixed list is there from the beginning, with 0: one that begins with 1 never rises.

Names and units follow https://prometheus.io/docs/practices/naming/, the format is its text format 0.0.4.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Awaitable, Callable, Iterator
from itertools import accumulate
from time import monotonic
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge import __version__
from bridge.gateway.answers import NOSNIFF
from bridge.gateway.counts import Counts, Histogram
from bridge.gateway.hub import Hub
from bridge.gateway.limits import LIMITS, Connections, Gate

_HEADERS: Final = {
    "content-type": "text/plain; version=0.0.4; charset=utf-8",
    "cache-control": "no-store",
    **NOSNIFF,
}
_SHARE: Final = 20
"""At most one part in so many of the gateway's time goes into this, however often it is asked."""
_CROWDS: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0)
"""The bounds of followers per channel."""


class Metrics:
    """The metrics of one gateway. `hub` tells which is its hub now: it changes when it is started again."""

    def __init__(
        self,
        hub: Callable[[], Hub],
        gate: Gate,
        connections: Connections,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._clock = clock
        self._text = b""
        self._good_until = -math.inf
        self._hub = hub
        self._gate = gate
        self._connections = connections
        self.registry = CollectorRegistry()
        self.registry.register(self)
        # Processor time, memory and open files of the process, under names that all programs share.
        ProcessCollector(registry=self.registry)

    async def answer(self, _: Hub, __: Request) -> Response:
        """All of them as text."""
        begun = self._clock()
        if begun >= self._good_until:
            self._text = generate_latest(self.registry)
            now = self._clock()
            self._good_until = now + (now - begun) * (_SHARE - 1)
        return Response(self._text, headers=_HEADERS)

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        hub = self._hub()
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("bridge_build", "The version of the bridge and of Python.", build)
        yield from _health(hub)
        yield from _streams(hub.counts)
        yield from _channels(hub)
        yield from _delays(hub.counts)
        yield from _troubles(hub.counts)
        refused = {(limit,): self._gate.refused[limit] + self._connections.refused[limit] for limit in LIMITS}
        yield _counter("bridge_refusals", "Requests and connections over a limit.", refused, "limit")
        asked = {(what, str(status)): number for (what, status), number in hub.counts.answers.items()}
        yield _counter("bridge_requests", "Answers to requests about a task.", asked, "endpoint", "code")


class CountAnswers:
    """Counts what an endpoint answers, by HTTP status. Not for streams: it stands in the way of each send."""

    def __init__(self, app: ASGIApp, counts: Counts, what: str) -> None:
        self._app = app
        self._counts = counts
        self._what = what

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the endpoint does."""

        def counting(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                self._counts.answers[self._what, message["status"]] += 1
            return send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            self._counts.answers[self._what, 500] += 1  # the answer to it is made further out
            raise


def _health(hub: Hub) -> Iterator[Metric]:
    up, lag = hub.link
    yield _gauge("bridge_ready", "Whether live events are known to arrive: what /readyz says.", hub.ready)
    yield _gauge("bridge_link_up", "Whether the pub/sub connection to Redis is up.", up)
    text = "How long the last probe took from here through Redis and back, or the one under way, if longer."
    yield _gauge("bridge_link_lag_seconds", text, *(() if lag is None else (lag,)))
    drops = {(): hub.counts.link_drops}
    yield _counter("bridge_link_drops", "How often the pub/sub connection was lost.", drops)


def _streams(counts: Counts) -> Iterator[Metric]:
    yield _gauge("bridge_streams_open", "Streams that are open.", len(counts.open))
    ended = {(why,): number for why, number in counts.streams.items()}
    yield _counter("bridge_streams_ended", "Streams that are over.", ended, "reason")
    text = "Streams told to begin anew, because the log that they followed was replaced."
    yield _counter("bridge_streams_reset", text, {(): counts.resets})
    text = "Events that came over the link."
    yield _counter("bridge_events_received", text, {(): counts.events_received})
    text = "Messages that came over the link, each with the events of one batch."
    yield _counter("bridge_messages_received", text, {(): counts.messages_received})
    text = "Events of logs that streams were brought past, merged or not."
    yield _counter("bridge_events_sent", text, {(): counts.events_sent})
    text = "Bytes of streams' bodies; of live events with HTTP's framing."
    yield _counter("bridge_stream_sent_bytes", text, {(): counts.bytes_sent})


def _channels(hub: Hub) -> Iterator[Metric]:
    channels = hub.channels
    yield _gauge("bridge_channels", "Tasks held in memory.", len(channels))
    yield _gauge("bridge_channels_bytes", "About how much memory they take.", hub.channels_bytes)
    text = "How much they may take: the setting channels_bytes."
    yield _gauge("bridge_channels_limit_bytes", text, hub.settings.channels_bytes)
    crowds = Histogram(_CROWDS)
    for channel in channels:
        crowds.observe(len(channel.followers))
    text = "Open streams and waiting polls per task that is held, at this moment."
    yield GaugeHistogramMetricFamily(
        "bridge_channel_followers", text, buckets=_buckets(crowds), gsum_value=crowds.sum
    )


def _delays(counts: Counts) -> Iterator[Metric]:
    for name, measured, text in (
        ("fan_out", counts.fan_out, "From a message's arrival over the link until all had it."),
        ("delivery", counts.delivery, "From an event's time in Redis until all had it."),
    ):
        yield HistogramMetricFamily(
            f"bridge_{name}_seconds", text, buckets=_buckets(measured), sum_value=measured.sum
        )


def _troubles(counts: Counts) -> Iterator[Metric]:
    heals = {(why,): number for why, number in counts.heals.items()}
    text = "Reads of a log because something had not come, or not as it should."
    yield _counter("bridge_heals", text, heals, "reason")
    text = "Tasks that this gateway ended as worker_lost."
    yield _counter("bridge_leases_lost", text, {(): counts.leases_lost})


def _gauge(name: str, text: str, *values: float) -> Metric:
    """One value, or none."""
    family = GaugeMetricFamily(name, text)
    for value in values:
        family.add_metric((), float(value))
    return family


def _counter(name: str, text: str, numbers: dict[Any, int], *labels: str) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in numbers.items():
        family.add_metric(values, number)
    return family


def _buckets(measured: Histogram) -> list[tuple[str, float]]:
    """As Prometheus has them: each holds all that are smaller, too."""
    names = [*map(str, measured.bounds), "+Inf"]
    return list(zip(names, accumulate(measured.numbers), strict=True))
