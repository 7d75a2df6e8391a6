"""The names of this machine, for a gateway that trusts whoever is on it.

With auth `none` on a loopback address everybody who reaches the gateway sees every task, and only who is on
this machine reaches it. But a browser on this machine also runs the pages of strangers, and a stranger can
make a name of his lead here (DNS rebinding): to the browser his page and the gateway are then one origin,
and the page reads all tasks. The browser says which name it means, in `Host`.

Rules
-----
1. A name that could be a stranger's is refused. Nobody on the internet owns: an address, which leads where
   it says; `localhost` and what is below it (RFC 6761, 6.3); a name without a dot; this machine's own name.
   No browser leaves `Host` out.
2. A proxy on this machine that passes on the name that the world knows it by lets in the world: the very
   mistake that `refuse_open_door` is about. It is refused in the same way, and `insecure` allows it.
3. Only our own server asks this. A gateway in somebody's app can't know where that app listens.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from bridge import checks
from bridge.gateway.addresses import parse_address
from bridge.gateway.answers import error_answer
from bridge.settings import Settings

_PORT: Final = re.compile(r":[0-9]*$")
_REMEMBERED: Final = 64
"""A machine has few names, and the same one comes with each request."""
_REFUSAL: Final = (
    "This gateway shows every task to whoever is on its machine, and this is no name of that machine. Say who"
    " may see them (BRIDGE_AUTH), or --insecure if whoever gets here may."
)


def only_this_machine(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application behind rule 1, where the settings trust this machine; else the application itself."""
    strange = strangers(settings)
    if strange is None:
        return app

    # No coroutine of its own: each stream would keep it for as long as it is open.
    def begin(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or not strange(_host(scope)):
            return app(scope, receive, send)
        return error_answer(421, _REFUSAL, "wrong_host")(scope, receive, send)

    return begin


def strangers(settings: Settings) -> Callable[[bytes], bool] | None:
    """Tells of a `Host` header whether it is refused. None: none is, as the settings don't trust whoever is
    on this machine.
    """
    if settings.auth != "none" or settings.insecure or not checks.is_loopback(settings.host):
        return None
    own = socket.gethostname()

    @lru_cache(_REMEMBERED)
    def strange(host: bytes) -> bool:
        return may_be_strange(host.decode("latin-1").strip(), own)

    return strange


def may_be_strange(host: str, own: str) -> bool:
    """Whether what a `Host` header says may lead here by somebody else's doing. own: this machine's name."""
    if not host or parse_address(host) is not None:
        return False
    name = _PORT.sub("", host).lower().removesuffix(".")
    return "." in name and not name.endswith(".localhost") and name != own.lower()


def _host(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"host"), b"")
