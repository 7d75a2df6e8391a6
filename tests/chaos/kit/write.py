"""A worker process, ``python -m tests.chaos.kit.write``: a line of JSON on its standard input is an order, a
line on its standard output says that it was carried out. Orders for one task are carried out in turn, those
for several tasks side by side; `every` (seconds) spreads the events of a `write` over time.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import bridge
from bridge.events import Chunk, Data, Event, Progress
from tests.chaos.kit.record import Recorder
from tests.chaos.kit.script import events


class Run:
    """One run of one task."""

    def __init__(self, task_id: str, seed: str, file: Path) -> None:
        self.lock = asyncio.Lock()
        self._seed = seed
        self._record = Recorder(file)
        self._task = bridge.task(task_id).start()
        self._next = 1

    async def write(self, count: int, every: float = 0.0, **kind: Any) -> bool:
        """Report the next events; whether to go on."""
        go_on = True
        for event in events(self._seed, self._next, count, **kind):
            self._record.event(event)
            go_on = report(self._task, event)
            await asyncio.sleep(every)
        self._next += count
        return go_on

    async def end(self, state: str = "succeeded") -> bool:
        """End the task; whether Redis has confirmed that."""
        result = {"events": self._next - 1}
        if state == "succeeded":
            self._task.succeed(result)
            self._record.ended(state, result)
        else:
            self._task.fail("told_to", "It was told to fail.")
            self._record.ended(state, None)
        return await self._task.finish_async()


def report(task: bridge.Task, event: Event) -> bool:
    """Say an event with the worker's hook."""
    match event:
        case Chunk(text, field):
            return task.report_progress(text, field=field)
        case Progress(fraction, message):
            assert fraction is not None
            return task.report_progress(fraction, message=message)
        case Data(name, value):
            return task.report_progress(value, name=name)
        case _:
            raise ValueError(f"a worker doesn't report a {event.kind}")


async def obey(runs: dict[str, Run], lock: asyncio.Lock, order: dict[str, Any]) -> None:
    """Carry one order out, and say so."""
    number, do, task_id = order.pop("number"), order.pop("do"), order.pop("task")
    async with lock:
        answer: bool | None = True
        if do == "begin":
            runs[task_id] = Run(task_id, order["seed"], Path(order["file"]))
        elif do == "create":
            answer = await bridge.create_task_async(task_id)
        elif do == "write":
            answer = await runs[task_id].write(**order)
        elif do == "end":
            answer = await runs.pop(task_id).end(**order)
    print(json.dumps({"number": number, "answer": answer}), flush=True)


async def main() -> None:
    """Obey until the standard input is closed."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    runs: dict[str, Run] = {}
    locks: dict[str, asyncio.Lock] = {}
    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            order = json.loads(line)
            group.create_task(obey(runs, locks.setdefault(order["task"], asyncio.Lock()), order))


if __name__ == "__main__":
    asyncio.run(main())
