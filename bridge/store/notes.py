"""Notes: what a sink keeps in Redis of something that it does, so that another process can go on with it.

Rules
-----
1. **One at a time.** Who does something holds its lease. A process that dies lets it run out; one that ends
   gives it back. While Redis is away nobody can take it, so whoever holds it goes on.
2. **Written under the lease only.** A process that lost its lease (frozen for longer than it lasts, say) can
   note nothing, and is told with `LeaseLost`, also when who took over has given the lease back since.
3. **Everything ends**: leases by `lease_seconds`, notes by `live_ttl_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from types import TracebackType
from typing import Any, Self

from redis.exceptions import NoScriptError, RedisError

from bridge.errors import LeaseLost, StoreError
from bridge.settings import Settings
from bridge.store.connect import ANSWER_SECONDS, async_client, cancellable, keys_for
from bridge.store.scripts import Call, Calls, as_store_error

log = logging.getLogger(__name__)


class Notes:
    """Takes leases, and keeps notes. Close it, or use it in an `async with` block. Raises `StoreError`s."""

    def __init__(self, settings: Settings) -> None:
        """Doesn't connect yet. Raises `SettingsError` for a URL that can't be used."""
        self._client: Any = async_client(settings)  # redis-py leaves execute_command untyped
        self.keys = keys_for(settings, self._client)
        self.calls = Calls(self.keys)
        self.lease_seconds = settings.lease_seconds

    async def take(self, name: str) -> Hold | None:
        """The right to do what has this name, or None while another process has it."""
        hold = Hold(self, name)
        return hold if await hold.take() else None

    async def read(self, name: str) -> bytes:
        """The note of that name, whoever wrote it; empty where there is none."""
        return await self._ask(lambda: self._client.get(self.keys.note(name))) or b""

    async def write(self, name: str, note: bytes) -> None:
        """Note something that needs no lease, because the last word is as good as any other."""
        await self._ask(lambda: self._client.set(self.keys.note(name), note, px=self.keys.live_ttl_ms))

    async def run(self, call: Call) -> Any:
        """Run a script; its bare answer."""

        async def evaluate() -> Any:
            try:
                return await self._client.execute_command(*call.by_sha())
            except NoScriptError:
                return await self._client.execute_command(*call.by_source())

        return await self._ask(evaluate)

    async def _ask(self, ask: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                with cancellable():
                    return await ask()
        except (RedisError, OSError) as error:  # a timeout is an OSError
            raise as_store_error(error) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Hold:
    """A lease, and the note that belongs to it. It is renewed while its `async with` block lasts, and then
    given back.
    """

    def __init__(self, notes: Notes, name: str) -> None:
        self.note = b""
        """What was noted when the lease was taken."""
        self.lost = False
        self._notes = notes
        self._name = name
        self._token = secrets.token_hex(16)
        self._renewing: asyncio.Task[None] | None = None
        self._sure_until = 0.0
        """Until then, by the monotonic clock, nobody else can have the lease."""

    async def take(self) -> bool:
        """Whether it is ours now."""
        mine, self.note = await self._hold(self._notes.lease_seconds, take=True)
        return mine

    async def write(self, note: bytes) -> None:
        """Note how far it is. Raises `LeaseLost` when another process does it by now."""
        mine, _ = await self._hold(self._notes.lease_seconds, note)
        if not mine:
            self.lost = True
        self.check()

    def check(self) -> None:
        """Raise `LeaseLost` when it is known that another process has taken over. Asks nobody."""
        if self.lost:
            raise LeaseLost("another process has taken this over")

    async def confirm(self) -> None:
        """Raise `LeaseLost` when another process has taken over.

        Asks Redis where the lease may have run out without anybody here noticing: after a freeze everything
        that was due is done at once, before the next renewal has its answer.
        """
        self.check()  # once lost is lost
        if time.monotonic() >= self._sure_until:
            await self._prolong()
            self.check()

    async def _hold(
        self, seconds: float, note: bytes | None = None, *, take: bool = False
    ) -> tuple[bool, bytes]:
        asked = time.monotonic()
        call = self._notes.calls.hold(self._name, self._token, int(seconds * 1000), note, take=take)
        mine, kept = await self._notes.run(call)
        if mine:
            self._sure_until = asked + seconds
        return bool(mine), bytes(kept)

    async def _prolong(self) -> None:
        try:
            mine, _ = await self._hold(self._notes.lease_seconds)
            self.lost = not mine
        except StoreError as error:
            log.debug("a lease couldn't be renewed: %s", error)
            # Nobody can take it now, so it isn't asked for before each step.
            self._sure_until = time.monotonic() + self._notes.lease_seconds / 3

    async def _renew(self) -> None:
        while not self.lost:
            await asyncio.sleep(self._notes.lease_seconds / 3)
            await self._prolong()

    async def __aenter__(self) -> Self:
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._renewing is not None
        self._renewing.cancel()
        await asyncio.wait((self._renewing,))
        try:
            await self._hold(0)
        except StoreError:
            pass  # it runs out by itself
