"""A usual status endpoint: plain Starlette, one GET from Redis per request."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

KEY = "status:{task}"


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    client: Any = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])
    async with client:
        app.state.redis = client
        yield


async def status(request: Request) -> Response:
    """What Redis has, which is JSON already."""
    value = await request.app.state.redis.get(KEY.format(task=request.path_params["task"]))
    return Response(value, media_type="application/json") if value else Response(status_code=404)


app = Starlette(routes=[Route("/tasks/{task}/status", status)], lifespan=_lifespan)
