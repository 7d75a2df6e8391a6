"""What a stream may ask of the connection beneath it, for which ASGI has no words.

Our own server's protocol gives it as an extension in the scope. Under other servers a stream does without
(`PLAIN`): it costs more there, and a client that takes nothing is only known by what the server holds back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, cast

from starlette.types import Scope

EXTENSION: Final = "bridge.connection"
BARE: Final = "bridge.bare"
"""Another extension: a function that keeps the server from adding headers of its own to this answer."""


class Connection(Protocol):
    """The connection that a request came over, for as long as its answer is under way."""

    def unsent(self) -> int:
        """How many bytes wait for the client on our side, in the kernel too."""

    def cut(self) -> bool:
        """Reset the connection at once. False: it can't be done."""

    def push(self, chunk: bytes) -> bool:
        """Write one chunk of the answer's body, already in the framing of RFC 9112, 7.1, if the client is
        writable, and never wait. False: nothing was written, and ASGI's `send` is the way.

        Only for an answer that has begun, without a content-length, and while no `send` is under way.
        """

    def when_gone(self, tell: Callable[[], None]) -> bool:
        """Call `tell` once when the connection is gone; it takes the place of one that was given before.
        False: it never will be called.
        """


class Plain:
    """Of a server that isn't ours: nothing is known, and nothing can be done."""

    def unsent(self) -> int:
        """Not known here."""
        return 0

    def cut(self) -> bool:
        """Not possible here."""
        return False

    def push(self, chunk: bytes) -> bool:
        """Not possible here."""
        return False

    def when_gone(self, tell: Callable[[], None]) -> bool:
        """Not possible here."""
        return False


PLAIN: Final = Plain()


def connection_of(scope: Scope) -> Connection:
    """The connection of a request."""
    return cast(Connection, scope.get("extensions", {}).get(EXTENSION, PLAIN))


def leave_bare(scope: Scope) -> bool:
    """Keep the server from adding headers of its own to the answer. False: it can't be done."""
    extension = scope.get("extensions", {}).get(BARE)
    if extension is not None:
        extension()
    return extension is not None
