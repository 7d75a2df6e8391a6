"""The RQ adapter: real workers, whose work horses are killed for real."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import rq
import rq.job
from rq.command import send_stop_job_command
from rq.job import JobStatus

import bridge
from bridge.events import End
from bridge.settings import Settings
from bridge.view import View
from bridge.worker import process
from bridge.worker.adapters.rq import Job, Queue, SimpleWorker
from tests.gateway.running import running
from tests.servers import RedisProcess, free_port, keys_without_ttl
from tests.waiting import eventually
from tests.worker.adapters import rq_jobs
from tests.worker.adapters.rq_jobs import WORDS
from tests.worker.adapters.workers import HUNG_SECONDS, WorkerProcess, worker
from tests.worker.conftest import brisk
from tests.worker.logs import call, end_of, events, read_view

TEXT = "".join(WORDS)
WORKER = "bridge.worker.adapters.rq.Worker"


class Shop:
    """The app's side: schedules jobs, steers them, and looks at what has become of them."""

    def __init__(self, server: RedisProcess) -> None:
        self.server = server
        self.url = server.url.removesuffix("/0")
        self.connection = redis.Redis.from_url(f"{self.url}/1")
        self.queue = Queue(connection=self.connection)
        self.log = server.client()
        self._steer = redis.Redis.from_url(f"{self.url}/3")

    def let_go(self, job: rq.job.Job, times: int = 1) -> None:
        """Let a job that waits for the test go on, so many steps."""
        self._steer.rpush(job.id, *["go"] * times)

    def view(self, job: rq.job.Job) -> View:
        return read_view(self.log, job.id)

    def wait_for_text(self, job: rq.job.Job, text: str) -> None:
        eventually(lambda: self.view(job).text == text)

    def end(self, job: rq.job.Job, status: JobStatus | None = None) -> End:
        """The task's end, once it is there. status: what RQ says of the job then."""

        def ended() -> bool:
            now = job.get_status()
            assert status in (None, now), f"RQ says {now}"
            assert self.view(job).ended, self.history(job)
            return True

        eventually(ended, timeout=HUNG_SECONDS)
        return end_of(self.log, job.id)

    def cancel(self, job: rq.job.Job) -> None:
        """As the gateway does."""
        call(Settings(redis_url=self.server.url), "cancel", job.id)

    def history(self, job: rq.job.Job) -> list[str]:
        """The states, resets and ends of the log, from when a worker had it."""
        found = events(self.log, job.id)
        words = [getattr(event, "state", "") or getattr(event, "reason", "") for event in found]
        return [word for word in words if word][getattr(found[0], "attempt", 0) == 0 :] if found else []


def arguments(shop: Shop, queue: str = "default", kind: str = WORKER) -> list[str]:
    """The command line of a worker."""
    return ["rq.cli", "worker", "-u", f"{shop.url}/1", "-w", kind, queue]


def environment(shop: Shop, **more: str) -> dict[str, str]:
    """What a worker finds in its environment."""
    return {
        "SHOP_REDIS": shop.url,
        "BRIDGE_REDIS_URL": shop.server.url,
        "BRIDGE_CANCEL_CHECK_SECONDS": "0.05",
        **more,
    }


@pytest.fixture(scope="module")
def the_shop() -> Iterator[Shop]:
    """The app, with one server for the queue and the bridge."""
    with RedisProcess() as server:
        yield Shop(server)
        assert keys_without_ttl(server.url) == []


@pytest.fixture
def shop(the_shop: Shop) -> Shop:
    """The app; this process has the bridge's settings, as the app's has."""
    bridge.configure(brisk(the_shop.server.url))
    return the_shop


