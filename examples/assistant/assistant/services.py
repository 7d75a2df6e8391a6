"""What the routes need: the application's parts, who asks, and what was sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, Field, ValidationError

from assistant import accounts
from assistant.accounts import User
from assistant.answers import Answers
from assistant.asking import Desk
from assistant.config import Config
from assistant.database import Database
from assistant.errors import Refused
from assistant.gateway import Gateway
from assistant.keeping import Sweeper
from assistant.providers import Providers

COOKIE: Final = "session"
MAX_BODY_BYTES: Final = 256 * 1024

Body = TypeVar("Body", bound=BaseModel)
Id = Annotated[int, Field(gt=0, lt=2**63)]
"""A row's, as clients name it: SQLite knows no larger one."""


@dataclass(frozen=True, slots=True)
class Services:
    """One of each, for the life of the application."""

    config: Config
    database: Database
    providers: Providers
    gateway: Gateway
    desk: Desk
    answers: Answers
    sweeper: Sweeper


def services(request: Request) -> Services:
    """The application's parts."""
    parts: Services = request.app.state.services
    return parts


def same_origin(request: Request) -> None:
    """Refuse to change anything for a page of another site. Who is no browser sends neither header."""
    if request.method in ("GET", "HEAD"):
        return
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    if site not in ("same-origin", "none") or foreign:
        raise Refused(403, "cross_site", "Another site's page may not do this.")


def logged_in(request: Request, parts: Annotated[Services, Depends(services)]) -> User:
    """Who asks."""
    token = request.cookies.get(COOKIE)
    if token:
        with parts.database.connection() as db:
            user = accounts.logged_in(db, token)
        if user is not None:
            return user
    raise Refused(401, "unauthenticated", "Please log in.")


def wants(request: Request, header: str, wanted: str) -> bool:
    """Whether `Accept` or `Prefer` names this, among others or alone; what has `q=0` is not wanted."""
    for item in ",".join(request.headers.getlist(header)).lower().split(","):
        name, *parameters = (part.replace(" ", "") for part in item.split(";"))
        if name == wanted:
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False


async def read(request: Request, kind: type[Body]) -> Body:
    """The request's JSON body, read only after it is known who asks. Raises `Refused`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "unsupported", "The body must be JSON, with Content-Type: application/json.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, "too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise Refused(422, "invalid", f"{place}: {first['msg']}" if place else first["msg"]) from None


Parts = Annotated[Services, Depends(services)]
LoggedIn = Annotated[User, Depends(logged_in)]
