"""A homeserver's answers as they shouldn't be, by a transport that gives them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from bridge.errors import SettingsError, SinkError, SinkRefused, SinkUnavailable
from bridge.sinks.matrix.api import Homeserver

URL = "https://matrix.example.org"
TOKEN = "a-very-secret-token"

CALLS: list[Callable[[Homeserver], Awaitable[Any]]] = [
    lambda server: server.whoami(),
    lambda server: server.room_id("#a:b"),
    lambda server: server.join("!a:b"),
    lambda server: server.is_encrypted("!a:b"),
    lambda server: server.send("!a:b", "t1", {"body": "a"}),
    lambda server: server.redact("!a:b", "t1", "$1"),
    lambda server: server.typing("!a:b", "@bot:b", 30.0),
    lambda server: server.sync("s1", {}, 0.0),
]


def homeserver(answer: httpx.Response | Exception) -> Homeserver:
    """A server that always answers so."""

    def answered(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        assert request.url.host == "matrix.example.org", "the token went elsewhere"
        return answer

    return Homeserver(URL, TOKEN, http=httpx.AsyncClient(transport=httpx.MockTransport(answered)))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("body", ["<html>Welcome</html>", "[]", "", "{"])
async def test_a_page_instead_of_an_answer(call: Callable[[Homeserver], Awaitable[Any]], body: str) -> None:
    """Who says 200 and no JSON object is a proxy, or was named by mistake: nothing is taken for done, and no
    room for encrypted.
    """
    with pytest.raises(SinkUnavailable, match="not as a homeserver does"):
        await call(homeserver(httpx.Response(200, text=body)))


@pytest.mark.parametrize("call", CALLS[:3] + CALLS[4:6] + CALLS[7:])
async def test_an_answer_without_what_was_asked_for(
    call: Callable[[Homeserver], Awaitable[Any]],
) -> None:
    """An id that isn't there is not an empty one; and a sync without its place isn't repeated at once."""
    with pytest.raises(SinkUnavailable, match="has no"):
        await call(homeserver(httpx.Response(200, json={"event_id": 7, "next_batch": ""})))


async def test_a_redirect_is_not_followed() -> None:
    """The token is for this server only; whoever set the address learns that it is another."""
    elsewhere = httpx.Response(302, headers={"location": "https://evil.example/"})
    with pytest.raises(SinkRefused, match="elsewhere"):
        await homeserver(elsewhere).whoami()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout(""),
        httpx.Response(401, json={"errcode": "M_UNKNOWN_TOKEN", "error": "no"}),
        httpx.Response(500),
    ],
)
async def test_the_token_is_nowhere_to_be_read(
    caplog: pytest.LogCaptureFixture, answer: httpx.Response | Exception
) -> None:
    """Not in an error, nor in any log, however much that tells."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SinkError) as caught:
        await homeserver(answer).whoami()
    assert TOKEN not in f"{caught.value!r}{caught.value.__cause__!r}{caplog.text}"


@pytest.mark.parametrize(
    ("url", "token", "said"),
    [
        ("matrix.example.org", TOKEN, "http://"),
        ("", TOKEN, "http://"),
        (URL, "", "BRIDGE_MATRIX_TOKEN"),
        (URL, "two\nlines", "BRIDGE_MATRIX_TOKEN"),
        (URL, "schlüssel", "BRIDGE_MATRIX_TOKEN"),
    ],
)
def test_what_can_not_be_used(url: str, token: str, said: str) -> None:
    """It is said at once, and without the token."""
    with pytest.raises(SettingsError) as caught:
        Homeserver(url, token)
    assert said in str(caught.value)
    assert not token or token not in str(caught.value)
