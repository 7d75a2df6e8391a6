"""`POST /tasks/{id}/cancel` of a task that is the app's: the app is asked to stop it, as its mapping says.

- The door has let the visitor in; the app is asked with the poller's credentials.
- When the app agrees, the task has its cancel flag, which all who follow see. That it has stopped is for the
  app to say, as everything else.
- A task that the log doesn't know may be the app's all the same: somebody may want to stop what nobody
  follows. Then nothing is written.
"""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bridge.errors import UpstreamError
from bridge.events import TERMINAL_STATES
from bridge.gateway import control
from bridge.gateway.answers import error_answer, json_answer
from bridge.gateway.auth import Visitor
from bridge.gateway.hub import Hub
from bridge.gateway.upstream.asking import Questions

_CANT: Final = "The app behind this gateway can't be asked to stop this task."


async def stop(questions: Questions, hub: Hub, visitor: Visitor, task_id: str, request: Request) -> Response:
    """Answer the request. Raises what `control.cancel` raises, and `UpstreamError`."""
    (head,), _ = await hub.store.heads([task_id])
    if head is not None and (not head.polled or head.state in TERMINAL_STATES):
        return await control.cancel(hub, visitor, task_id, request)
    if not control.may_be_meant(request, hub.settings.origins):
        return control.cross_site()
    if not visitor.may_see(head.owner if head else ""):
        raise HTTPException(404, "There is no such task.")
    if not questions.can_cancel:
        if head is None:
            raise HTTPException(404, "There is no such task.")
        return error_answer(409, _CANT, "cannot_cancel")
    status = await questions.cancel(task_id)
    if status in (404, 410):
        raise HTTPException(404, "There is no such task.")
    if status in (405, 409, 501):
        return error_answer(409, _CANT, "cannot_cancel")
    if not 200 <= status < 300:
        raise UpstreamError(f"status {status}")
    if head is not None:
        return await control.cancel(hub, visitor, task_id, request)
    return json_answer({"id": task_id, "state": "queued", "cancel_requested": True, "position": "0-0"}, 202)
