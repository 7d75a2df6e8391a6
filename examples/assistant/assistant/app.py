"""The web application.

    uvicorn --factory assistant.app:create_app

It begins with its parts and one task of its own, the sweeper, and ends with them. The environment says the
rest: `ASSISTANT_*`, `BRIDGE_TICKET_KEYS` (the gateway's), where Redis is, and the keys of providers.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import bridge
from assistant.answers import Answers
from assistant.asking import Desk
from assistant.config import Config
from assistant.database import Database
from assistant.errors import Refused, error
from assistant.gateway import Gateway
from assistant.generation import send
from assistant.keeping import Sweeper
from assistant.page import Page
from assistant.providers import Providers
from assistant.routes import chat_stream, check_generation, conversations, login, messages
from assistant.services import Services, same_origin

log = logging.getLogger(__name__)

ROUTERS: Final = tuple(
    module.router for module in (login, conversations, messages, chat_stream, check_generation)
)


def create_app(config: Config | None = None) -> FastAPI:
    """The application, with its tables made. Raises `ConfigError`, and `SettingsError` of the bridge."""
    chosen = Config.from_env() if config is None else config
    database = Database(chosen.database)
    database.create()
    bridge.ticket("any")  # without a key for tickets nobody could follow anything: that is said now

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Each follower holds a connection for as long as its answer takes: a limit would be a deadlock.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        async with httpx.AsyncClient(limits=limits) as http:
            app.state.services = parts = _services(chosen, database, http)
            sweeping = asyncio.create_task(parts.sweeper.run(chosen.sweep_seconds))
            try:
                yield
            finally:
                sweeping.cancel()
                await asyncio.wait({sweeping})

    app = FastAPI(title="Assistant", lifespan=lifespan, dependencies=[Depends(same_origin)])
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(sqlite3.Error, _database)
    app.add_exception_handler(Exception, _bug)
    app.mount("/", Page(chosen.gateway_url))
    return app


def _services(config: Config, database: Database, http: httpx.AsyncClient) -> Services:
    providers = Providers(config)
    gateway = Gateway(config, http)
    return Services(
        config=config,
        database=database,
        providers=providers,
        gateway=gateway,
        desk=Desk(config, database, providers, send),
        answers=Answers(database, gateway),
        sweeper=Sweeper(database, gateway),
    )


def _refused(_: Request, raised: Exception) -> Response:
    assert isinstance(raised, Refused)
    return raised.response()


def _http(_: Request, raised: Exception) -> Response:
    assert isinstance(raised, HTTPException)
    code = HTTPStatus(raised.status_code).phrase.lower().replace(" ", "_")
    return error(raised.status_code, code, str(raised.detail), raised.headers)


def _invalid(_: Request, raised: Exception) -> Response:
    assert isinstance(raised, RequestValidationError)
    return error(422, "invalid", "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in raised.errors()))


def _bug(_: Request, raised: Exception) -> Response:
    """Its traceback is in the log."""
    return error(500, "internal", "Something went wrong here.")


def _database(_: Request, raised: Exception) -> Response:
    """Somebody else held it for too long, or its disk is full."""
    log.error("the database can't be used: %s", raised)
    return error(503, "database", "The database can't be used at this moment.", {"Retry-After": "2"})
