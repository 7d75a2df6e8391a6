"""RQ: inside any job `report_progress` works, under RQ's own job id.

    rq worker -w bridge.worker.adapters.rq.Worker           the worker
    from bridge.worker.adapters.rq import Queue             the app; then `queue.enqueue(…)` as before

Rules
-----
1. RQ goes on as it did. All that stands here are subclasses, whose methods do what RQ's do, and which never
   keep RQ from it because the bridge couldn't.
2. The job's own process waits twice: for one round trip before the body, so that a job which was cancelled
   while it waited doesn't run; and for the end to be confirmed, because it exits at once (`os._exit`).
3. What ends the run is what RQ stores. A retry is no end: the run ends, the task waits for the next one.
4. Of a work horse that was killed or stopped the worker speaks, and means that execution only: the attempt's
   token begins with the execution's id.
5. Without `Queue` in the app a task begins with its job, and a cancel of a waiting job isn't heard of: that
   happens in the app alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import rq
import rq.job
from rq.job import JobStatus

from bridge.errors import BridgeError
from bridge.worker import process
from bridge.worker.notice import Notice, cancelled, concluded, scheduled
from bridge.worker.outcome import Ending, failure
from bridge.worker.task import Task

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.worker import BaseWorker as _Base
else:
    _Base = object

log = logging.getLogger(__name__)

BEGIN_SECONDS: Final = 1.0
"""So long a body waits at most to hear whether it was cancelled before."""


class Job(rq.job.Job):
    """A job that says when it is cancelled. `Queue` makes and finds these."""

    def cancel(self, *args: Any, **kwargs: Any) -> Any:
        """As RQ does it; and the task ends, or whoever runs it is asked to stop."""
        done = super().cancel(*args, **kwargs)
        _notify(cancelled, self.id)
        return done


class Queue(rq.Queue):
    """A queue that announces its jobs, so that they can be watched while they wait."""

    job_class = Job

    def enqueue_job(self, job: rq.job.Job, *args: Any, **kwargs: Any) -> rq.job.Job:
        """As RQ does it, which may refuse; then the task is announced."""
        done = super().enqueue_job(job, *args, **kwargs)
        _announce([done])
        return done

    def schedule_job(self, job: rq.job.Job, *args: Any, **kwargs: Any) -> rq.job.Job:
        """The same for a job that is to be queued later."""
        done = super().schedule_job(job, *args, **kwargs)
        _announce([done])
        return done

    def enqueue_many(self, *args: Any, **kwargs: Any) -> list[rq.job.Job]:
        """The same for many at once."""
        done = super().enqueue_many(*args, **kwargs)
        _announce(done)
        return done

    def run_job(self, job: rq.job.Job) -> rq.job.Job:
        """A job of a queue with ``is_async=False``, which runs right here."""
        run = _begin(job.id, "")
        if run is None:
            return super().run_job(job)
        raised: BaseException | None = None
        try:
            done = super().run_job(job)
            run.returned(job._result)
            return done
        except BaseException as error:
            raised = error
            raise
        finally:
            run.finish(raised)


class Streaming(_Base):
    """What makes a worker of RQ's one of the bridge: ``class MyWorker(Streaming, rq.Worker)``."""

    _run: Task | None = None
    _raised: BaseException | None = None

    def perform_job(self, job: rq.job.Job, queue: rq.Queue, execution: Execution) -> bool:
        """In the process of the job: a run of its task."""
        run = _begin(job.id, execution.id)
        if run is None:
            return super().perform_job(job, queue, execution)
        self._run, self._raised = run, None
        try:
            if run.wait_begun(BEGIN_SECONDS):
                return super().perform_job(job, queue, execution)
            self._drop(job, execution)
            return False
        finally:
            self._run = None
            run.finish(self._raised, logged=True)

    def handle_exception(self, job: rq.job.Job, *exc_info: Any) -> None:
        """RQ's exception handlers; the error is how the run ends, unless it is retried."""
        self._raised = exc_info[1]
        super().handle_exception(job, *exc_info)

    def handle_job_success(self, job: rq.job.Job, *args: Any, **kwargs: Any) -> None:
        """RQ stores the result; so does the end."""
        super().handle_job_success(job, *args, **kwargs)
        if self._run is not None:
            self._run.returned(job._result)

    def handle_job_retry(self, job: rq.job.Job, *args: Any, **kwargs: Any) -> None:
        """The job returned a `Retry`."""
        super().handle_job_retry(job, *args, **kwargs)
        if self._run is None:
            return
        if job.get_status(refresh=False) == JobStatus.FAILED:
            self._run.fail("max_retries_exceeded", "It asked for more retries than it may have.")
        else:
            self._run.requeue()

    def handle_job_failure(self, job: rq.job.Job, *args: Any, **kwargs: Any) -> None:
        """The job failed, and its own process says so; or it was killed, and the worker does."""
        super().handle_job_failure(job, *args, **kwargs)
        status = job.get_status(refresh=False)
        ended = status in (JobStatus.FAILED, JobStatus.STOPPED)
        if self._run is not None:
            if not ended:
                self._run.requeue()
            return
        execution = kwargs.get("execution")
        if execution is None:
            return
        if not ended:
            ending = Ending("queued")
        elif status == JobStatus.STOPPED:
            ending = Ending("cancelled")
        else:
            why = str(kwargs.get("exc_string", "")).strip("; ")
            ending = Ending("failed", failure("worker_lost", why))
        _notify(concluded, job.id, execution.id, ending)

    def _drop(self, job: rq.job.Job, execution: Execution) -> None:
        """A job that was cancelled through the bridge while it waited is cancelled in RQ, too."""
        self.prepare_job_execution(job, remove_from_intermediate_queue=True)
        with self.connection.pipeline() as pipeline:
            self.cleanup_execution(job, pipeline=pipeline, execution=execution)
            pipeline.execute()
        job.cancel()


class Worker(Streaming, rq.Worker):
    """`rq.Worker`: forks a work horse for each job."""


class SpawnWorker(Streaming, rq.SpawnWorker):
    """`rq.SpawnWorker`: spawns it."""


class SimpleWorker(Streaming, rq.SimpleWorker):
    """`rq.SimpleWorker`: runs jobs in its own process."""


def _begin(job_id: str, place: str) -> Task | None:
    try:
        return Task(job_id, place=place).start()
    except BridgeError as error:
        log.warning("job %s is not streamed: %s", job_id, error)
        return None


def _announce(jobs: Iterable[rq.job.Job]) -> None:
    for job in jobs:
        _notify(scheduled, job.id)


def _notify(make: Callable[..., Notice], *args: Any) -> None:
    try:
        process.notify(make(*args), process.current_settings())
    except BridgeError as error:
        log.warning("the bridge isn't told of a job: %s", error)
