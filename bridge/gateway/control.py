"""`POST /tasks/{id}/cancel`: ask a task to stop. Only ever done on request, never because somebody left.

A page of another site can make a browser send such a request, with its cookies or into a network that only
the browser is in, although it can't read the answer. Browsers say where a request comes from; who says
nothing of it is no browser, and sends nothing unawares.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bridge.gateway.answers import error_answer, json_answer
from bridge.gateway.auth import Visitor
from bridge.gateway.hub import Hub


async def cancel(hub: Hub, visitor: Visitor, task_id: str, request: Request) -> Response:
    """Set the task's cancel flag; asking again, or after the end, changes nothing and is no error."""
    if not may_be_meant(request, hub.settings.origins):
        return cross_site()
    if not visitor.granted:
        (head,), _ = await hub.store.heads([task_id])
        if not visitor.may_see(head.owner if head else None):
            raise HTTPException(404, "There is no such task.")
    answer = await hub.write(task_id, hub.store.calls.cancel(task_id))
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


def cross_site() -> Response:
    """The answer to a request that may not be meant."""
    return error_answer(403, "A page of another site can't cancel tasks.", "cross_site")


def may_be_meant(request: Request, origins: tuple[str, ...]) -> bool:
    """Whether a request that changes something comes from where it may: from no browser, from a page of the
    gateway's own origin, or of one in `origins`. `*` there lets in all pages, but without cookies.

    Of the two headers the first tells more, where browsers send it: what they see as the gateway's origin may
    be a proxy's. Pages can set neither.
    """
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "none") or (site is None and origin is None):
        return True
    if origin is None:
        return False
    if origin in origins or (origins == ("*",) and "cookie" not in request.headers):
        return True
    return site is None and urlsplit(origin).netloc == request.headers.get("host")
