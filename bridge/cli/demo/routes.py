"""What the page asks the demonstration for, below ``demo/``. No other gateway has these paths.

Browsers log every 404 as an error, so the page doesn't try them out: ``page.json``, which every gateway with
the page has, tells whether they are there. Nor is it an error to look at a task that was started elsewhere.

A POST must say that it is JSON. Forms of other sites can't, without the gateway's leave. And it must name
this machine: the name of a site can be made to lead here (DNS rebinding), and then its pages count as ours.
So no page that somebody happens to visit starts or kills anything here.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bridge import create_task_async
from bridge.cli.demo.kinds import KINDS
from bridge.cli.demo.workers import MAX_TASKS, RETRY_SECONDS, Job, TooManyTasks, Workers
from bridge.errors import InvalidInput
from bridge.events import check_task_id
from bridge.gateway.answers import NOSNIFF, error_answer, json_answer

_MAX_BODY_BYTES: Final = 4096
_BUSY_SECONDS: Final = 10
_NAMES: Final = {kind.name for kind in KINDS}

Endpoint = Callable[[Request], Awaitable[Response]]


def demo_routes(workers: Workers) -> list[BaseRoute]:
    """The routes, for a `Gateway`'s `extra_routes`."""

    async def capabilities(_: Request) -> Response:
        demo = {
            "kinds": [asdict(kind) for kind in KINDS],
            "max_tasks": MAX_TASKS,
            "lease_seconds": workers.settings.lease_seconds,
            "retry_seconds": RETRY_SECONDS,
        }
        return json_answer({"demo": demo})

    async def start(request: Request) -> Response:
        kind = await _kind(request)
        try:
            job = workers.start(kind)
        except TooManyTasks:
            return error_answer(
                429,
                f"{MAX_TASKS} tasks are running already. Stop one, or wait for one to end.",
                "too_many_tasks",
                {"retry-after": str(_BUSY_SECONDS)},
            )
        # As an app does when it takes a task in: there is a `queued` to see while the worker starts.
        await create_task_async(job.task_id, settings=workers.settings)
        return json_answer(job.as_dict(), 202)

    async def look(request: Request) -> Response:
        job = workers.get(check_task_id(request.path_params["task_id"]))
        return json_answer(job.as_dict()) if job else Response(status_code=204, headers=NOSNIFF)

    async def drop(request: Request) -> Response:
        task_id = check_task_id(request.path_params["task_id"])
        dropped = request.app.running_hub().cut(task_id)
        # Anything that is being watched can be cut off, also what `bridge run` started.
        if not dropped:
            _job(workers, request)
        return json_answer({"id": task_id, "dropped": dropped}, 202)

    async def kill(request: Request) -> Response:
        job = _job(workers, request)
        if not workers.kill(job):
            return error_answer(409, "No worker has this task now.", "no_worker")
        return json_answer(job.as_dict(), 202)

    names = {"localhost", socket.gethostname().lower(), workers.settings.host.lower()}
    return [
        Route("/page.json", capabilities, methods=["GET"]),
        Route("/demo/tasks", _meant(start, names), methods=["POST"]),
        Route("/demo/tasks/{task_id}", look, methods=["GET"]),
        Route("/demo/tasks/{task_id}/drop", _meant(drop, names), methods=["POST"]),
        Route("/demo/tasks/{task_id}/kill", _meant(kill, names), methods=["POST"]),
    ]


def _meant(endpoint: Endpoint, names: set[str]) -> Endpoint:
    async def guarded(request: Request) -> Response:
        host = request.url.hostname or ""
        if host not in names and not _is_address(host):
            return error_answer(421, "This is not a name of the machine that shows this.", "wrong_host")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return error_answer(415, "Send this with content-type: application/json.", "not_json")
        return await endpoint(request)

    return guarded


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _job(workers: Workers, request: Request) -> Job:
    """The task that the path names. Raises HTTPException 404."""
    job = workers.get(check_task_id(request.path_params["task_id"]))
    if job is None:
        raise HTTPException(404, "The demonstration started no such task.")
    return job


async def _kind(request: Request) -> str:
    """The kind in a request's body. Raises HTTPException 413 and `InvalidInput`."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, "This is too large.")
    try:
        wanted: Any = json.loads(body)
    except (ValueError, RecursionError):
        wanted = None
    kind = wanted.get("kind") if isinstance(wanted, dict) else None
    if not isinstance(kind, str) or kind not in _NAMES:
        raise InvalidInput(f"kind must be one of {', '.join(sorted(_NAMES))}")
    return kind
