"""The Celery adapter: real workers, prefork and threads, of which real children are killed."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import redis
from celery import Celery, Task, chord, group
from celery.local import Proxy
from celery.result import AsyncResult
from celery.worker import state

import bridge
from bridge import current_task, report_progress
from bridge.events import End
from bridge.settings import Settings
from bridge.view import View
from bridge.worker import process
from bridge.worker.adapters.celery import _Adapter, install
from tests.gateway.running import running
from tests.processes import environ
from tests.servers import RedisProcess, free_port, keys_without_ttl
from tests.waiting import eventually
from tests.worker.adapters.celery_app import WORDS, make_app
from tests.worker.adapters.workers import HUNG_SECONDS, ROOT, WorkerProcess, worker
from tests.worker.conftest import brisk
from tests.worker.logs import call, end_of, events, read_view

TEXT = "".join(WORDS)


class Shop:
    """The app's side: schedules tasks, steers them, and looks at what has become of them."""

    def __init__(self, server: RedisProcess, *, bridged: bool = True) -> None:
        self.server = server
        self.url = server.url.removesuffix("/0")
        self.app = make_app(self.url, bridged=bridged)
        self.log = server.client()
        self._steer = redis.Redis.from_url(f"{self.url}/3")

    def send(self, name: str, *args: Any, **options: Any) -> AsyncResult:
        return self.app.send_task(name, args=args, **options)

    def let_go(self, result: AsyncResult, times: int = 1) -> None:
        """Let a task that waits for the test go on, so many steps."""
        self._steer.rpush(result.id, *["go"] * times)

    def view(self, result: AsyncResult) -> View:
        return read_view(self.log, result.id)

    def wait_for_text(self, result: AsyncResult, text: str) -> None:
        eventually(lambda: self.view(result).text == text)

    def end(self, result: AsyncResult, state: str | None = None) -> End:
        """The task's end, once it is there. state: what Celery comes to say of the task then."""

        def ended() -> bool:
            now = result.state
            assert state in (None, now), f"Celery says {now}"
            assert self.view(result).ended, self.history(result)
            return True

        eventually(ended, timeout=HUNG_SECONDS)
        return end_of(self.log, result.id)

    def cancel(self, result: AsyncResult) -> None:
        """As the gateway does."""
        call(Settings(redis_url=self.server.url), "cancel", result.id)

    def history(self, result: AsyncResult) -> list[str]:
        """The states, resets and ends of the log, in their order, from when a worker had it. The announcement
        may be slower than the task.
        """
        found = events(self.log, result.id)
        words = [getattr(event, "state", "") or getattr(event, "reason", "") for event in found]
        return [word for word in words if word][getattr(found[0], "attempt", 0) == 0 :] if found else []

    def waits(self, result: AsyncResult) -> bool:
        """Whether it was announced, and nobody has it."""
        return [event.kind for event in events(self.log, result.id)] == ["state"] and not self.view(
            result
        ).attempt


def arguments(pool: str, *more: str) -> list[str]:
    """The command line of a worker."""
    quiet = ("--without-mingle", "--without-gossip", "--without-heartbeat", "-l", "INFO")
    return [
        "celery",
        "-A",
        "tests.worker.adapters.celery_app",
        "worker",
        "-P",
        pool,
        "-c",
        "2",
        *quiet,
        *more,
    ]


def environment(shop: Shop, **more: str) -> dict[str, str]:
    """What a worker finds in its environment."""
    return {
        "SHOP_REDIS": shop.url,
        "BRIDGE_REDIS_URL": shop.server.url,
        "BRIDGE_CANCEL_CHECK_SECONDS": "0.05",
        **more,
    }


@pytest.fixture(scope="module")
def broker() -> Iterator[RedisProcess]:
    """One server for all: the broker, the results and the bridge, each with a database of its own."""
    with RedisProcess() as server:
        yield server
        assert keys_without_ttl(server.url) == []
        gc.collect()  # results unsubscribe when they are forgotten, and complain without a server


@pytest.fixture(scope="module")
def the_shop(broker: RedisProcess) -> Shop:
    """The app, for fixtures of the whole module."""
    return Shop(broker)


@pytest.fixture
def shop(the_shop: Shop) -> Shop:
    """The app; this process has the bridge's settings, as the app's has."""
    bridge.configure(brisk(the_shop.server.url))
    return the_shop