@pytest.fixture(scope="module")
def horses(the_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker, which forks a work horse for each job."""
    log = tmp_path_factory.mktemp("rq") / "worker.log"
    with worker(arguments(the_shop), log, "Listening on", **environment(the_shop)) as one:
        yield one


@pytest.mark.parametrize("work", [rq_jobs.speak, rq_jobs.speak_async])
def test_a_job_is_streamed_under_its_own_id(shop: Shop, horses: WorkerProcess, work: Any) -> None:
    """Its text, and its return value as the end's result, confirmed before the work horse exits."""
    job = shop.queue.enqueue(work, WORDS)
    end = shop.end(job, JobStatus.FINISHED)
    assert (end.state, end.result, shop.view(job).text) == ("succeeded", TEXT, TEXT)
    assert job.return_value() == TEXT
    assert shop.history(job) == ["running", "succeeded"]


def test_a_failure_says_type_and_message(shop: Shop, horses: WorkerProcess) -> None:
    """The traceback stays with RQ."""
    job = shop.queue.enqueue(rq_jobs.fail)
    assert shop.end(job, JobStatus.FAILED).error == {"code": "ValueError", "message": "no such product"}
    assert shop.view(job).text == "partial"
    assert "Traceback" in str(job.latest_result().exc_string)  # type: ignore[union-attr]  # there is one


def test_a_retry_is_no_end(shop: Shop, horses: WorkerProcess) -> None:
    """Whether RQ retries what was raised: the next run begins with `reset`."""
    job = shop.queue.enqueue(rq_jobs.shaky, retry=rq.Retry(max=1))
    assert shop.end(job, JobStatus.FINISHED).result == "came through"
    assert shop.history(job) == ["running", "queued", "retry", "running", "succeeded"]
    assert shop.view(job).text == "try "


def test_a_job_that_waits_for_its_retry_is_queued(shop: Shop, horses: WorkerProcess) -> None:
    """For as long as it takes: nobody holds it, so nobody can be lost. A cancel in RQ ends it."""
    job = shop.queue.enqueue(rq_jobs.fail, retry=rq.Retry(max=1, interval=3600))
    eventually(lambda: shop.history(job) == ["running", "queued"])
    assert shop.log.hget(f"bridge:{{{job.id}}}:task", "lease") == b"0"
    job.cancel()
    assert shop.end(job, JobStatus.CANCELED).state == "cancelled"


def test_a_job_may_ask_for_its_retry(shop: Shop, horses: WorkerProcess) -> None:
    """By returning `Retry`; when it has had them all, that is a failure."""
    job = shop.queue.enqueue(rq_jobs.again, 1)
    end = shop.end(job, JobStatus.FAILED)
    assert end.error is not None
    assert end.error["code"] == "max_retries_exceeded"
    assert shop.view(job).attempt == 2


def test_a_result_that_is_no_json_is_left_out(shop: Shop, horses: WorkerProcess) -> None:
    """RQ has it all the same."""
    job = shop.queue.enqueue(rq_jobs.returns_date)
    assert shop.end(job, JobStatus.FINISHED).result is None
    assert job.return_value().year == 2026  # type: ignore[union-attr]  # there is one


def test_a_timeout_is_an_exception_of_the_work(shop: Shop, horses: WorkerProcess) -> None:
    """RQ raises it inside; unless it is handled it is the failure."""
    job = shop.queue.enqueue(rq_jobs.long, 1, job_timeout=2)  # not before the work has begun
    end = shop.end(job, JobStatus.FAILED)
    assert end.error is not None
    assert end.error["code"] == "JobTimeoutException"
    assert shop.view(job).text == WORDS[0]


def test_a_killed_work_horse_is_a_lost_worker(shop: Shop, horses: WorkerProcess) -> None:
    """The worker notices at once and says so, in RQ's words."""
    job = shop.queue.enqueue(rq_jobs.dies)
    shop.wait_for_text(job, "begun")
    shop.let_go(job)
    end = shop.end(job, JobStatus.FAILED)
    assert end.error == {
        "code": "worker_lost",
        "message": "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9)",
    }
    assert shop.view(job).text == "begun"


def test_a_killed_work_horse_may_be_retried(shop: Shop, horses: WorkerProcess) -> None:
    """Then the worker gives the task back, and that is no end."""
    job = shop.queue.enqueue(rq_jobs.dies, retry=rq.Retry(max=1))
    shop.let_go(job, 2)
    assert shop.end(job, JobStatus.FAILED).error["code"] == "worker_lost"  # type: ignore[index]  # there is one
    assert shop.view(job).attempt == 2


def test_a_stopped_job_is_cancelled(shop: Shop, horses: WorkerProcess) -> None:
    """`send_stop_job_command` kills the work horse; the text stays."""
    job = shop.queue.enqueue(rq_jobs.long, 3)
    shop.wait_for_text(job, WORDS[0])
    eventually(lambda: job.get_status() == JobStatus.STARTED)
    send_stop_job_command(shop.connection, job.id)
    assert shop.end(job, JobStatus.STOPPED).state == "cancelled"
    assert shop.view(job).text == WORDS[0]


def test_a_cancel_through_the_bridge_stops_the_work(shop: Shop, horses: WorkerProcess) -> None:
    """The next report says so. The end is cancelled, with what there is; to RQ the function returned."""
    job = shop.queue.enqueue(rq_jobs.long, 3)
    shop.wait_for_text(job, WORDS[0])
    shop.cancel(job)
    end = shop.end(job, JobStatus.FINISHED)
    assert (end.state, end.result) == ("cancelled", WORDS[0])


def test_a_job_cancelled_while_it_waits_does_not_run(shop: Shop, horses: WorkerProcess) -> None:
    """Through the bridge: RQ learns of it when its turn comes. Through RQ: the stream learns at once."""
    busy = shop.queue.enqueue(rq_jobs.long, 1)
    shop.wait_for_text(busy, WORDS[0])
    here, there = (shop.queue.enqueue(rq_jobs.speak, WORDS) for _ in range(2))
    eventually(lambda: events(shop.log, here.id) and events(shop.log, there.id))
    shop.cancel(here)
    there.cancel()
    assert shop.end(there, JobStatus.CANCELED).state == "cancelled"
    shop.let_go(busy)
    assert shop.end(here, JobStatus.CANCELED).state == "cancelled"
    assert shop.view(here).attempt == 0
    # It left nothing behind that RQ would look after later.
    eventually(lambda: not shop.queue.started_job_registry.get_job_ids())
    assert not shop.queue.intermediate_queue.get_job_ids()


def test_a_cancelled_job_runs_again_when_it_is_announced_anew(shop: Shop, horses: WorkerProcess) -> None:
    """A cancel is for good, as long as the bridge knows of it; `create_task` begins the task anew."""
    job = Queue("nobody", connection=shop.connection).enqueue(rq_jobs.speak, WORDS)
    eventually(lambda: events(shop.log, job.id))
    job.cancel()
    assert shop.end(job, JobStatus.CANCELED).state == "cancelled"
    job.origin = shop.queue.name
    shop.queue.enqueue_job(job)
    eventually(lambda: job.get_status() == JobStatus.CANCELED)
    assert bridge.create_task(job.id)
    shop.queue.enqueue_job(job)
    eventually(lambda: job.get_status() == JobStatus.FINISHED)
    assert shop.end(job).result == TEXT


def test_what_a_job_schedules_is_announced(shop: Shop, horses: WorkerProcess) -> None:
    """Also from a process that exits right afterwards."""
    job = shop.queue.enqueue(rq_jobs.schedules)
    child = Job.fetch(shop.end(job).result, connection=shop.connection)
    assert shop.end(child).result == TEXT


def test_every_way_to_enqueue_announces(shop: Shop) -> None:
    """One by one, many at once, and later."""
    queue = Queue("nobody", connection=shop.connection)
    several = [queue.prepare_data(rq_jobs.speak, (WORDS,)) for _ in range(2)]
    jobs = [queue.enqueue(rq_jobs.speak, WORDS), *queue.enqueue_many(several)]
    jobs.append(queue.enqueue_in(timedelta(hours=1), rq_jobs.speak, WORDS))
    for job in jobs:
        eventually(lambda job=job: shop.view(job).state == "queued" and events(shop.log, job.id))  # type: ignore[misc]  # a loop's own
        assert isinstance(job, Job)
        assert isinstance(queue.fetch_job(job.id), Job)


@pytest.mark.parametrize("kind", ["SimpleWorker", "SpawnWorker"])
def test_the_other_workers_stream_too(shop: Shop, tmp_path: Path, kind: str) -> None:
    """One runs jobs itself, one spawns its work horses."""
    queue = Queue(kind, connection=shop.connection)
    command = arguments(shop, kind, f"bridge.worker.adapters.rq.{kind}")
    with worker(command, tmp_path / "worker.log", "Listening on", **environment(shop)):
        bad, good = queue.enqueue(rq_jobs.fail), queue.enqueue(rq_jobs.speak, WORDS)
        assert shop.end(good, JobStatus.FINISHED).result == TEXT
        assert shop.end(bad, JobStatus.FAILED).error == {"code": "ValueError", "message": "no such product"}


def test_a_killed_worker_is_lost_with_its_lease(shop: Shop, tmp_path: Path) -> None:
    """Where nobody is left to say anything, the lease does; whoever takes the job up again begins anew."""
    queue = Queue("doomed", connection=shop.connection)
    simple = arguments(shop, "doomed", "bridge.worker.adapters.rq.SimpleWorker")
    env = environment(shop, BRIDGE_LEASE_SECONDS="1")
    with worker(simple, tmp_path / "first.log", "Listening on", **env) as first:
        job = queue.enqueue(rq_jobs.long, 1)
        shop.wait_for_text(job, WORDS[0])
        with running(shop.server.url, lease_seconds=1) as gateway:
            first.kill()
            eventually(lambda: b"worker_lost" in gateway.get(f"/tasks/{job.id}/status").content)
    with worker(simple, tmp_path / "second.log", "Listening on", **env):
        shop.let_go(job)
        queue.enqueue_job(job)
        assert shop.end(job, JobStatus.FINISHED).result == WORDS[0]
    assert shop.view(job).attempt == 2


def test_a_queue_that_is_not_async_runs_here(shop: Shop) -> None:
    """As in tests: a task all the same, ended with what it returned or raised."""
    queue = Queue("here", connection=shop.connection, is_async=False)
    job = queue.enqueue(rq_jobs.speak, WORDS)
    assert (end_of(shop.log, job.id).result, job.return_value()) == (TEXT, TEXT)
    job = queue.enqueue(rq_jobs.fail)
    assert job.get_status() == JobStatus.FAILED
    assert end_of(shop.log, job.id).error == {"code": "ValueError", "message": "no such product"}
    assert bridge.current_task() is None


def test_enqueueing_needs_no_bridge(shop: Shop, horses: WorkerProcess) -> None:
    """With the bridge's Redis away a job is enqueued at once, and runs; nothing waits or is raised."""
    bridge.configure(redis_url=f"redis://127.0.0.1:{free_port()}/0", create_timeout_seconds=1000)
    job = shop.queue.enqueue(rq_jobs.speak, WORDS)
    assert shop.end(job, JobStatus.FINISHED).result == TEXT


def test_exception_handlers_of_the_apps_own_are_called(shop: Shop) -> None:
    """What RQ does with an error it does here, too."""
    told: list[str] = []
    one = SimpleWorker(
        [shop.queue], connection=shop.connection, exception_handlers=[lambda job, *_: told.append(job.id)]
    )
    job = Queue("nobody", connection=shop.connection).enqueue(rq_jobs.fail)
    one.handle_exception(job, ValueError, ValueError("no such product"), None)
    assert told == [job.id]


def test_wrong_settings_break_no_job(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are said in the log, and the work goes on without the bridge."""
    process.reset()
    monkeypatch.setenv("BRIDGE_LEASE_SECONDS", "soon")
    job = Queue("here", connection=shop.connection, is_async=False).enqueue(rq_jobs.speak, WORDS)
    assert job.return_value() == TEXT
    assert "BRIDGE_LEASE_SECONDS" in caplog.text


def test_an_id_that_is_too_long_is_left_alone(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """RQ takes ids of any length; such jobs run without the bridge."""
    queue = Queue("here", connection=shop.connection, is_async=False)
    job = queue.enqueue(rq_jobs.speak, WORDS, job_id="x" * 300)
    assert job.return_value() == TEXT
    assert "is not streamed" in caplog.text
