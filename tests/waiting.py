"""Waiting for conditions. No test sleeps: it says what must become true, and for how long to hope."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

DEADLINE_SECONDS = 30.0
"""Who waits so long hangs, also on a slow and busy machine; a test that passes never does."""
_INTERVAL_SECONDS = 0.01


class _Watch:
    """The last thing a predicate said, and the verdict when time is up."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self.last: object = None

    def expired(self) -> bool:
        return time.monotonic() > self._end

    def verdict(self) -> AssertionError:
        said = f"{self.last}" if isinstance(self.last, AssertionError) else f"{self.last!r}"
        return AssertionError(f"not true within {self._timeout:g} s; the last value was: {said}")


def eventually(predicate: Callable[[], T], *, timeout: float = DEADLINE_SECONDS) -> T:
    """Poll until `predicate` returns something true, and return that.

    An `assert` that fails inside it counts as "not yet". Raises AssertionError with the last value.
    """
    watch = _Watch(timeout)
    while True:
        # Looked at before the predicate: who was put to sleep past the end still looks once after it.
        expired = watch.expired()
        try:
            value = predicate()
            watch.last = value
            if value:
                return value
        except AssertionError as error:
            watch.last = error
        if expired:
            raise watch.verdict()
        time.sleep(_INTERVAL_SECONDS)


@overload
async def eventually_async(
    predicate: Callable[[], Awaitable[T]], *, timeout: float = DEADLINE_SECONDS
) -> T: ...


@overload
async def eventually_async(predicate: Callable[[], T], *, timeout: float = DEADLINE_SECONDS) -> T: ...


async def eventually_async(predicate: Callable[[], Any], *, timeout: float = DEADLINE_SECONDS) -> Any:
    """Like `eventually`, for coroutines; the predicate may be a plain function or an async one."""
    watch = _Watch(timeout)
    while True:
        expired = watch.expired()
        try:
            value = predicate()
            if inspect.isawaitable(value):
                value = await value
            watch.last = value
            if value:
                return value
        except AssertionError as error:
            watch.last = error
        if expired:
            raise watch.verdict()
        await asyncio.sleep(_INTERVAL_SECONDS)


async def go_on_for(seconds: float) -> None:
    """Let time pass in which something must not happen, or may as well have begun."""
    later = time.monotonic() + seconds
    await eventually_async(lambda: time.monotonic() > later)
