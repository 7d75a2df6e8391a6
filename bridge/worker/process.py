"""What a process has of the bridge: its settings, its pumps, and its open tasks.

A forked child has none of it. The pump's thread isn't there, its connection is the parent's, and so are the
tasks; so the child begins with an empty state, and what it inherited does nothing any more. A fork waits
for a thread that is importing something for the bridge: the child would wait for it for ever. At the end of
the interpreter the pumps get a last chance to send what waits.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 (redis-py brings it; its rules for forks must not begin amid one)
import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from bridge.settings import Settings
from bridge.worker.buffer import Buffer

if TYPE_CHECKING:
    from bridge.worker.attempt import Attempt
    from bridge.worker.notice import Notice
    from bridge.worker.pump import Pump

log = logging.getLogger(__name__)


class _State:
    """All of it, in one object that a forked child replaces."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.lock = threading.Lock()
        self.settings = settings
        self.pumps: dict[Settings, Pump] = {}
        self.open: set[Buffer] = set()
        self.warned = False


_state = _State()
_inherited: list[_State] = []
_importing = threading.RLock()
"""Held while something is imported late, and by who forks: a child that was forked in the midst of an import
would wait for its end for ever.
"""


def configure(settings: Settings | None = None, **changes: Any) -> Settings:
    """Set this process's settings for tasks that begin from now on, and return them.

    Either whole `settings`, or single ones by name, such as ``redis_url="redis://cache:6379/1"``; the others
    come from the environment. Raises `SettingsError`. Without this call all come from the environment.
    """
    chosen = Settings.from_env() if settings is None else settings
    _state.settings = chosen.with_(**changes)
    return _state.settings


def current_settings() -> Settings:
    """This process's settings. The environment is read once."""
    if _state.settings is None:
        _state.settings = Settings.from_env()
    return _state.settings


def begin(task_id: str, settings: Settings, buffer: Buffer, place: str = "") -> Attempt | None:
    """Hand a new attempt to the pump; None, and a closed buffer, when the interpreter shuts down already.

    place: see `Task`. Raises `SettingsError` for a Redis URL that can't be used.
    """
    if _shutting_down(task_id):
        buffer.close(go_on=True)
        return None
    # Imported late, because these bring redis-py: code that only calls the hook doesn't pay for it.
    with _importing:
        from bridge.worker.attempt import Attempt

    pump = _pump_for(settings)
    attempt = Attempt(task_id, settings, buffer, place)
    buffer.connect(partial(pump.wake, attempt))
    _state.open.add(buffer)
    pump.submit(attempt)
    return attempt


def leave(buffer: Buffer) -> None:
    """A task's work has ended: its process takes no more reports for it."""
    buffer.close()
    _state.open.discard(buffer)


def patience(settings: Settings) -> float:
    """How many seconds an end is worth waiting for now (see `Pump.patience`)."""
    return _pump_for(settings).patience()


def away(settings: Settings) -> bool:
    """Whether Redis is known not to answer at this moment."""
    return _pump_for(settings).away


def announce(task_id: str, owner: str, settings: Settings) -> Notice | None:
    """Hand a new announcement to the pump; None when it isn't taken any more, or too many are waiting."""
    if _shutting_down(task_id):
        return None
    with _importing:
        from bridge.worker.notice import created

    notice = created(task_id, owner)
    return notice if notify(notice, settings) else None


def notify(notice: Notice, settings: Settings) -> bool:
    """Hand a notice to the pump, and don't wait; whether it was taken."""
    return not _shutting_down(notice.task_id) and _pump_for(settings).announce(notice)


def _shutting_down(task_id: str) -> bool:
    """Whether it is too late: then no thread can be started, and not even redis-py be imported."""
    if threading.main_thread().is_alive():
        return False
    log.warning("task %s is not sent: the interpreter is shutting down", task_id)
    return True


def _pump_for(settings: Settings) -> Pump:
    with _importing:
        from bridge.worker.pump import Pump

    with _state.lock:
        pump = _state.pumps.get(settings)
        if pump is None:
            pump = _state.pumps[settings] = Pump(settings)
        return pump


def notice_unbound() -> None:
    """Something was reported outside any task. Once per process this is worth a line, if tasks are open."""
    if _state.open and not _state.warned:
        _state.warned = True
        log.warning(
            "report_progress was called outside any task while this process has open tasks. A thread of its"
            " own or an executor doesn't know the task: pass the task there and call task.report_progress."
        )


def close() -> None:
    """The process is about to end, and somebody else will say so: send what waits, as `flush` does, and give
    no sign of life after that. A task that is still open would otherwise take back that its worker is lost.
    """
    flush()
    _begin_anew(_state.settings)


def reset() -> None:
    """End all pumps, whatever is left to send, and begin anew. For tests."""
    _begin_anew(None)


def _begin_anew(settings: Settings | None) -> None:
    global _state
    old, _state = _state, _State(settings)
    for pump in old.pumps.values():
        pump.stop()


def _before_fork() -> None:
    _importing.acquire()


def _after_fork_in_parent() -> None:
    _importing.release()


def _after_fork() -> None:
    global _state, _importing
    _importing = threading.RLock()  # not released: who forks in C doesn't always say so before
    old, _state = _state, _State(_state.settings)
    # Kept, so that nothing of the parent's, such as its connection, is finalized here.
    _inherited.append(old)
    for buffer in list(old.open):
        buffer.leave_behind()


def flush() -> None:
    """Send what waits, for at most `close_timeout_seconds`. The end of an interpreter does so, too."""
    pumps = list(_state.pumps.items())
    end = time.monotonic() + max((settings.close_timeout_seconds for settings, _ in pumps), default=0)
    for _, pump in pumps:
        if not pump.flush(max(end - time.monotonic(), 0)):
            log.warning("the process ends before all reports are sent")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
    )
atexit.register(flush)
