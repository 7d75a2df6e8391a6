"""What a request brings to the door, and as whom it is let in. Values only."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal, Protocol
from urllib.parse import unquote

from starlette.requests import HTTPConnection
from starlette.types import Scope

Action = Literal["read", "cancel"]

ANONYMOUS: Final = "anonymous"

TICKET: Final = "bridge.ticket"
"""Where in the ASGI scope the ticket of the URL is kept, after `hide_ticket` took it from there."""
QUERY: Final = "bridge.query"
"""Where the whole query is kept then: what is handed to an app may have such a parameter of the app's own."""
_PARAMETER: Final = b"ticket="
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:@~+|/-]{1,100}")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whom a request comes from, and which tasks they may see.

    principal: a short name for limits and logs, never a credential; `anonymous` for everybody without any.
    granted: they may see the task that they asked for, whoever owns it. owner: they may see it if it is this
    owner's. Neither: never, which to them is the same as that there is no such task.
    """

    principal: str
    granted: bool = False
    owner: str | None = None

    @property
    def known(self) -> bool:
        """Whether it is somebody: `anonymous` is everybody."""
        return self.principal != ANONYMOUS

    def may_see(self, owner: str | None) -> bool:
        """Whether they may see the task, whose owner this is: "" nobody, None when there is no such task."""
        if owner is None:
            return False
        return self.granted or (bool(owner) and owner == self.owner)


def principal(kind: str, name: str) -> str:
    """A principal of that kind. A name that is long, or would look odd in a log, becomes its hash."""
    return f"{kind}:{name if _PLAIN.fullmatch(name) else '#' + sha256(name.encode()).hexdigest()[:16]}"


ANYBODY: Final = Visitor(ANONYMOUS, granted=True)
"""Who comes where nobody is asked for credentials."""


@dataclass(frozen=True, slots=True)
class Question:
    """May this request do that with this task? Its credentials are as they came, and never printed."""

    task_id: str
    action: Action
    address: str
    authorization: bytes | None = field(repr=False)
    cookie: bytes | None = field(repr=False)
    ticket: str = field(repr=False)

    @classmethod
    def of(cls, request: HTTPConnection, task_id: str, action: Action) -> Question:
        """Take from a request what matters here."""
        return cls(
            task_id,
            action,
            request.client.host if request.client else "",
            _header(request, b"authorization"),
            _header(request, b"cookie", b"; "),
            request.scope.get(TICKET, ""),
        )

    @property
    def has_credentials(self) -> bool:
        """Whether there are any, of whatever kind."""
        return bool(self.authorization or self.cookie or self.ticket)


class Judge(Protocol):
    """One way to decide."""

    @property
    def waits(self) -> bool:
        """Whether it may have to ask somebody. Else `judge` returns without waiting for anything."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Entered as long as it may be asked."""

    async def judge(self, question: Question) -> Visitor | None:
        """As whom to let in. None: it knows nothing of these credentials.

        Raises `AuthUnavailable` when it can't tell now.
        """


def _header(request: HTTPConnection, name: bytes, separator: bytes = b", ") -> bytes | None:
    """All headers of that name. Several Cookie headers mean one (RFC 9113, 8.2.3); what several Authorization
    headers become is nobody's credentials, so that it doesn't matter which of them another would believe.
    """
    values = [value for key, value in request.scope["headers"] if key == name]
    return separator.join(values) if values else None


def hide_ticket(scope: Scope) -> None:
    """Move the ticket from the URL to where only the door looks, so that it gets into no log."""
    query: bytes = scope.get("query_string", b"")
    if _PARAMETER not in query:
        return
    items = query.split(b"&")
    tickets = [item for item in items if item.startswith(_PARAMETER)]
    if tickets:
        scope[TICKET] = unquote(tickets[-1].removeprefix(_PARAMETER).decode("latin-1"))
        scope[QUERY] = query
        scope["query_string"] = b"&".join(item for item in items if not item.startswith(_PARAMETER))
