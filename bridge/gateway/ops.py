"""What those who run a gateway ask it: is it alive, is it ready, what does it offer."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bridge import __version__
from bridge.gateway.answers import error_answer, json_answer
from bridge.gateway.hub import Hub


async def healthz(_: Hub, __: Request) -> Response:
    """200 as long as the process serves; Redis being away is no reason to restart it."""
    return json_answer({"status": "ok", "version": __version__})


async def readyz(hub: Hub, _: Request) -> Response:
    """200 when live events reach this gateway, else 503 with the reason."""
    if hub.ready:
        return json_answer({"status": "ready"})
    if hub.draining:
        return error_answer(503, "This gateway is going away.", "draining")
    return error_answer(503, "No live events: the link to Redis is down or silent.", "redis_away")


async def openapi(hub: Hub, _: Request) -> Response:
    """The OpenAPI 3.1 document of this gateway."""
    document = dict(_document())
    document["servers"] = [{"url": hub.settings.base_path or "/"}]
    return json_answer(document)


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((files("bridge.gateway") / "openapi.json").read_text())
    document["info"]["version"] = __version__
    return document
