"""Celery: inside any task `report_progress` works, under Celery's own task id.

    from bridge.worker.adapters.celery import install

    app = Celery("shop", broker=…, backend=…)
    install(app)

Rules
-----
1. Celery goes on as it did: results, states, retries and exceptions are what they were without. Here are
   only receivers of its signals, of which it catches what they raise, and one hook before the body.
2. Nothing waits but the body's begin: for one round trip, so that a task which was cancelled while it waited
   doesn't run. It is revoked then, as by `app.control.revoke`. With Redis away the body goes first.
3. A run begins with `task_prerun` and ends with `task_postrun`, in the process and thread of the task. What
   ends it is what Celery stores: the stream never ends otherwise than the result.
4. A retry, a replacement and a requeued rejection are no end: the run ends, the task waits for the next one.
5. Of a child that was killed, or couldn't begin, its parent speaks: Celery's parent sends the signals for it,
   and we say it of that one child's attempt only. The token begins with who that child is (`_place`). Where
   several requests of one id are in one parent, it isn't clear which is meant: then its lease decides.
6. A child that is to exit first sends what waits (`worker_process_shutdown`). Where its task is why it exits,
   it falls silent before its parent hears of that: it lives a while longer, and must not contradict who says
   that it is lost.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
from collections.abc import Collection
from typing import Any, Final
from weakref import WeakValueDictionary

from celery import Celery, current_task, signals, states
from celery.exceptions import Ignore, WorkerLostError
from celery.local import Proxy
from celery.worker import state as worker_state

from bridge.events import TASK_ID
from bridge.settings import Settings
from bridge.worker import process
from bridge.worker.notice import cancelled, concluded, scheduled
from bridge.worker.outcome import Ending, error_of, failure
from bridge.worker.task import Task

log = logging.getLogger(__name__)

BEGIN_SECONDS: Final = 1.0
"""So long a body waits at most to hear whether it was cancelled before."""
_NOWHERE: Final = ""
"""Nobody began it."""

_installed: dict[Celery, _Adapter] = {}


def install(app: Celery, *, only: Collection[str] | None = None, settings: Settings | None = None) -> None:
    """Make all tasks of a Celery app tasks of the bridge, in the app's processes and in its workers.

    Call it beside the app's definition, so that both import it. Again it does nothing.

    only: the names of the tasks meant, where it isn't all. Celery's own (`celery.…`) never are.
    """
    if isinstance(only, str):
        raise TypeError(f"only= is a list of names, such as [{only!r}]")
    if isinstance(app, Proxy):  # `current_app`, which no task has as its app
        app = app._get_current_object()
    if app not in _installed:
        adapter = _installed[app] = _Adapter(app, only, settings)
        adapter.connect()


class _Run:
    """One run of a task in this process, from `task_prerun` to `task_postrun`."""

    __slots__ = ("published", "stored", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.stored = False
        """Whether Celery has stored what it returned."""
        self.published = False
        """Whether it has sent a message with its own id: somebody else will go on with it."""


class _Adapter:
    """The receivers. Celery calls them by keyword, and passes on what they don't name."""

    def __init__(self, app: Celery, only: Collection[str] | None, settings: Settings | None) -> None:
        self._app = app
        self._only = None if only is None else frozenset(only)
        self._given = settings
        self._runs: dict[int, _Run] = {}  # by the id of Celery's request, which lives longer
        self._received: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._parent = 0
        self._child = False
        self._warned = False
        self._guarded: set[type] = set()

    def connect(self) -> None:
        """Listen, and stand before the body of each task."""
        for signal, receiver in (
            (signals.before_task_publish, self._before_publish),
            (signals.task_prerun, self._prerun),
            (signals.task_success, self._success),
            (signals.task_postrun, self._postrun),
            (signals.task_received, self._receive),
            (signals.task_failure, self._failure),
            (signals.task_retry, self._retry),
            (signals.task_revoked, self._revoked),
            (signals.task_unknown, self._unknown),
            (signals.celeryd_init, self._guard_all),  # the worker has imported what it will run
            (signals.worker_process_init, self._be_child),
            (signals.worker_process_shutdown, self._shutdown),
        ):
            signal.connect(receiver, weak=False, dispatch_uid=("bridge", id(self)))
        if self._app.finalized:
            self._guard_all()
        else:
            self._app.on_after_finalize.connect(self._guard_all, weak=False)

    # The app's side.

    def _before_publish(self, sender: str, headers: dict[str, Any] | None = None, **_: Any) -> None:
        task_id = (headers or {}).get("id")
        if not headers or not self._concerns(sender, task_id):
            return
        run = self._runs.get(id(current_task.request)) if current_task else None
        if run is not None and run.task.id == task_id:
            run.published = True
        else:
            process.notify(scheduled(str(task_id)), self._settings)

    # Where the task runs.

    def _prerun(self, sender: Any, task_id: str, **_: Any) -> None:
        if sender.app is self._app and self._concerns(sender.name, task_id):
            task = Task(task_id, self._given, place=_place(os.getppid(), os.getpid()))
            self._runs[id(sender.request)] = _Run(task.start())

    def _before_body(self, task: Any) -> None:
        """Raise `Ignore` where the task was cancelled before it began."""
        request = task.request
        run = self._runs.get(id(request))
        if run is None or run.task.wait_begun(BEGIN_SECONDS):
            return
        if not request.is_eager:
            task.backend.mark_as_revoked(
                request.id,
                "cancelled",
                request=request,
                store_result=not (task.ignore_result or request.ignore_result),
            )
        raise Ignore("it was cancelled before it began")

    def _success(self, sender: Any, **_: Any) -> None:
        run = self._runs.get(id(sender.request))
        if run is not None:
            run.stored = True

    def _postrun(self, sender: Any, retval: Any = None, state: str | None = None, **_: Any) -> None:
        run = self._runs.pop(id(sender.request), None)
        if run is None:
            return
        raised: BaseException | None = None
        try:
            raised = self._outcome(run, sender, retval, state)
        finally:
            if self._child and isinstance(raised, SystemExit | KeyboardInterrupt):
                # It is about to exit, perhaps because it was told to: its parent knows, and says why.
                process.close()
            else:
                # The process goes on, or sends it before it ends: the queue needn't wait.
                run.task.finish(raised, wait=False, logged=True)

    def _outcome(self, run: _Run, task: Any, retval: Any, state: str | None) -> BaseException | None:
        """Tell the run's task how it ended; what it raised, where that decides."""
        if run.stored:
            run.task.returned(retval)
        elif state == states.RETRY or (state == states.REJECTED and retval.requeue):
            run.task.requeue()
        elif state == states.IGNORED and run.published:
            run.task.requeue()  # `Task.replace`
        elif state == states.IGNORED:
            return self._ignored(run.task, task, retval)
        elif isinstance(retval, BaseException):
            return retval
        else:
            # It passes by just now: a SystemExit, or an error in what Celery does around the body.
            return sys.exc_info()[1]
        return None

    def _ignored(self, run: Task, task: Any, ignore: BaseException) -> BaseException | None:
        """`Ignore` stores no state. The work may have stored one itself: that is what polls see."""
        try:
            meta = task.backend.get_task_meta(run.id)
        except Exception:  # no backend, or it is away
            return ignore
        if meta["status"] == states.SUCCESS:
            run.returned(meta["result"])
            return None
        return meta["result"] if isinstance(meta["result"], BaseException) else ignore

    def _be_child(self, **_: Any) -> None:
        self._child = True

    def _shutdown(self, **_: Any) -> None:
        process.flush()

    # What the parent says of its children.

    def _receive(self, request: Any, **_: Any) -> None:
        self._parent = os.getpid()
        self._received[request.id] = request

    def _failure(self, sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
        error = error_of(exception)
        if isinstance(exception, WorkerLostError):
            error = failure("worker_lost", error["message"])
        self._conclude(sender, task_id, Ending("failed", error))

    def _retry(self, sender: Any, request: Any, **_: Any) -> None:
        self._conclude(sender, request.id, Ending("queued"))

    def _revoked(self, sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
        if terminated:
            self._conclude(sender, request.id, Ending("cancelled"))
        elif self._concerns(sender.name, request.id):
            process.notify(concluded(request.id, _NOWHERE, Ending("cancelled")), self._settings)
            if not expired:  # only this message is, and not a run that another one has begun
                process.notify(cancelled(request.id), self._settings)  # should another worker have it

    def _unknown(self, name: str, exc: BaseException, **more: Any) -> None:
        if self._concerns(name, more["id"]):
            ending = Ending("failed", error_of(exc))
            process.notify(concluded(more["id"], _NOWHERE, ending), self._settings)

    def _conclude(self, task: Any, task_id: str, ending: Ending) -> None:
        """Say how the attempt of a child ended; nothing, where it is one of this process or not clear."""
        request = self._received.get(task_id) if self._parent == os.getpid() else None
        if request is None or request.worker_pid == os.getpid() or not self._concerns(task.name, task_id):
            return
        if request in worker_state.reserved_requests or request in worker_state.active_requests:
            return  # Celery has let go of the one it speaks of, so this is another
        place = _place(os.getpid(), request.worker_pid) if request.worker_pid else _NOWHERE
        process.notify(concluded(task_id, place, ending), self._settings)

    # What all of them need.

    @property
    def _settings(self) -> Settings:
        return self._given or process.current_settings()

    def _concerns(self, name: str, task_id: object) -> bool:
        if name.startswith("celery.") or (self._only is not None and name not in self._only):
            return False
        if isinstance(task_id, str) and TASK_ID.fullmatch(task_id):
            return True
        if not self._warned:
            self._warned = True
            log.warning("%s: tasks with such an id can't be streamed: %.60r", name, task_id)
        return False

    def _guard_all(self, **_: Any) -> None:
        for task in list(self._app.tasks.values()):
            if not task.name.startswith("celery.") and type(task) not in self._guarded:
                self._guarded.add(type(task))
                self._guard(type(task))

    def _guard(self, cls: Any) -> None:
        """Stand before the body: `before_start` is the one hook where Celery heeds an `Ignore`."""
        inner = cls.before_start
        adapter = self

        def before_start(self: Any, task_id: str, args: Any, kwargs: Any) -> Any:
            adapter._before_body(self)
            return inner(self, task_id, args, kwargs)

        cls.before_start = before_start


def _place(parent: int, child: int) -> str:
    """Who a child of a worker is, as it and its parent know it."""
    return hashlib.sha256(f"{socket.gethostname()} {parent} {child}".encode()).hexdigest()[:16]
