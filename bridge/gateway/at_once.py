"""Coroutines that never wait, run where nothing may."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it returns or raises. It must not wait for anything: one that does is closed, and is a bug
    (`RuntimeError`).
    """
    try:
        coroutine.send(None)
    except StopIteration as over:
        result: T = over.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits, where nothing may")
