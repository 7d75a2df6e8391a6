"""What must hold at the end of every scenario, whatever was broken in it.

For every follower: its fold is the worker's own record byte for byte, its positions only grew between resets,
it got one `end` per epoch, no status that it can't live with, and no reset but for a reason that the scenario
gave. Every gateway's `/status` says the same. The log is one epoch without holes, with one `end`, the last.
Afterwards nothing is left over: no channel, subscription, asyncio task, descriptor or connection in the
gateways, no thread or descriptor in the workers, no key without a TTL in Redis; and all processes end in
order, without a bug in their logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bridge.settings import Settings
from bridge.store.keys import Keys
from bridge.view import View
from tests.chaos.kit.crowd import Crowd
from tests.chaos.kit.gateways import BAD_WORDS, GatewayProcess
from tests.chaos.kit.script import count_faults
from tests.chaos.kit.tally import Tally
from tests.chaos.kit.workers import WorkerProcess
from tests.followers import Follower
from tests.servers import RedisProcess, keys_without_ttl
from tests.waiting import eventually_async

_SHOWN = 10
_POOL = 24
"""So many connections to Redis a gateway may keep: its readers, its audit, and a few polls."""
_OF_A_WORKER = {"threads": 2, "files": 9}
"""The pump is a thread beside the main one. The files are the standard streams, three of the event loop, the
connection to Redis, and what is open for a moment.
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ends, if not as its worker's record says. partial: the text is only the beginning of it."""

    state: str
    code: str | None = None
    partial: bool = False