@pytest.fixture(scope="module")
def prefork(the_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker with two children."""
    log = tmp_path_factory.mktemp("celery") / "prefork.log"
    with worker(arguments("prefork"), log, " ready.", **environment(the_shop)) as one:
        yield one


@pytest.fixture(scope="module")
def threads(the_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker with two threads, which listens to a queue of its own."""
    log = tmp_path_factory.mktemp("celery") / "threads.log"
    with worker(arguments("threads", "-Q", "threads"), log, " ready.", **environment(the_shop)) as one:
        yield one


@pytest.fixture(params=["prefork", "threads"])
def send(request: pytest.FixtureRequest, shop: Shop) -> Callable[..., AsyncResult]:
    """Schedules a task where the one pool or the other takes it."""
    request.getfixturevalue(request.param)
    queue = "threads" if request.param == "threads" else "celery"
    return lambda name, *args, **options: shop.send(name, *args, queue=queue, **options)


# What ends how, in each pool.


def test_a_task_is_streamed_under_its_own_id(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """Its text, and its return value as the end's result: with Celery's id, and nothing else to do."""
    result = send("speak", WORDS)
    assert result.get(timeout=HUNG_SECONDS) == TEXT
    end = shop.end(result)
    assert (end.state, end.result, shop.view(result).text) == ("succeeded", TEXT, TEXT)
    assert shop.history(result) == ["running", "succeeded"]


def test_a_failure_says_type_and_message(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """The stream gets what the hook's own rule gives, with what was written before; no traceback."""
    result = send("fail")
    end = shop.end(result, "FAILURE")
    assert (end.state, end.error) == ("failed", {"code": "ValueError", "message": "no such product"})
    assert shop.view(result).text == "partial"


def test_a_retry_is_no_end(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """The next run begins with `reset`; where it follows at once, perhaps before the task was given back."""
    result = send("retried", 1)
    shop.let_go(result)
    end = shop.end(result)
    assert shop.history(result) in (
        ["running", "queued", "retry", "running", "succeeded"],
        ["running", "retry", "running", "succeeded"],
    )
    assert (shop.view(result).text, end.result, shop.view(result).attempt) == ("try 1 ", "try 1 ", 2)


def test_the_last_retry_fails(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """With no retries left the error is the end."""
    result = send("retried", 9)
    end = shop.end(result)  # Celery may store RETRY after that: its runs don't know of each other
    assert end.error == {"code": "ConnectionError", "message": "shaky"}
    assert shop.view(result).attempt == 3


def test_a_task_waits_for_its_retry_longer_than_a_lease(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """While it is postponed nobody holds it, so nobody can be lost; a cancel ends it at once."""
    result = send("postponed", 3600)
    eventually(lambda: shop.history(result) == ["running", "queued"])
    assert shop.log.hget(f"bridge:{{{result.id}}}:task", "lease") == b"0"
    assert shop.view(result).text == "so far"
    shop.cancel(result)
    assert shop.end(result).state == "cancelled"
    shop.app.control.revoke(result.id)


def test_a_replaced_task_goes_on_under_its_id(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """`Task.replace` ends the run, not the task: an end would have begun another log."""
    result = send("replaced")
    assert result.get(timeout=HUNG_SECONDS) == TEXT
    assert shop.end(result).result == TEXT
    assert shop.history(result)[0] == "running"
    assert (shop.view(result).text, shop.view(result).attempt) == (TEXT, 2)


def test_an_ignored_task_ends_as_it_says(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """`Ignore` ends as what the work has stored itself, else as a failure of that name."""
    stored, not_stored = send("ignored", "SUCCESS"), send("ignored", None)
    assert shop.end(stored).result == {"by": "hand"}
    assert shop.end(not_stored).error == {"code": "Ignore", "message": "enough"}
    assert not_stored.state == "PENDING"


def test_a_rejected_task_ends_only_if_it_is_not_requeued(
    shop: Shop, send: Callable[..., AsyncResult]
) -> None:
    """A requeued message is another attempt; one that isn't is a failure, to Celery as well."""
    again, gone = send("rejected", True), send("rejected", False)
    assert shop.end(again, "SUCCESS").result == "second time"
    assert shop.view(again).attempt == 2
    assert shop.end(gone, "FAILURE").error["code"] == "Reject"  # type: ignore[index]  # fails if None, as it should


@pytest.mark.parametrize(("kind", "kept"), [("tuple", ["a", 1]), ("date", None), ("large", "x" * 3_000_000)])
def test_a_result_is_the_ends_where_it_is_json(
    shop: Shop, send: Callable[..., AsyncResult], kind: str, kept: Any
) -> None:
    """What JSON can't say is left out of the end; Celery has it all the same."""
    result = send("returns", kind)
    assert result.get(timeout=HUNG_SECONDS) is not None
    end = shop.end(result)
    assert (end.state, end.result, end.truncated) == ("succeeded", kept, False)


def test_the_work_may_say_more_than_it_returns(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """`bridge.current_task()` is the task; what it says of the end goes before the return value."""
    result = send("says")
    assert result.get(timeout=HUNG_SECONDS) == "for Celery"
    end = shop.end(result)
    assert (end.result, end.usage) == ({"id": result.id, "same": True}, {"output_tokens": 3})


def test_many_at_once_get_their_own_text(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """Tasks that run beside each other in one process report to themselves only."""
    results = {n: send("speak", [f"{n} "] * 20) for n in range(20)}
    for n, result in results.items():
        assert (shop.end(result).state, shop.view(result).text) == ("succeeded", f"{n} " * 20)


def test_a_task_of_a_task_is_one_of_its_own(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """What a worker schedules is announced, too."""
    (child,) = send("parent").get(timeout=HUNG_SECONDS)
    result = AsyncResult(child, app=shop.app)
    shop_end = shop.end(result)
    assert shop_end.result == TEXT
    assert shop.view(result).created_at is not None


def test_a_cancel_through_the_bridge_stops_the_work(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """The next report says so. The end is cancelled, with what there is; to Celery the function returned."""
    result = send("long", 3)
    shop.wait_for_text(result, WORDS[0])
    shop.cancel(result)
    end = shop.end(result, "SUCCESS")
    assert (end.state, end.result["result"]) == ("cancelled", WORDS[0])
    assert result.result["result"] == WORDS[0]


def test_a_task_cancelled_while_it_waits_does_not_run(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """Its body isn't called, and polls see it revoked."""
    busy = [send("long", 1) for _ in range(2)]
    for result in busy:
        shop.wait_for_text(result, WORDS[0])
    unstored = send("speak", WORDS, ignore_result=True)
    waiting = [send("speak", WORDS), send("late", WORDS)]
    for result in [unstored, *waiting]:
        eventually(lambda result=result: shop.waits(result))  # type: ignore[misc]  # a loop's own
        shop.cancel(result)
    for result in busy:
        shop.let_go(result)
    for result in waiting:
        assert shop.end(result, "REVOKED").state == "cancelled"
        assert (shop.view(result).text, shop.view(result).attempt) == ("", 0)
    assert (shop.end(unstored).state, unstored.state) == ("cancelled", "PENDING")


def test_a_task_revoked_while_it_waits_is_cancelled(shop: Shop, prefork: WorkerProcess) -> None:
    """`app.control.revoke` reaches the stream, though no child ever had the task; and so does an expiry."""
    busy = [shop.send("long", 1) for _ in range(2)]
    for result in busy:
        shop.wait_for_text(result, WORDS[0])
    revoked, expired = shop.send("speak", WORDS), shop.send("speak", WORDS, expires=0.05)
    too_late = time.monotonic() + 0.05
    # A slow worker gets the one only when it has expired, and says so at once.
    eventually(lambda: shop.waits(revoked) and events(shop.log, expired.id) and time.monotonic() > too_late)
    shop.app.control.revoke(revoked.id)
    prefork.wait_for(f"flagged as revoked: {revoked.id}")
    for result in busy:
        shop.let_go(result)
    assert shop.end(revoked, "REVOKED").state == "cancelled"
    assert shop.end(expired, "REVOKED").state == "cancelled"


def test_an_unregistered_task_fails(shop: Shop, send: Callable[..., AsyncResult]) -> None:
    """A worker that doesn't know the name says so, and so does the stream."""
    result = send("misspelt")
    assert shop.end(result, "FAILURE").error == {"code": "KeyError", "message": "'misspelt'"}


def test_a_chord_is_its_tasks(shop: Shop, prefork: WorkerProcess) -> None:
    """Each part of a chord, and its body, is a task with its own id; and it comes out as before."""
    header = group(shop.app.signature("add", args=(n, n)) for n in range(3))
    result = chord(header, app=shop.app)(shop.app.signature("total"))
    assert result.get(timeout=HUNG_SECONDS) == 6
    assert shop.end(result).result == 6
    for part in result.parent:
        assert shop.end(part).state == "succeeded"


# Limits and deaths, which only children of their own have.


def test_a_soft_time_limit_is_an_exception_of_the_work(shop: Shop, prefork: WorkerProcess) -> None:
    """It may handle it, and succeed; else it is the failure."""
    handled, not_handled = shop.send("soft", True), shop.send("soft", False)
    assert shop.end(handled, "SUCCESS").result == "in time"
    assert shop.end(not_handled, "FAILURE").error == {
        "code": "SoftTimeLimitExceeded",
        "message": "SoftTimeLimitExceeded()",
    }


def test_a_hard_time_limit_ends_the_task(shop: Shop, prefork: WorkerProcess) -> None:
    """The child is killed, and its parent says why, without waiting for the lease."""
    result = shop.send("hard")
    end = shop.end(result, "FAILURE")
    assert (end.state, end.error and end.error["code"]) == ("failed", "TimeLimitExceeded")
    assert shop.view(result).text == "begun"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_terminated_task_is_cancelled(shop: Shop, prefork: WorkerProcess, name: str) -> None:
    """`revoke(terminate=True)` kills the child, whose parent says that it was meant so; the text stays."""
    result = shop.send("long", 3)
    shop.wait_for_text(result, WORDS[0])
    shop.app.control.revoke(result.id, terminate=True, signal=name)
    assert shop.end(result, "REVOKED").state == "cancelled"
    assert shop.view(result).text == WORDS[0]


@pytest.fixture(scope="module")
def doomed(the_shop: Shop, prefork: WorkerProcess) -> list[AsyncResult]:
    """Tasks whose children were killed. Celery looks for dead children every five seconds only."""
    bridge.configure(brisk(the_shop.server.url))
    results = [the_shop.send("dies"), the_shop.send("dies_once")]
    for result, text in zip(results, ("begun", "begun "), strict=True):
        the_shop.wait_for_text(result, text)
        the_shop.let_go(result, 2)
    return results


def test_a_killed_child_is_a_lost_worker(shop: Shop, doomed: list[AsyncResult]) -> None:
    """Its parent says so as soon as it notices, in Celery's words, and doesn't leave it to the lease."""
    result = doomed[0]
    end = shop.end(result, "FAILURE")
    assert end.error is not None
    assert end.error["code"] == "worker_lost"
    assert end.error["message"].startswith("Worker exited prematurely: signal 9 (SIGKILL)")
    assert shop.view(result).text == "begun"


def test_a_task_that_exits_takes_its_child_along(shop: Shop, prefork: WorkerProcess) -> None:
    """To Celery that is a lost worker, and so it is here."""
    result = shop.send("exits")
    end = shop.end(result, "FAILURE")
    assert end.error == {"code": "worker_lost", "message": "Worker exited prematurely: exitcode 3."}
    assert shop.view(result).text == "begun"


def test_a_requeued_task_of_a_killed_child_begins_again(shop: Shop, doomed: list[AsyncResult]) -> None:
    """With `reject_on_worker_lost` there is no end, only another attempt, with text of its own."""
    result = doomed[1]
    assert shop.end(result, "SUCCESS").result == "came through"
    assert shop.view(result).text == "begun "
    assert shop.history(result) == ["running", "retry", "running", "succeeded"]


def test_a_killed_worker_is_lost_with_its_lease(shop: Shop, tmp_path: Path) -> None:
    """Nobody is left to say anything: that is told by the lease, and a redelivery begins anew."""
    env = environment(shop, SHOP_VISIBILITY="1", BRIDGE_LEASE_SECONDS="1")
    with worker(arguments("prefork", "-Q", "doomed"), tmp_path / "first.log", " ready.", **env) as first:
        result = shop.send("dies_once", queue="doomed")
        shop.wait_for_text(result, "begun ")
        with running(shop.server.url, lease_seconds=1) as gateway:
            first.kill()
            eventually(lambda: b"worker_lost" in gateway.get(f"/tasks/{result.id}/status").content)
        with worker(arguments("solo", "-Q", "doomed"), tmp_path / "second.log", " ready.", **env):
            shop.let_go(result)
            assert shop.end(result, "SUCCESS").result == "came through"
    assert shop.view(result).attempt == 2


def test_two_deliveries_of_one_task_are_not_mixed_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Celery still has a request of that id, it speaks of another one: then the lease decides."""
    adapter = _Adapter(shop.app, None, brisk(shop.server.url))

    class Request:
        id = "twice"
        worker_pid = 1

    request, told = Request(), []
    monkeypatch.setattr(process, "notify", lambda notice, _: told.append(notice.task_id))
    adapter._receive(request)
    state.active_requests.add(request)
    adapter._retry(shop.app.tasks["speak"], request)
    assert told == []
    state.active_requests.discard(request)
    adapter._retry(shop.app.tasks["speak"], request)
    assert told == ["twice"]
    request.worker_pid = os.getpid()  # no child: it has said so itself
    adapter._retry(shop.app.tasks["speak"], request)
    assert told == ["twice"]


def test_an_expired_copy_stops_nobody(eager: Celery, settings: Settings, redis_client: redis.Redis) -> None:
    """A message that came back while its task ran may be too old by then, and the run goes on; a revoke means
    the task, wherever it is.
    """
    adapter, task = _Adapter(eager, None, settings), eager.tasks["speak"]

    class Request:
        id = "copied"

    with bridge.task("copied", settings=settings):
        for expired in (True, False):
            process.flush()
            adapter._revoked(task, Request(), terminated=False, expired=expired)
            process.flush()
            assert read_view(redis_client, "copied").cancel_requested is not expired


# What polls see.


def tutorial(app: Celery) -> flask.Flask:
    """The endpoint as it stands in a thousand tutorials."""
    site = flask.Flask("tutorial")

    @site.route("/status/<task_id>")
    def taskstatus(task_id: str) -> flask.Response:
        task = app.AsyncResult(task_id)
        if task.state == "PENDING":
            response = {"state": task.state, "current": 0, "total": 1, "status": "Pending..."}
        elif task.state != "FAILURE":
            response = {
                "state": task.state,
                "current": task.info.get("current", 0),
                "total": task.info.get("total", 1),
                "status": task.info.get("status", ""),
            }
            if "result" in task.info:
                response["result"] = task.info["result"]
        else:
            response = {"state": task.state, "current": 1, "total": 1, "status": str(task.info)}
        return flask.jsonify(response)

    return site


def polled(shop: Shop, name: str, *args: Any) -> tuple[str, list[bytes], dict[str, Any]]:
    """Run a task step by step and poll it in each: its id, the answers, and what Celery has stored."""
    client = tutorial(shop.app).test_client()
    task_id = f"tutorial-{os.urandom(8).hex()}"
    key = shop.app.backend.get_key_for_task(task_id)
    answers = [client.get(f"/status/{task_id}").data]
    result = shop.send(name, *args, task_id=task_id, queue="solo")
    before, stored = None, {"status": "PENDING"}
    while stored["status"] in ("PENDING", "PROGRESS"):
        if before:
            shop.let_go(result)
        # The endpoint looks several times while it makes one answer, so it is asked when nothing changes.
        eventually(lambda before=before: shop.app.backend.get(key) != before)  # type: ignore[misc]  # a loop's own
        before = shop.app.backend.get(key)
        stored = json.loads(before)
        answers.append(client.get(f"/status/{task_id}").data)
    for member in ("task_id", "date_done"):
        assert stored.pop(member)
    return task_id, answers, stored


def test_the_tutorials_endpoint_notices_nothing(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers are the same bytes with the bridge and without, and so is what Celery stores; meanwhile the
    bridge streams the very text of the result.
    """
    plain = Shop(shop.server, bridged=False)
    works: list[tuple[Any, ...]] = [("long", len(WORDS)), ("fail",)]
    with worker(
        arguments("solo", "-Q", "solo"), tmp_path / "0.log", " ready.", **environment(shop, SHOP_BRIDGED="0")
    ):
        with monkeypatch.context() as without:
            without.setattr(process, "notify", lambda *_: True)  # signals of publishing have no app
            before = [polled(plain, *work) for work in works]
    with worker(arguments("solo", "-Q", "solo"), tmp_path / "1.log", " ready.", **environment(shop)):
        after = [polled(shop, *work) for work in works]
        eventually(lambda: all(read_view(shop.log, task_id).ended for task_id, *_ in after))
    for (bare, answers, stored), (_, same_answers, same_stored) in zip(before, after, strict=True):
        assert (same_answers, same_stored) == (answers, stored)
        assert events(shop.log, bare) == []
    (bridged, answers, stored), _ = after
    assert len(answers) == len(WORDS) + 2
    streamed = read_view(shop.log, bridged)
    assert streamed.text == streamed.result["result"] == stored["result"]["result"] == TEXT


# The app's process.


@pytest.fixture
def eager(settings: Settings) -> Celery:
    """An app that runs its tasks where they are called, as in tests and while one develops."""
    app = make_app("redis://127.0.0.1:1")
    app.conf.update(task_always_eager=True, broker_url="memory://", result_backend="cache+memory://")
    return app


def test_an_eager_task_is_streamed_where_it_is_called(eager: Celery, redis_client: redis.Redis) -> None:
    """It is a task all the same; and what is reported around it is none of its business."""
    with bridge.task("outer"):
        report_progress("before ")
        result = eager.tasks["speak"].delay(WORDS)
        report_progress("after")
    assert result.get() == TEXT
    process.flush()
    assert end_of(redis_client, result.id).result == TEXT
    assert read_view(redis_client, "outer").text == "before after"


def test_an_eager_task_that_propagates_fails(eager: Celery, redis_client: redis.Redis) -> None:
    """The caller gets the exception, the stream its type and message."""
    eager.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no such product"):
        eager.tasks["fail"].apply(task_id="eager")
    process.flush()
    assert end_of(redis_client, "eager").error == {"code": "ValueError", "message": "no such product"}
    assert current_task() is None


def test_a_child_sends_what_waits_before_it_exits(redis_url: str, redis_client: redis.Redis) -> None:
    """Celery ends a child with `os._exit`, after it has told us."""
    code = """
import os
from celery import signals
from tests.worker.adapters.celery_app import WORDS, make_app
app = make_app("redis://127.0.0.1:1")
app.conf.update(task_always_eager=True, broker_url="memory://", result_backend="cache+memory://")
for number in range(50):
    app.tasks["speak"].apply((WORDS,), task_id=f"child{number}")
signals.worker_process_shutdown.send(sender="me", pid=os.getpid(), exitcode=0)
os._exit(0)
"""
    subprocess.run(
        [sys.executable, "-c", code], env=environ(BRIDGE_REDIS_URL=redis_url), cwd=ROOT, check=True
    )
    for number in range(50):
        assert end_of(redis_client, f"child{number}").result == TEXT


def test_a_child_whose_task_exits_is_silent_from_then_on(redis_url: str, redis_client: redis.Redis) -> None:
    """It has sent what the task wrote, and gives no sign of life: its parent says that it is lost while it
    still lives, and a worker that lives would take that back.
    """
    code = """
import os, threading
from celery import signals
from tests.worker.adapters.celery_app import make_app
app = make_app("redis://127.0.0.1:1")
app.conf.update(task_always_eager=True, broker_url="memory://", result_backend="cache+memory://")
signals.worker_process_init.send(sender=None)
try:
    app.tasks["exits"].apply(task_id="exits")
except SystemExit:
    os._exit("bridge-pump" in [thread.name for thread in threading.enumerate()])
"""
    subprocess.run(
        [sys.executable, "-c", code], env=environ(BRIDGE_REDIS_URL=redis_url), cwd=ROOT, check=True
    )
    view = read_view(redis_client, "exits")
    assert (view.text, view.state) == ("begun", "running")


def test_publishing_needs_no_bridge(shop: Shop, prefork: WorkerProcess) -> None:
    """With the bridge's Redis away a task is scheduled at once, and runs; nothing waits or is raised."""
    bridge.configure(redis_url=f"redis://127.0.0.1:{free_port()}/0", create_timeout_seconds=1000)
    result = shop.send("speak", WORDS)
    assert result.get(timeout=HUNG_SECONDS) == TEXT
    assert shop.end(result).result == TEXT


def test_running_needs_no_bridge(eager: Celery) -> None:
    """With the bridge's Redis away no task waits for its end to be told."""
    bridge.configure(redis_url=f"redis://127.0.0.1:{free_port()}/0", close_timeout_seconds=1000)
    try:
        assert eager.tasks["speak"].delay(WORDS).get() == TEXT
    finally:
        process.reset()  # else the end of this process would wait


def test_wrong_settings_break_no_task(
    eager: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are said in the log, and the work goes on without the bridge."""
    process.reset()
    monkeypatch.setenv("BRIDGE_LEASE_SECONDS", "soon")
    assert eager.tasks["speak"].delay(WORDS).get() == TEXT
    assert "BRIDGE_LEASE_SECONDS" in caplog.text


def test_an_id_that_no_task_can_have_is_left_alone(
    eager: Celery, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery takes any text as an id; such tasks run without the bridge, which says so once."""
    for task_id in ("a/b", "c d"):
        assert eager.tasks["speak"].apply((WORDS,), task_id=task_id).get() == TEXT
    assert caplog.text.count("can't be streamed") == 1
    assert redis_client.keys() == []


def test_the_app_may_be_the_current_one(settings: Settings, redis_client: redis.Redis) -> None:
    """What `current_app` stands for is what is meant, and its tasks are streamed."""
    app = Celery("current", set_as_current=False)
    app.conf.update(task_always_eager=True)
    install(Proxy(lambda: app))

    @app.task(name="heard", shared=False)
    def heard() -> bool:
        return current_task() is not None

    assert heard.delay().get()


def test_a_class_of_the_apps_own_is_heeded(settings: Settings, redis_client: redis.Redis) -> None:
    """Its `before_start` runs, once, and its `__call__` stands around the body, inside the run."""
    called = []

    class Own(Task):  # type: ignore[misc]  # Celery has no types
        def before_start(self, *args: Any) -> None:
            called.append(("before", args[0]))

        def __call__(self, *args: Any) -> Any:
            called.append(("call", current_task().id))  # type: ignore[union-attr]  # there is one
            return super().__call__(*args)

    app = Celery("own", set_as_current=False, task_cls=Own)
    app.conf.update(task_always_eager=True)
    install(app)

    @app.task(name="called", shared=False)
    def task() -> str:
        return "done"

    app.finalize()  # as a worker does, before it runs anything
    assert task.apply(task_id="own").get() == "done"
    assert called == [("before", "own"), ("call", "own")]


def test_nothing_is_kept_of_a_run(eager: Celery, redis_client: redis.Redis) -> None:
    """A worker runs tasks for months; what it held for one goes with it."""
    seen = []

    @eager.task(name="seen", shared=False)
    def remember() -> None:
        seen.append(weakref.ref(current_task()))

    remember.delay()
    process.flush()
    gc.collect()
    assert seen[0]() is None


def test_an_ignored_task_needs_no_results(settings: Settings, redis_client: redis.Redis) -> None:
    """Where Celery keeps no results, nothing says that it succeeded."""
    app = make_app("redis://127.0.0.1:1")
    app.conf.update(task_always_eager=True, result_backend="disabled://")
    app.tasks["ignored"].apply((None,), task_id="ignored")
    process.flush()
    assert end_of(redis_client, "ignored").error == {"code": "Ignore", "message": "enough"}


def test_only_takes_names_and_no_text(eager: Celery) -> None:
    """One name alone would be taken for its letters, and leave all tasks out without a word."""
    with pytest.raises(TypeError, match="list of names"):
        install(eager, only="shop.answer")


def test_only_some_tasks(settings: Settings, redis_client: redis.Redis) -> None:
    """With `only` the others are as if there was no bridge, and so are Celery's own."""
    app = Celery("some", set_as_current=False)
    app.conf.update(task_always_eager=True)
    install(app, only=["heard"])
    install(app)

    @app.task(name="heard", shared=False)
    def heard() -> bool:
        return current_task() is not None

    @app.task(name="unheard", shared=False)
    def unheard() -> bool:
        return current_task() is not None

    assert (heard.delay().get(), unheard.delay().get()) == (True, False)
    process.flush()
    assert len(redis_client.keys("*:log")) == 1
