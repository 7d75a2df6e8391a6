"""A worker's body as it is read: what comes goes on to Redis, by rules 3 to 5 of `ingest.py`."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Any, Final

from starlette.types import Receive

from bridge.errors import BridgeError, InvalidInput
from bridge.gateway.hub import Hub
from bridge.gateway.reports.bodies import Body, OneValue
from bridge.gateway.reports.delivery import Delivery
from bridge.store.scripts import Answer

_LOOK_SECONDS: Final = 1.0
"""So often a silent body looks whether the gateway goes away."""
_LEASE_PART: Final = 3
"""A lease is renewed after this part of it."""


class Interrupted(BridgeError):
    """A body came to no end."""


class ClientGone(Interrupted):
    """There is nobody to answer to."""


class TooSlow(Interrupted):
    """Nothing came for too long."""


class GoingAway(Interrupted):
    """The gateway stops."""


class CancelRequested(Interrupted):
    """The task is to stop, and the worker wants to be interrupted by that."""


class Reading:
    """One body of events, being read and delivered."""

    def __init__(
        self, hub: Hub, body: Body, delivery: Delivery, receive: Receive, *, until_cancel: bool
    ) -> None:
        self._hub = hub
        self._body = body
        self._delivery = delivery
        self._receive = receive
        self._until_cancel = until_cancel
        self._began = self._heard_at = monotonic()
        self._sent_at = -math.inf

    async def run(self) -> Answer:
        """Until the body's end. Raises what stands in its way: `InvalidInput`, `Interrupted`, and what
        `Delivery.send` raises.
        """
        try:
            while await self._step():
                pass
        except (InvalidInput, ClientGone, TooSlow, GoingAway):
            if self._delivery.waiting:
                await self._delivery.send()
            raise
        return await self._send(whole=True)

    async def _step(self) -> bool:
        """Send what is due, or read; False after the end."""
        due = self._due()
        if due <= monotonic():
            await self._send()
            return True
        data, more = await read(self._hub, self._receive, self._heard_at, due)
        if data:
            self._heard_at = monotonic()
        if not self._delivery.done:  # else it was there before, and the client only has to be heard out
            for unit in self._body.feed(data):
                self._delivery.add(unit)
            if not more:
                for unit in self._body.finish():
                    self._delivery.add(unit)
        if more and self._hub.draining:
            raise GoingAway
        return more

    async def _send(self, *, whole: bool = False) -> Answer:
        answer = await self._delivery.send(whole=whole)
        self._sent_at = monotonic()
        if self._until_cancel and not whole and answer.cancel_requested:
            raise CancelRequested
        return answer

    def _due(self) -> float:
        """When something is to be sent, by the monotonic clock."""
        settings, delivery = self._hub.settings, self._delivery
        if delivery.done:
            return math.inf
        flush = settings.flush_milliseconds / 1000
        if delivery.answer is None and not delivery.waiting:
            return self._began + flush  # the task begins with the request, whenever something comes
        due = math.inf
        if delivery.waiting:
            due = -math.inf if delivery.waiting >= settings.flush_bytes else self._sent_at + flush
        if delivery.answer is not None and delivery.answer.lease_ms:
            due = min(due, self._sent_at + delivery.answer.lease_ms / 1000 / _LEASE_PART)
        if self._until_cancel:
            due = min(due, self._sent_at + settings.cancel_check_seconds)
        return due


async def read(hub: Hub, receive: Receive, heard_at: float, until: float = math.inf) -> tuple[bytes, bool]:
    """What has come of a body, and whether more will; nothing, when nothing has until then.

    Raises `ClientGone`, and `TooSlow` when nothing has come since `heard_at` for too long.
    """
    now = monotonic()
    over = heard_at + hub.settings.report_idle_seconds
    if now >= over:
        raise TooSlow
    try:
        async with asyncio.timeout(min(until, over, now + _LOOK_SECONDS) - now):
            message = await receive()
    except TimeoutError:
        return b"", True
    if message["type"] != "http.request":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def read_value(hub: Hub, receive: Receive, body: OneValue) -> Any:
    """The JSON value of a body; None of an empty one. Raises as `read`, and `InvalidInput`."""
    heard_at, more = monotonic(), True
    while more:
        data, more = await read(hub, receive, heard_at)
        if data:
            heard_at = monotonic()
        body.feed(data)
    return body.value()
