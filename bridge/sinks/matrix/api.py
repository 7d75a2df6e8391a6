"""A homeserver, by the few calls of the client-server API that a sink and a bot need.

Each call is one request, without retries: what may be repeated, and when, is its caller's business. Raises
`SinkUnavailable` for what may pass and `SinkRefused` for what won't. The access token goes into a header, so
no error and no log of addresses can hold it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from bridge.codec import dumps
from bridge.errors import SettingsError, SinkRefused, SinkUnavailable
from bridge.sinks.matrix.answers import json_object, refusal
from bridge.urls import shown

ANSWER_SECONDS: Final = 30.0
"""So long a request may take. A server that is busy answers late, but has done it."""
TYPING_SECONDS: Final = 5.0
"""So long one may take that nobody waits for."""
_CLIENT: Final = "/_matrix/client/v3"


class Homeserver:
    """One user's view of a server. Close it, or use it in an `async with` block.

    `http` brings an httpx client of your own; it is not closed. Raises `SettingsError` without an address or
    a token.
    """

    def __init__(self, url: str, token: str, *, http: httpx.AsyncClient | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise SettingsError(
                "matrix_homeserver must begin with http:// or https:// (set BRIDGE_MATRIX_HOMESERVER;"
                f" got {shown(url)[:100]!r})"
            )
        if not token or not token.isascii() or not token.isprintable():
            raise SettingsError("matrix_token must be an access token: set BRIDGE_MATRIX_TOKEN, or _FILE")
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._owned = http is None
        # No redirects: the token is for this server only.
        self._http = httpx.AsyncClient(follow_redirects=False) if http is None else http

    async def whoami(self) -> str:
        """The user whose token this is."""
        return _text(await self._ask("GET", "/account/whoami"), "user_id")

    async def room_id(self, room: str) -> str:
        """The id of a room that is named by its id or an alias (``#name:server``)."""
        if not room.startswith("#"):
            return room
        return _text(await self._ask("GET", f"/directory/room/{quote(room, safe='')}"), "room_id")

    async def join(self, room: str) -> str:
        """Be in a room, by id or alias: accept an invitation, or enter a public one. Its id."""
        return _text(await self._ask("POST", f"/join/{quote(room, safe='')}", {}), "room_id")

    async def is_encrypted(self, room_id: str) -> bool:
        """Whether what is written in the room must be encrypted. Raises `SinkRefused` outside of the room."""
        try:
            await self._ask("GET", _room(room_id, "state", "m.room.encryption", ""))
        except SinkRefused as error:
            if error.code == "M_NOT_FOUND":
                return False
            raise
        return True

    async def send(self, room_id: str, txn: str, content: dict[str, Any]) -> str:
        """Put a message into a room; its event id. A repeated `txn` gives the first one's."""
        path = _room(room_id, "send", "m.room.message", txn)
        return _text(await self._ask("PUT", path, content), "event_id")

    async def redact(self, room_id: str, txn: str, event_id: str) -> str:
        """Take an event's content away; the id of the event that says so."""
        return _text(await self._ask("PUT", _room(room_id, "redact", event_id, txn), {}), "event_id")

    async def typing(self, room_id: str, user_id: str, seconds: float) -> None:
        """Say that the user writes, for so many seconds; 0: that it doesn't."""
        said = {"typing": True, "timeout": int(seconds * 1000)} if seconds else {"typing": False}
        await self._ask("PUT", _room(room_id, "typing", user_id), said, seconds=TYPING_SECONDS)

    async def sync(self, since: str, filter_: dict[str, Any], wait_seconds: float) -> dict[str, Any]:
        """What happened since a token (empty: what is now), waiting for it at most so long."""
        query = {"filter": dumps(filter_).decode(), "timeout": str(int(wait_seconds * 1000))}
        if since:
            query["since"] = since
        answer = await self._ask("GET", "/sync", query=query, seconds=ANSWER_SECONDS + wait_seconds)
        _text(answer, "next_batch")  # without it the same would be asked again, at once and for ever
        return answer

    async def _ask(
        self,
        method: str,
        path: str,
        content: dict[str, Any] | None = None,
        *,
        query: dict[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> dict[str, Any]:
        try:
            response = await self._http.request(
                method,
                self.url + _CLIENT + path,
                # Not httpx's own encoder, which fails at lone surrogates.
                content=None if content is None else dumps(content),
                params=query,
                headers={**self._headers, "Content-Type": "application/json"},
                timeout=seconds,
            )
        except httpx.InvalidURL as error:
            raise SettingsError(f"matrix_homeserver must be an address: {error}") from error
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise SinkUnavailable(f"the homeserver at {shown(self.url)} can't be reached: {said}") from error
        if response.status_code != 200:
            raise refusal(response.status_code, response.headers.get("retry-after", ""), response.content)
        answer = json_object(response.content)
        if answer is None:
            raise SinkUnavailable(
                f"{shown(self.url)} answers, but not as a homeserver does: is that its address?"
            )
        return answer

    async def aclose(self) -> None:
        """Close the connections, unless they are those of a client you brought."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _room(room_id: str, *steps: str) -> str:
    return "/rooms/" + "/".join(quote(step, safe="") for step in (room_id, *steps))


def _text(answer: dict[str, Any], name: str) -> str:
    """A member that must be there. Who answers 200 without it is no homeserver, or not for the moment."""
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise SinkUnavailable(f"the homeserver's answer has no {name}: is that the server's address?")
    return value
