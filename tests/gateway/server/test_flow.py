"""What stands in for uvicorn's own and for asyncio's: the same, and smaller."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl

from bridge.gateway.server.flow import Flag, Flow, Pipeline


@given(st.lists(st.sampled_from(["set", "clear", "wait", "cancel", "turn"]), max_size=30))
def test_a_flag_is_an_event(steps: list[str]) -> None:
    """Whatever is done to both, the same ones go on at the same time."""

    async def play(made: Callable[[], Any]) -> list[object]:
        event, waiting, seen = made(), list[asyncio.Task[object]](), list[object]()
        for step in steps:
            match step:
                case "set" | "clear":
                    getattr(event, step)()
                case "wait":
                    waiting.append(asyncio.create_task(event.wait()))
                case "cancel" if waiting:
                    waiting[-1].cancel()
                case "turn":
                    for _ in range(5):
                        await asyncio.sleep(0)
            seen.append((event.is_set(), [task.done() for task in waiting]))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return seen

    async def both() -> None:
        assert await play(Flag) == await play(asyncio.Event)

    asyncio.run(both())


def test_the_flow_has_all_that_uvicorns_has() -> None:
    """What a later uvicorn adds to it would not know of our parts."""
    public = {name for name in vars(FlowControl) if not name.startswith("_")}
    assert public <= set(vars(Flow))


def test_a_pipeline_is_first_in_first_out() -> None:
    """As uvicorn uses it: put in on the left, taken out on the right."""
    ours, theirs = Pipeline(), deque[int]()
    for each in (ours, theirs):
        for number in range(5):
            each.appendleft(number)
    assert [ours.pop() for _ in range(5)] == [theirs.pop() for _ in range(5)]
    assert not ours


def test_what_nobody_waits_in_is_small() -> None:
    """An event and a deque of the standard library take ten times as much."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [(Flag(), Pipeline()) for _ in range(1000)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(kept) == 1000
    assert taken < 250_000
