"""Polls that are answered at once: where the request is read, before there is a task, a route or a response.

A browser that polls asks for what is in memory and mostly hasn't changed. All that stands around the answer
on its way through uvicorn and Starlette costs several times the answer itself.

Rules
-----
1. The application is the truth. The same request gets the same bytes from here as from there: status, headers
   and their order, body; it counts for the same limits and metrics, and is refused by the same door. What an
   answer says is made by the very functions that make it there; here it is only put on the wire.
   `tests/gateway/server/test_quick.py` sends each request both ways.
2. What isn't certain goes the usual way: `answer` returns None, and nothing has happened. So this knows only
   the plainest form of a poll, as clients send it again and again: a GET of a status path without anything to
   decode and without `after` or `wait`, of a task whose channel can be trusted now. `protocol.py` sees to the
   connection: nothing under way on it, and its client takes what it is sent.
3. Nothing here waits. With a door that may have to ask somebody there is no quick way at all; nor with an app
   behind the gateway, whose the polls may be, nor with a middleware that somebody has added.
4. From the moment that the request counts for a limit it is answered here, whatever comes of it.
5. What is kept: two heads per channel, as long as its view is the same. They are the channel's.
"""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from bridge.errors import AccessError, TooMany
from bridge.events import START
from bridge.gateway.answers import Headers, answer_to, lines
from bridge.gateway.app import Gateway
from bridge.gateway.at_once import at_once
from bridge.gateway.auth import TICKET, Visitor
from bridge.gateway.channel import Channel
from bridge.gateway.cors import Added
from bridge.gateway.hub import Hub
from bridge.gateway.server.hosts import strangers
from bridge.gateway.status import check_seen, parse_etag, status, unchanged, whole

log = logging.getLogger("bridge.gateway")

_ID: Final = rb"([A-Za-z0-9._:~-]{1,200})"
_PATHS: Final = rb"(?:/tasks/%b/status|/status/%b)(?:\?ticket=([A-Za-z0-9._~-]*))?" % (_ID, _ID)
_PARAMETER: Final = rb"/status\?task_id=%b(?:&ticket=([A-Za-z0-9._~-]*))?" % _ID
_NOT_PLAIN: Final = frozenset({b"content-length", b"expect", b"transfer-encoding", b"upgrade"})
_FIRST_LINES: Final = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}


class Quick:
    """The quick way of one gateway. `of` says whether there is one."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        base = re.escape(settings.base_path.encode())
        self._poll = re.compile(base + rb"(?:%b|%b)" % (_PATHS, _PARAMETER))
        self._gateway = gateway
        self._strange = strangers(settings)
        self._cors = Added(settings)
        self._own: Headers = []
        self._own_lines = b""

    @classmethod
    def of(cls, gateway: Gateway) -> Quick | None:
        """None where polls have to go the usual way (rule 3)."""
        if gateway.upstream is not None or gateway.door.waits or gateway.user_middleware:
            return None
        return cls(gateway)

    def answer(self, url: bytes, headers: Headers, peer: str, own: Headers) -> tuple[bytes, bytes] | None:
        """Head and body of the answer to a GET of HTTP/1.1 on a connection that stays open. None: it has to
        go the usual way. peer: where it came from; own: what the server puts on each answer.
        """
        asked = self._poll.fullmatch(url)
        if asked is None:
            return None
        try:
            return self._answer(asked, headers, peer, own)
        except Exception:
            log.exception("a poll could not be answered at once in a way that it should")
            return None

    def _answer(
        self, asked: re.Match[bytes], headers: Headers, peer: str, own: Headers
    ) -> tuple[bytes, bytes] | None:
        first = dict(reversed(headers))  # of several with one name the first counts
        if not _NOT_PLAIN.isdisjoint(first):
            return None
        if self._strange is not None and self._strange(first.get(b"host", b"")):
            return None
        added = self._cors.to(first.get(b"origin"))
        if added is None:
            return None
        groups = asked.groups()
        task_id = (groups[0] or groups[1] or groups[3]).decode()
        tag = first.get(b"if-none-match")
        known = None if tag is None else parse_etag(tag.decode("latin-1"))
        hub = self._gateway.hub
        channel = hub.at_hand(task_id, known or START)
        if channel is None:
            return None
        try:
            visitor = self._admit(task_id, headers, peer, groups[2] or groups[4])
            hub.touch(channel)
            check_seen(visitor, channel)
        except (AccessError, HTTPException, TooMany) as error:
            refused = answer_to(error)
            code, middle, body = refused.status_code, lines(refused.raw_headers), bytes(refused.body)
        else:
            code = 304 if known == channel.position else 200
            middle, body = _head(hub, channel, code), channel.view_json() if code == 200 else b""
        self._gateway.counts.answers[status.__name__, code] += 1
        if own is not self._own:
            self._own, self._own_lines = own, lines(own)  # uvicorn makes them anew with each second
        return b"".join((_FIRST_LINES[code], self._own_lines, middle, added, b"\r\n")), body

    def _admit(self, task_id: str, headers: Headers, peer: str, ticket: bytes | None) -> Visitor:
        """As `Gateway.admit` does. Raises `TooMany`, `Unauthenticated`."""
        gateway = self._gateway
        address = gateway.proxies.sender(peer, headers)
        gateway.gate.pace(address, "poll")
        scope = {"type": "http", "client": (address, 0), "headers": headers}
        if ticket is not None:
            scope[TICKET] = ticket.decode()
        return at_once(gateway.door.enter(HTTPConnection(scope), task_id, "read"))


def _head(hub: Hub, channel: Channel, code: int) -> bytes:
    """What the head of such an answer says of the view."""
    heads = channel.heads
    if code not in heads:
        response = unchanged(hub, channel) if code == 304 else whole(hub, channel)
        heads[code] = lines(response.raw_headers)
    return heads[code]
