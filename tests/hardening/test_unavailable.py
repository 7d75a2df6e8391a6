"""Whoever knows about credentials made slow, or taken down: so that somebody comes in, or nobody any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from bridge.codec import dumps
from bridge.gateway.auth.jwks import AGAIN_SECONDS
from bridge.settings import Settings
from bridge.tickets import ticket
from tests.credentials import TICKET_KEY, bearer, jwk, signed
from tests.elsewhere import Asked, Elsewhere, Said, elsewhere
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer
from tests.waiting import eventually

STATUS, EVENTS, CANCEL = "/tasks/job-1/status", "/tasks/job-1/events", "/tasks/job-1/cancel"
COOKIE = {"Cookie": "session=1"}
# Made when the tests are collected, which may be half an hour before this one runs.
TICKET = bearer(ticket("job-1", ttl=86_400, settings=Settings(ticket_keys=TICKET_KEY)))
ANN = bearer(signed("RS256", "right", sub="ann"))
CLOSED = {"Connection": "close"}
"""Or a server that is down would go on to answer on the connections that it has."""
CROWD = 60
"""More than there are connections to the app."""


@pytest.fixture(autouse=True)
def _anns_task(writer: Writer) -> None:
    """A task to be after."""
    writer.create("ann")
    writer.open().text("private")


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a slow one waits for: the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def asking_app(redis_url: str, app: Elsewhere, **settings: Any) -> Any:
    """A gateway that takes tickets, and asks that app about everything else."""
    quick = {"forward_timeout_seconds": 0.3, "forward_cache_seconds": 0.0, **settings}
    return running(redis_url, auth="jwt forward", ticket_keys=TICKET_KEY, forward_url=app.url, **quick)


def reading_keys(redis_url: str, publisher: Elsewhere) -> Any:
    """A gateway that takes tickets, and tokens whose keys are published there."""
    return running(
        redis_url, auth="jwt", ticket_keys=TICKET_KEY, jwt_jwks_url=publisher.url, jwt_algorithms="RS256"
    )


def keys() -> Said:
    """A publisher's good answer."""
    return Said(body=dumps({"keys": [jwk("RS256", "right")]}), headers=CLOSED)


def let_in(gateway: Running) -> Viewer:
    """A stream that the app has let in. On a busy machine its first answers may themselves come too late."""

    def try_it() -> Viewer | None:
        viewer = Viewer(gateway, EVENTS, headers=COOKIE)
        try:
            return viewer.text_is("private")
        except AssertionError:
            viewer.close()
            return None

    viewer = eventually(try_it)
    assert viewer is not None
    return viewer


def made_up(number: int) -> dict[str, str]:
    """A token with a key id of its own."""
    return bearer(signed("RS256", f"kid-{number}", sub="ann"))


