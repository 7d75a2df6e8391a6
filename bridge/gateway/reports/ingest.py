"""Workers in any language report over HTTP: `POST /tasks/{id}/events`, `…/end`, and `POST /tasks/{id}`.

Rules
-----
1. Nobody reports without the key (`auth/reports.py`), and nothing of a body is read before it was looked at.
   Nor does a page of another site, with or without it.
2. The gateway remembers nothing of a worker: each request may go to another one. What an attempt is, what is
   a repetition and what was lost, `report.lua` knows; `delivery.py` brings it there.
3. A body is read as it is produced, and goes out as it comes: the first events at once, then merged for
   `flush_milliseconds`, and early at `flush_bytes`. Nothing is read while Redis is slow; a client notices
   that by its own sending. So a request takes no more memory than one read and one line.
4. A body may take as long as it likes, but not be silent for longer than `report_idle_seconds`. As long as
   it is open it is a sign of life: a lease is renewed while nothing comes.
5. Whatever ends a body before its end (a mistake in it, a client that is gone, silence, a Redis or a gateway
   that goes away), what came whole before is in the log, and the attempt stays open. The answer, where there
   is somebody to read it, says how far that is.
6. Every answer carries what the worker has to know: whether to stop, and with which number to go on.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from bridge.errors import (
    BridgeError,
    InvalidEvent,
    InvalidInput,
    StoreUnavailable,
    TooLarge,
    Unauthenticated,
    UnsupportedBody,
)
from bridge.events import MAIN_FIELD
from bridge.gateway.answers import RETRY_AFTER_SECONDS, error_answer, json_answer
from bridge.gateway.auth.reports import ReportKeys
from bridge.gateway.control import may_be_meant
from bridge.gateway.hub import Hub
from bridge.gateway.reports.bodies import body_of, value_of
from bridge.gateway.reports.delivery import Delivery, ReportRefused, write_patiently
from bridge.gateway.reports.parameters import (
    check_names,
    ending_of,
    name_of,
    owner_of,
    piece_of,
    refuse_encoding,
)
from bridge.gateway.reports.reading import (
    CancelRequested,
    ClientGone,
    GoingAway,
    Interrupted,
    Reading,
    TooSlow,
    read_value,
)
from bridge.store.scripts import Answer, Call


class Way(Protocol):
    """What a worker may ask for; its name is for counting."""

    __name__: str

    async def __call__(self, hub: Hub, report: Report) -> Answer:
        """Do it. Raises what `respond` explains."""


_ATTEMPT: Final = ("attempt", "batch", "lease")
"""The parameters that say whose a request is."""
_REFUSED: Final = {
    "fenced": (409, "superseded", "A newer attempt has this task: stop."),
    "taken": (409, "taken", "Another attempt has this task. To begin a new one, name it: ?attempt=…"),
    "ended": (409, "ended", "This task has ended."),
    "gap": (409, "gap", "This batch skips ahead: send the one after `batch`."),
    "lost": (409, "lost", "Redis lost what came before: send all again that comes after `batch`."),
    "crowded": (400, "too_many_fields", "An attempt has at most 100 fields."),
}
_INTERRUPTED: Final[dict[type[Interrupted], tuple[int, str, str]]] = {
    TooSlow: (408, "too_slow", "Nothing came for too long."),
    GoingAway: (503, "going_away", "This gateway is going away: go on with the same request."),
    CancelRequested: (409, "cancel_requested", "The task was asked to stop."),
}


class Report:
    """One request of a worker. `delivery`: the way of its content to Redis, once there is some."""

    def __init__(self, task_id: str, request: Request, receive: Receive) -> None:
        self.task_id = task_id
        self.query = request.query_params
        self.headers = request.headers
        self.receive = receive
        self.delivery: Delivery | None = None

    @property
    def content_type(self) -> str:
        """What the body is; empty where nobody says. Raises `UnsupportedBody` for a compressed one."""
        refuse_encoding(self.headers.get("content-encoding"))
        return self.headers.get("content-type", "")

    @property
    def key(self) -> str | None:
        """The name that the worker gave this request."""
        return self.headers.get("idempotency-key")

    async def value(self, hub: Hub) -> Any:
        """The body's JSON value; None of an empty body."""
        return await read_value(hub, self.receive, value_of(self.content_type, hub.settings.max_body_bytes))


