"""Which headers a request has on its way to the app, and an answer on its way back. Pure.

Rules (RFC 9110, 7.6)
---------------------
1. What is about one connection stays there: `Connection`, all that it names, and the others of `_HOP_BY_HOP`.
   All else goes on as it came, in its order, however often it stands there: cookies, codings, whatever nobody
   knows.
2. The app is told whom a request comes from. `X-Forwarded-*` and the like are the client's word, so they are
   taken away, unless they come from a proxy that is trusted; its list is made longer, not replaced.
3. `Host` is the client's, as it would be without us; an HTTP/1.0 client that sends none gets the app's own.
   `Via` names us; whoever finds itself in it is in a circle.
4. A body in chunks has no length, whatever else is said: two who believe one word each would see two ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
_FORWARDED: Final = {
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
    b"x-forwarded-prefix", b"x-forwarded-server", b"x-real-ip",
}  # fmt: skip
_ESSENTIAL: Final = {b"host", b"content-length", b"content-encoding", b"content-type", b"via"} | _FORWARDED
"""Whatever `Connection` says: without these the rest would mean something else, or hide its sender."""


def to_app(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    host: bytes,
    peer: bytes,
    trusted: bool,
    scheme: bytes,
    via: bytes,
) -> Headers:
    """A request's headers as the app gets them. `host` is the app's own name, `peer` who is connected to us,
    `trusted` whether that is a proxy whose word counts.
    """
    given = [(name.lower(), value) for name, value in headers]
    kept = [(name, value) for name, value in end_to_end(given) if name not in (b"expect", b"via")]
    if not trusted:
        kept = [(name, value) for name, value in kept if name not in _FORWARDED]
    if any(name == b"transfer-encoding" for name, _ in given):
        kept.append((b"transfer-encoding", b"chunked"))
    before = _joined(kept, b"x-forwarded-for")
    kept = [(name, value) for name, value in kept if name != b"x-forwarded-for"]
    if peer or before:
        kept.append((b"x-forwarded-for", b", ".join(one for one in (before, peer) if one)))
    for name, value in ((b"x-forwarded-host", _joined(kept, b"host")), (b"x-forwarded-proto", scheme)):
        if value and not _joined(kept, name):
            kept.append((name, value))
    if not any(name == b"host" for name, _ in kept):
        kept.insert(0, (b"host", host))
    kept.append((b"via", b", ".join(one for one in (_joined(given, b"via"), b"1.1 " + via) if one)))
    return kept


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that aren't about one connection only (rules 1 and 4)."""
    given = list(headers)
    named = {
        word.strip().lower()
        for name, value in given
        if name.lower() == b"connection"
        for word in value.split(b",")
    }
    dropped = _HOP_BY_HOP | (named - _ESSENTIAL)
    if any(name.lower() == b"transfer-encoding" for name, _ in given):
        dropped.add(b"content-length")
    return [(name, value) for name, value in given if name.lower() not in dropped]


def has_been_here(headers: Iterable[tuple[bytes, bytes]], via: bytes) -> bool:
    """Whether a request has come through us before (rule 3)."""
    return any(name.lower() == b"via" and via in value for name, value in headers)


def _joined(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    return b", ".join(value for key, value in headers if key == name)