class Invariants:
    """One check of one world."""

    def __init__(
        self,
        redis: RedisProcess,
        gateways: Sequence[GatewayProcess],
        workers: Sequence[WorkerProcess],
        crowds: Sequence[Crowd],
        endings: Mapping[str, Ending],
        resets: set[str],
        tally: Tally,
    ) -> None:
        self._redis = redis
        self._gateways = gateways
        self._workers = workers
        self._followers = [one for crowd in crowds for one in crowd]
        self._endings = endings
        self._resets = resets
        self._tally = tally
        self._wrong: list[str] = []
        # A later worker that ran the same task has the newer record.
        self._records = {task: worker.record(task) for worker in workers for task in worker.tasks}

    async def check(self) -> None:
        """Raise AssertionError with all that is wrong."""
        self._tally.written += sum(record.events for record in self._records.values())
        for follower in self._followers:
            self._check_follower(follower)
        await self._check_polls()
        self._check_logs()
        for follower in self._followers:
            follower.leave()
        await self._check_leftovers()
        await self._check_workers()
        await self._check_ends()
        assert not self._wrong, "\n".join([f"{len(self._wrong)} things are wrong:", *self._wrong[:_SHOWN]])

    def _check_follower(self, follower: Follower) -> None:
        task_id = follower.view.task_id
        self._wrong += [f"{task_id}: {text}" for text in follower.wrong]
        if not set(follower.statuses) <= {200, 204}:
            self._wrong.append(f"{task_id}: a follower was answered {set(follower.statuses)}")
        if not set(follower.resets) <= self._resets:
            self._wrong.append(f"{task_id}: a follower was reset for {set(follower.resets)}")
        if any(count > 1 for count in follower.ends.values()):
            self._wrong.append(f"{task_id}: a follower got several ends: {follower.ends}")
        self._compare(follower.view)

    def _compare(self, view: View) -> None:
        """One reader's fold with the record of the worker."""
        record = self._records[view.task_id]
        ending = self._endings.get(view.task_id) or Ending(record.state or "never ended")
        if ending.partial:
            faults = _partial_faults(record.view, view)
        else:
            faults = count_faults(record.view, view)
            if not faults.total() and content(record.view) != content(view):
                faults["lost"] += 1
        said = (view.state, (view.error or {}).get("code") if ending.code else None)
        if said != (ending.state, ending.code) or (
            view.state == "succeeded" and view.result != record.result
        ):
            self._wrong.append(
                f"{view.task_id} ended as {view.state} {view.error} {view.result}, not {ending}"
            )
            faults["lost"] += 1
        if faults.total():
            self._wrong.append(f"{view.task_id}: a reader's copy differs from the record: {dict(faults)}")
        self._tally.lost += faults["lost"]
        self._tally.doubled += faults["doubled"]
        self._tally.reordered += faults["reordered"]

    async def _check_polls(self) -> None:
        """`/status` of every gateway agrees with every follower."""
        for gateway in self._gateways:
            if not gateway.running:
                continue
            async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
                polled = {t: (await client.get(f"/tasks/{t}/status")).json() for t in self._records}
            for follower in self._followers:
                task_id, seen = follower.view.task_id, follower.view.as_dict()
                if polled[task_id] != seen and not self._forgotten(task_id):
                    said = {
                        k: (v, polled[task_id].get(k)) for k, v in seen.items() if polled[task_id].get(k) != v
                    }
                    self._wrong.append(f"{task_id}: a follower and /status differ: {str(said)[:500]}")

    def _forgotten(self, task_id: str) -> bool:
        """Whether Redis has lost all of it, as the scenario wants."""
        return task_id in self._endings and self._endings[task_id].code == "unknown_task"

    def _check_logs(self) -> None:
        keys = Keys.from_settings(Settings(), database=0)
        with self._redis.client() as client:
            for task_id in self._records:
                if self._forgotten(task_id):
                    continue
                entries: Any = client.xrange(keys.log(task_id))
                ids = [key.decode() for key, _ in entries]
                epoch = ids[0].partition("-")[0] if ids else ""
                kinds = [fields[b"kind"] for _, fields in entries]
                if ids != [f"{epoch}-{n}" for n in range(1, len(ids) + 1)]:
                    self._wrong.append(f"{task_id}: its log has holes, or several epochs")
                if kinds.count(b"end") != 1 or kinds[-1] != b"end":
                    self._wrong.append(f"{task_id}: its log doesn't end with its only end")
        self._wrong += [f"a key without a TTL: {key}" for key in keys_without_ttl(self._redis.url)]

    async def _check_leftovers(self) -> None:
        """When everybody has left, the gateways are as they were before anybody came."""
        running = [gateway for gateway in self._gateways if gateway.running]

        async def all_is_as_it_was() -> bool:
            for gateway in running:
                now = await gateway.census()
                more = Counter(now["tasks"]) - Counter(gateway.idle["tasks"])
                assert not more, f"tasks more than before: {dict(more)}"
                for name in ("channels", "followers", "files"):
                    assert now[name] == gateway.idle[name], f"{name}: {now[name]}, not {gateway.idle[name]}"
                assert now["clients"] == 1, f"clients besides this one: {now['clients'] - 1}"
                assert now["redis_connections"] <= _POOL, now
            with self._redis.client() as client:
                channels: Any = client.pubsub_channels("bridge:*")  # a Sentinel has others
                assert len(channels) == len(running), f"subscribed: {channels}"
                assert client.pubsub_numpat() == 0
                there: Any = client.client_list(_type="pubsub")
                links = [one for one in there if one["name"] == "bridge"]
                assert len(links) == len(running), f"subscribers: {links}"
            return True

        await self._eventually("left over", all_is_as_it_was)

    async def _check_workers(self) -> None:
        """What a worker holds doesn't grow with the tasks that it has had."""
        for worker in self._workers:
            if not worker.killed:

                def holds_little(worker: WorkerProcess = worker) -> bool:
                    now = worker.census()
                    assert all(now[name] <= most for name, most in _OF_A_WORKER.items()), now
                    return True

                await self._eventually(f"a worker that had {len(worker.tasks)} tasks holds", holds_little)

    async def _check_ends(self) -> None:
        """All processes end in order, and leave no connection."""
        for worker in self._workers:
            if not worker.killed:
                status = await worker.stop()
                if status or any(word in worker.said() for word in BAD_WORDS):
                    self._wrong.append(f"a worker ended with {status} and said: {worker.said()[-2000:]}")
        for gateway in self._gateways:
            if gateway.running:
                gateway.terminate()
        for gateway in self._gateways:
            if gateway.running and (status := await gateway.wait()):
                self._wrong.append(f"a gateway ended with {status}")
            self._wrong += gateway.mistakes()
        with self._redis.client() as client:

            async def only_we_are_there() -> bool:
                there: Any = client.client_list()
                return [one for one in there if one["name"] == "bridge"] == []

            await self._eventually("connections to Redis left over", only_we_are_there)

    async def _eventually(self, what: str, true: Any) -> None:
        try:
            await eventually_async(true)
        except AssertionError as error:
            self._wrong.append(f"{what}: {error}")


def content(view: View) -> tuple[Any, ...]:
    """All that a worker reports, as one value to be compared."""
    return view.text, view.fields, view.data, view.progress, view.message


def _partial_faults(wanted: View, got: View) -> Any:
    """As `count_faults`, where only a beginning of what was reported can have arrived."""
    faults = count_faults(wanted, got)
    names = {"text", *got.fields}
    torn = sum(not wanted.text_of(name).startswith(got.text_of(name)) for name in names)
    faults["lost"] = torn
    return faults
