"""Several providers as one: when one fails before it has said anything, the next is asked.

Rules
-----
1. **Before the first chunk** a provider that fails is passed over, and whoever watches is told in the data
   `failover`: which provider, with which code, nothing of its own words. After the first chunk never: a
   silent second try would show two answers. What was said stays, and the failure is the end.
2. What the content filter of one provider held back is not offered to the next. That is an answer.
3. **Pauses.** A provider that said when to come back isn't asked before that, in later requests either, as
   long as the chain is the same object. When all have failed and it may pass by itself, the chain waits and
   begins anew: as long as the soonest of them said, or a growing while where none did; in all at most
   `patience_seconds`. What would take longer fails at once, with the last failure that may pass, and its
   `retry_after_seconds`.
4. A provider that raises has failed, too; what it raised goes to the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bridge.errors import InvalidInput
from bridge.events import Chunk, Data, End, Event
from bridge.sources.llm.errors import (
    CONTENT_FILTER,
    INTERRUPTED,
    OVERLOADED,
    RATE_LIMITED,
    TIMEOUT,
    UNAVAILABLE,
    Failure,
)
from bridge.sources.llm.request import Request

log = logging.getLogger(__name__)

FAILOVER: Final = "failover"
"""The name of the data that says who was passed over: ``[{"provider", "code"}]``, the first first."""
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 10.0
LONGEST_REST_SECONDS: Final = 3600.0
"""A provider is asked again after that, whatever it said."""
MAX_NOTES: Final = 50
"""Of those who were passed over the latest are told."""

_now, _sleep = time.monotonic, asyncio.sleep
"""Time, in one place: a test has a faster one."""

_MAY_PASS: Final = frozenset((RATE_LIMITED, OVERLOADED, TIMEOUT, UNAVAILABLE))


class Model(Protocol):
    """What answers requests: a provider, a chain, or something of your own.

    `events` yields chunks and data, and an `End` last; leaving it early must stop the work behind it.
    """

    @property
    def name(self) -> str:
        """By which whoever watches knows it."""

    def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A model that can't stream: `ask` is a coroutine function that returns the whole text, which is one
    chunk.

        Whole("ours", ask=lambda request: our_client.complete(request.messages[-1]["content"]))

    What it raises is a failure: `timeout` for a TimeoutError and after `total_seconds`, else `unavailable`.
    """

    name: str
    ask: Callable[[Request], Awaitable[str]]
    total_seconds: float = 900.0

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """Ask, and yield the answer."""
        try:
            async with asyncio.timeout(self.total_seconds):
                text = await self.ask(request)
        except Exception as error:
            yield _raised(self.name, error, TIMEOUT if isinstance(error, TimeoutError) else UNAVAILABLE)
            return
        if text:
            yield Chunk(text)
        yield End("succeeded", result={"provider": self.name, "finish_reason": "stop"})


class FailoverChain:
    """Providers in the order in which they are asked. Use one object for all requests of a process.

    Raises `InvalidInput` without any provider.
    """

    def __init__(
        self, models: Sequence[Model], *, patience_seconds: float = 30.0, name: str = "chain"
    ) -> None:
        self.name = name
        self._models = list(models)
        self._patience = patience_seconds
        self._rests = [0.0] * len(self._models)
        """Until when each wants to be left alone (monotonic clock). Threads may share it."""
        if not self._models:
            raise InvalidInput("a chain needs at least one provider")

    def __repr__(self) -> str:
        """Names alone."""
        return f"FailoverChain({', '.join(model.name for model in self._models)})"

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """Ask one after the other; yield the first answer that begins, to its end. See `Provider.events`."""
        notes: list[dict[str, str]] = []
        patience, pause = self._patience, FIRST_PAUSE_SECONDS
        while True:
            failures: list[End] = []
            for place, model in enumerate(self._models):
                begun, end = False, self._resting(place)
                if end is None:
                    async with aclosing(_guarded(model, request)) as events:
                        async for event in events:
                            if isinstance(event, End):
                                end = event
                                break
                            begun = begun or _is_answer(event)
                            yield event
                if end is None or end.state != "failed" or begun or _code(end) == CONTENT_FILTER:
                    yield end or End("succeeded")
                    return
                self._note_rest(place, end)
                failures.append(end)
                notes.append({"provider": model.name, "code": _code(end)})
                yield Data(FAILOVER, notes[-MAX_NOTES:])
            seconds = self._until_next(failures, pause)
            if seconds is None or seconds > patience:
                yield _last_that_may_pass(failures)
                return
            await _sleep(seconds)
            patience, pause = patience - seconds, min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _resting(self, place: int) -> End | None:
        """The failure of a provider that wants to be left alone for now."""
        seconds = self._rests[place] - _now()
        if seconds <= 0:
            return None
        failure = Failure(RATE_LIMITED, "")
        result = {"provider": self._models[place].name, "retry_after_seconds": round(seconds, 3)}
        return End("failed", failure.error, result)

    def _note_rest(self, place: int, end: End) -> None:
        if (seconds := _retry_after(end)) is not None:
            self._rests[place] = max(self._rests[place], _now() + min(seconds, LONGEST_REST_SECONDS))

    def _until_next(self, failures: list[End], pause: float) -> float | None:
        """When another round makes sense, in seconds; None for never."""
        waits = [
            # Some say "at once" for ever.
            pause * random.uniform(0.5, 1) if (asked := _retry_after(end)) is None else max(asked, pause / 10)
            for end in failures
            if _code(end) in _MAY_PASS
        ]
        return min(waits, default=None)


async def _guarded(model: Model, request: Request) -> AsyncGenerator[Event, None]:
    """The model's events; what it raises becomes its failure."""
    begun = False
    try:
        async with aclosing(model.events(request)) as events:
            async for event in events:
                begun = begun or _is_answer(event)
                yield event
    except Exception as error:
        yield _raised(model.name, error, INTERRUPTED if begun else UNAVAILABLE)


def _raised(name: str, error: Exception, code: str) -> End:
    log.warning("%s failed: %s", name, code, exc_info=error)
    return End("failed", Failure(code, "").error, {"provider": name})


def _is_answer(event: Event) -> bool:
    """Whether it is a piece of an answer. That others were passed over is none, nor is a status line."""
    return isinstance(event, Chunk) or (isinstance(event, Data) and event.name != FAILOVER)


def _code(end: End) -> str:
    return (end.error or {}).get("code", UNAVAILABLE)


def _retry_after(end: End) -> float | None:
    result: Any = end.result
    seconds = result.get("retry_after_seconds") if isinstance(result, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else None


def _last_that_may_pass(failures: list[End]) -> End:
    return next((end for end in reversed(failures) if _code(end) in _MAY_PASS), failures[-1])
