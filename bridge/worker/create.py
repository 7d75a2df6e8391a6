"""`create_task`: the app announces a task, before any worker has it.

That gives old and new clients a `queued` to see, and the task an owner. It is never needed: a task that
nobody announced begins when its worker does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from bridge.codec import utf8
from bridge.errors import InvalidInput
from bridge.events import check_task_id
from bridge.settings import Settings
from bridge.worker import process

if TYPE_CHECKING:
    from bridge.worker.notice import Notice

log = logging.getLogger(__name__)

MAX_OWNER_BYTES: Final = 1000


def create_task(task_id: str, owner: str | None = None, *, settings: Settings | None = None) -> bool:
    """Announce a task as queued; whether Redis has confirmed it within `create_timeout_seconds`.

    If not, that is logged, and it is tried again in the background, as long as fewer than 1,000 wait so.
    A repetition that comes late wipes no run that has begun meanwhile. A task that has ended is
    announced anew; one that is queued or running stays as it is.

    owner: whose the task is, at most 1,000 bytes of text that means something to the gateway's
    authentication. Raises `InvalidInput` for a bad id or owner, `SettingsError`, and nothing for Redis.
    """
    notice, chosen = _announce(task_id, owner, settings)
    return notice is not None and _result(notice, notice.done.wait(chosen.create_timeout_seconds))


async def create_task_async(
    task_id: str, owner: str | None = None, *, settings: Settings | None = None
) -> bool:
    """`create_task` without blocking the event loop."""
    notice, chosen = _announce(task_id, owner, settings)
    return notice is not None and _result(notice, await notice.done.wait_async(chosen.create_timeout_seconds))


def _announce(task_id: str, owner: str | None, settings: Settings | None) -> tuple[Notice | None, Settings]:
    check_task_id(task_id)
    owner = owner or ""
    if not isinstance(owner, str):
        raise TypeError(f"owner= must be a string, not {type(owner).__name__}")
    data = utf8(owner)
    if len(data) > MAX_OWNER_BYTES or data.decode() != owner:
        raise InvalidInput(f"owner= is at most {MAX_OWNER_BYTES} bytes of UTF-8")
    chosen = settings or process.current_settings()
    return process.announce(task_id, owner, chosen), chosen


def _result(notice: Notice, done: bool) -> bool:
    if not done:
        log.warning("task %s isn't announced yet; it goes on being tried", notice.task_id)
    return notice.confirmed