async def respond(hub: Hub, way: Way, report: Report) -> Response | None:
    """Go one of the ways below, and say how it went. None: there is nobody to say it to."""
    answer: Answer | None = None
    try:
        answer = await way(hub, report)
    except ClientGone:
        return None
    except (InvalidInput, Interrupted, ReportRefused, StoreUnavailable) as error:
        status, code, message = _explained(error)
        if report.delivery is not None:
            answer = report.delivery.answer
        return _said(report.task_id, answer, status, {"error": {"code": code, "message": message}})
    return _said(report.task_id, answer, 200, {})


async def events(hub: Hub, report: Report) -> Answer:
    """`POST /tasks/{id}/events`."""
    query = report.query
    check_names(query, *_ATTEMPT, "field", "until")
    if query.get("until", "cancel") != "cancel":
        raise InvalidInput("until is cancel, or left out")
    piece = piece_of(query, report.key, "events")
    body = body_of(report.content_type, query.get("field", MAIN_FIELD), hub.settings.max_body_bytes)
    report.delivery = Delivery(hub, report.task_id, piece)
    return await Reading(hub, body, report.delivery, report.receive, until_cancel="until" in query).run()


async def end(hub: Hub, report: Report) -> Answer:
    """`POST /tasks/{id}/end`."""
    check_names(report.query, *_ATTEMPT)
    piece = piece_of(report.query, report.key, "end")
    said = ending_of(await report.value(hub), hub.settings.max_task_bytes)
    report.delivery = Delivery(hub, report.task_id, replace(piece, truncated=said.truncated))
    return await report.delivery.send(whole=True, end=said.ending)


async def create(hub: Hub, report: Report) -> Answer:
    """`POST /tasks/{id}`: an app announces a task."""
    began = monotonic()
    check_names(report.query)
    owner = owner_of(await report.value(hub))
    name = name_of(report.key, "create")
    calls = hub.store.calls

    def call() -> Call:
        age_ms = int((monotonic() - began) * 1000)
        return calls.create(report.task_id, owner=owner, creation=name, age_ms=age_ms)

    return await write_patiently(hub, report.task_id, call)


def refusal(keys: ReportKeys, hub: Hub, request: Request) -> Response | None:
    """The answer to who may not report; None: they may. Raises `Unauthenticated`."""
    if not keys:
        message = "Reporting over HTTP is off: set BRIDGE_REPORT_KEYS where the gateway runs."
        return error_answer(403, message, "reporting_off")
    if not keys.admit(request.scope["headers"]):
        raise Unauthenticated("Reporting needs its key: Authorization: Bearer …")
    if not may_be_meant(request, hub.settings.origins):
        return error_answer(403, "A page of another site can't report.", "cross_site")
    return None


def _explained(error: BridgeError) -> tuple[int, str, str]:
    """Status, code and message."""
    match error:
        case ReportRefused():
            return _REFUSED[str(error)]
        case Interrupted():
            return _INTERRUPTED[type(error)]
        case StoreUnavailable():
            return (
                503,
                "redis_away",
                "The gateway can't reach Redis. Send the same request again, shortly.",
            )
        case TooLarge():
            return 413, "too_large", str(error)
        case UnsupportedBody():
            return 415, "unsupported_type", str(error)
    return 400, "bad_event" if isinstance(error, InvalidEvent) else "bad_request", str(error)


def _said(task_id: str, answer: Answer | None, status: int, members: dict[str, Any]) -> Response:
    """What the worker has to know, as far as Redis told."""
    if answer is not None:
        members |= {
            "id": task_id,
            "state": answer.state or None,
            "attempt": answer.attempt,
            "position": str(answer.position),
            "batch": answer.batch,
            "part": max(answer.part, 0),
            "cancel_requested": answer.cancel_requested,
            "truncated": answer.truncated,
        }
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return json_answer(members, status, headers)
