"""`POST /tasks/{id}/cancel`: ask a task to stop. Only ever done on request, never because somebody left."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bridge.events import check_task_id
from bridge.gateway.answers import json_answer
from bridge.gateway.hub import Hub


async def cancel(hub: Hub, request: Request) -> Response:
    """Set the task's cancel flag; asking again, or after the end, changes nothing and is no error."""
    task_id = check_task_id(request.path_params["task_id"])
    answer = await hub.store.run(hub.store.calls.cancel(task_id))
    if answer.verdict == "unknown":
        raise HTTPException(404, "There is no such task.")
    return json_answer(
        {
            "id": task_id,
            "state": answer.state,
            "cancel_requested": answer.cancel_requested,
            "position": str(answer.position),
        }
    )
