"""A worker by hand: it runs the scripts, as the pump does, when a test says so."""

from __future__ import annotations

from itertools import count
from typing import Any, Self

import redis

from bridge.codec import encode
from bridge.entries import Entry
from bridge.errors import StoreError
from bridge.events import Chunk, Data, End, Event, Progress
from bridge.settings import Settings
from bridge.store.connect import keys_for, sync_client
from bridge.store.log import _entry
from bridge.store.scripts import Answer, Call, Calls, run_pipeline, wire
from bridge.view import View
from tests.waiting import eventually

LIMIT = 16 * 1024 * 1024
_names = count(1)


class Writer:
    """One attempt after the other at one task. Every call is answered by Redis before it returns.

    lease_ms: 0 means no lease. `elsewhere`: publishes to a channel nobody hears, as if messages were lost.
    """

    def __init__(self, url: str, task_id: str = "job-1", *, lease_ms: int = 30_000) -> None:
        self.task_id = task_id
        self.lease_ms = lease_ms
        settings = Settings(redis_url=url)
        self.client: redis.Redis = sync_client(settings)
        self.keys = keys_for(settings, self.client)
        self.calls = Calls(self.keys)
        self.token = ""
        self.attempt = 0
        self.elsewhere = False
        self._batch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def create(self, owner: str = "") -> Answer:
        return self.run(self.calls.create(self.task_id, owner=owner, creation=f"c{next(_names)}"))

    def open(self) -> Self:
        """Begin an attempt."""
        self.token, self._batch = f"t{next(_names)}", 0
        answer = self.run(self.calls.open(self.task_id, token=self.token, lease_ms=self.lease_ms))
        self.attempt = answer.attempt
        return self

    def append(self, *events: Event) -> Answer:
        """The next batch."""
        self._batch += 1
        return self.run(
            self.calls.append(
                self.task_id, token=self.token, batch=self._batch, length=b"{}", limit=LIMIT,
                events=wire(events),
            )
        )  # fmt: skip

    def text(self, *texts: str, field: str = "text") -> Answer:
        """One batch of chunks."""
        return self.append(*[Chunk(text, field) for text in texts])

    def progress(self, fraction: float | None = None, message: str | None = None) -> Answer:
        return self.append(Progress(fraction, message))

    def data(self, name: str, value: Any) -> Answer:
        return self.append(Data(name, value))

    def renew(self) -> Answer:
        return self.run(self.calls.renew(self.task_id, token=self.token, lease_ms=self.lease_ms))

    def end(self, state: str = "succeeded", *events: Event, **more: Any) -> Answer:
        """Close the attempt."""
        self._batch += 1
        end = End(state, **more)
        return self.run(
            self.calls.close(
                self.task_id, token=self.token, batch=self._batch, length=b"{}", limit=LIMIT,
                state=state, code="", end=encode(end), events=wire(events),
            )
        )  # fmt: skip

    def cancel(self) -> Answer:
        return self.run(self.calls.cancel(self.task_id))

    def restore(self, *events: Event, known_epoch: int = 0) -> Answer:
        """The repair: the whole attempt anew, in a new epoch."""
        self._batch = 0
        return self.run(
            self.calls.restore(
                self.task_id, token=self.token, attempt=self.attempt, name=f"r{next(_names)}",
                reason="log_lost", batch=0, known_epoch=known_epoch, lease_ms=self.lease_ms, length=b"{}",
                cancel_requested=False, created_at=0, started_at=1, events=wire(events),
            )
        )  # fmt: skip

    def forget(self) -> None:
        """Redis loses the task."""
        self.client.delete(self.keys.task(self.task_id), self.keys.log(self.task_id))

    def run(self, call: Call) -> Answer:
        """Run a script; a Redis that is just starting is waited for."""
        if self.elsewhere:
            call = Call(call.script, call.keys, ("nobody", *call.args[1:]))

        def answered() -> Answer | None:
            try:
                (answer,) = run_pipeline(self.client, [call])
            except StoreError:
                return None
            assert isinstance(answer, Answer), answer
            return answer

        answer = eventually(answered)
        assert answer is not None
        return answer

    def view(self) -> View:
        """What the log says."""
        view = View(self.task_id)
        view.apply_all(self.log())
        return view

    def log(self) -> list[Entry]:
        """All that is in the log."""
        return [_entry(item) for item in self.client.xrange(self.keys.log(self.task_id)) or []]