def nobody_comes_in(gateway: Running, headers: dict[str, str]) -> None:
    """503 to polls and cancels, a stream that says when to come back; nothing of the task in any of it."""
    for answer in (gateway.get(STATUS, headers=headers), gateway.post(CANCEL, headers=headers)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "auth_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    with Viewer(gateway, EVENTS, headers=headers) as viewer:
        viewer.to_end()
    assert viewer.status == 200
    assert viewer.body.startswith(b"retry: ")
    assert viewer.frames == []


@contextmanager
def asked_once(publisher: Elsewhere) -> Iterator[None]:
    """Whoever comes meanwhile, it is asked once; where all that takes long, once more in `AGAIN_SECONDS`."""
    begun = monotonic()
    yield
    assert 1 <= len(publisher.asked) <= 1 + (monotonic() - begun) // AGAIN_SECONDS


def crowd(gateway: Running, headers: Callable[[int], dict[str, str]]) -> set[int]:
    """The statuses that so many get at once."""
    with ThreadPoolExecutor(CROWD) as pool:
        return set(
            pool.map(lambda number: gateway.get(STATUS, headers=headers(number)).status_code, range(CROWD))
        )


SLOW: dict[str, Callable[[threading.Event], Said]] = {
    "says nothing": lambda never: Said(before=never),
    "never ends": lambda never: Said(after=never),
    "never ends a no": lambda never: Said(403, body=b"x" * 100, after=never),
}


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
def test_a_slow_forward_server(
    redis_url: str, writer: Writer, never: threading.Event, slow: Callable[[threading.Event], Said]
) -> None:
    """A crowd that it keeps waiting comes in by no way, and keeps out nobody who comes by another: tickets
    are read, streams go on. Once it is quick again its word counts at once.
    """
    with elsewhere(Said()) as app, asking_app(redis_url, app) as gateway:
        with let_in(gateway) as viewer:
            app.answer = lambda _: slow(never)
            nobody_comes_in(gateway, COOKIE)
            with ThreadPoolExecutor(1) as pool:
                before = len(app.asked)
                waiting = pool.submit(crowd, gateway, lambda number: {"Cookie": f"session={number}"})
                eventually(lambda: len(app.asked) > before)
                assert gateway.get(STATUS, headers=TICKET).status_code == 200
                assert waiting.result() == {503}
            assert writer.renew().cancel_requested is False
            writer.text(" and more")
            viewer.text_is("private and more")
            app.answer = lambda _: Said()
            eventually(lambda: gateway.get(STATUS, headers=COOKIE).status_code == 200)


def test_a_forward_server_that_is_down(redis_url: str, writer: Writer) -> None:
    """The same; and what it said before it went counts no longer than it is said to."""
    with (
        elsewhere(Said(headers=CLOSED)) as app,
        asking_app(redis_url, app, forward_cache_seconds=0.5) as gateway,
    ):
        eventually(lambda: gateway.get(STATUS, headers=COOKIE).status_code == 200)
        app.stop()
        nobody_comes_in(gateway, {"Cookie": "session=2"})
        eventually(lambda: gateway.get(STATUS, headers=COOKIE).status_code == 503)
        assert gateway.get(STATUS, headers=TICKET).status_code == 200
        assert crowd(gateway, lambda number: {"Cookie": f"session={number}"}) == {503}
        assert gateway.get(STATUS).status_code == 503  # it might let in whoever brings nothing
        assert gateway.get("/healthz").status_code == 200
        assert writer.renew().cancel_requested is False


def test_a_forward_server_that_breaks(redis_url: str, writer: Writer) -> None:
    """Whatever else it answers is no yes."""
    statuses = (100, 300, 302, 400, 405, 418, 429, 500, 502, 503, 599)
    with elsewhere(Said()) as app, asking_app(redis_url, app) as gateway:
        for status in statuses:
            app.answer = lambda _, status=status: Said(status)  # type: ignore[misc] # a default binds it
            assert gateway.get(STATUS, headers=COOKIE).status_code == 503, status
            assert gateway.post(CANCEL, headers=COOKIE).status_code == 503, status
    assert writer.renew().cancel_requested is False


def test_a_jwks_server_that_is_down(redis_url: str, writer: Writer) -> None:
    """Before its keys were ever read nobody comes in by them, whatever ids a crowd makes up; tickets need
    none. It isn't asked once per request.
    """
    with elsewhere(keys()) as publisher:
        publisher.answer = lambda _: Said(500)
        with reading_keys(redis_url, publisher) as gateway, asked_once(publisher):
            nobody_comes_in(gateway, ANN)
            assert crowd(gateway, made_up) == {503}
            assert gateway.get(STATUS, headers=TICKET).status_code == 200
            assert gateway.get(STATUS, headers=bearer("rubbish")).status_code == 401
    assert writer.renew().cancel_requested is False


def test_a_jwks_server_that_goes_down_later(redis_url: str, writer: Writer) -> None:
    """Keys that are known go on to count: taking the publisher down locks out nobody, and lets in nobody."""
    with elsewhere(keys()) as publisher, reading_keys(redis_url, publisher) as gateway:
        assert gateway.get(STATUS, headers=ANN).status_code == 200
        publisher.stop()
        assert gateway.get(STATUS, headers=ANN).status_code == 200
        assert (
            gateway.get(STATUS, headers=bearer(signed("RS256", "right", number=2, sub="ann"))).status_code
            == 401
        )
        other = bearer(signed("RS256", "new", number=2, sub="ann"))
        assert gateway.get(STATUS, headers=other).status_code == 401
        assert crowd(gateway, lambda _: ANN) == {200}


def test_a_slow_jwks_server(redis_url: str, writer: Writer, never: threading.Event) -> None:
    """A crowd waits for one fetch together, and no longer than a fetch may take; tickets don't wait."""

    def slow(_: Asked) -> Said:
        return Said(before=never)

    with elsewhere(slow) as publisher, reading_keys(redis_url, publisher) as gateway:
        with ThreadPoolExecutor(1) as pool, asked_once(publisher):
            first = pool.submit(gateway.get, STATUS, headers=made_up(CROWD))
            eventually(lambda: publisher.asked)
            # Before the crowd comes, which keeps a small machine busy for longer than the fetch may take.
            assert gateway.get(STATUS, headers=TICKET).status_code == 200
            assert not first.done()
            assert crowd(gateway, made_up) == {503}
            assert first.result().status_code == 503
        nobody_comes_in(gateway, ANN)
