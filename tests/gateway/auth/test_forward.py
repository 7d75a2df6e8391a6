"""Asking the app whether a request may see a task."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from bridge.errors import AuthUnavailable, SettingsError
from bridge.gateway.auth import forward
from bridge.gateway.auth.forward import Forward
from bridge.gateway.auth.visitor import Visitor
from bridge.settings import Settings
from tests.elsewhere import Elsewhere, Said, elsewhere
from tests.gateway.auth.asking import question
from tests.waiting import eventually_async

ASKED = replace(question(cookie="session=s3cret"), authorization=b"Basic YW5uOnB3")


@asynccontextmanager
async def app(said: Said, path: str = "/may", **settings: Any) -> AsyncIterator[tuple[Forward, Elsewhere]]:
    """A judge, and the app that it asks."""
    with elsewhere(said) as one:
        judge = Forward(Settings(auth="forward", forward_url=one.url + path, **settings))
        async with judge.open():
            yield judge, one


async def test_the_app_is_told_who_asks_for_what() -> None:
    """It gets the credentials as they came, the task, the action and the client's address."""
    async with app(Said()) as (judge, one):
        assert await judge.judge(ASKED) is not None
        (asked,) = one.asked
        assert (asked.method, asked.path) == ("GET", "/may")
        wanted = {
            "authorization": "Basic YW5uOnB3",
            "cookie": "session=s3cret",
            "x-bridge-task": "job-1",
            "x-bridge-action": "read",
            "x-forwarded-for": "192.0.2.7",
        }
        assert wanted.items() <= asked.headers.items()


async def test_task_and_action_can_stand_in_the_url() -> None:
    """In path and query; an id is no path."""
    async with app(Said(), "/tasks/{task_id}/may?do={action}&id={task_id}") as (judge, one):
        await judge.judge(replace(ASKED, task_id="a:b~c", action="cancel"))
        assert one.asked[0].path == "/tasks/a%3Ab~c/may?do=cancel&id=a%3Ab~c"


@pytest.mark.parametrize(
    ("status", "sees"), [(200, True), (204, True), (299, True), (401, None), (403, False), (404, False)]
)
async def test_what_the_app_says(status: int, sees: bool | None) -> None:
    """Yes, no, or that these credentials are none."""
    async with app(Said(status)) as (judge, _):
        visitor = await judge.judge(ASKED)
        if sees is None:
            assert visitor is None
        else:
            assert visitor is not None
            assert visitor.may_see("anybody") is sees


async def test_visitors_have_names_that_say_nothing() -> None:
    """The same for the same credentials, another for others, and none of the app's without any."""
    async with app(Said()) as (judge, _):
        ann, again, bob, nobody = [
            await judge.judge(asked)
            for asked in (
                ASKED,
                replace(ASKED, task_id="job-2"),
                replace(ASKED, cookie=b"session=other"),
                question(),
            )
        ]
        assert ann is not None
        assert again is not None
        assert bob is not None
        assert ann.principal == again.principal != bob.principal
        assert ann.principal.startswith("forward:")
        assert nobody == Visitor("anonymous", granted=True)
    async with app(Said()) as (judge, _):
        restarted = await judge.judge(ASKED)
        assert restarted is not None
        assert restarted.principal != ann.principal


async def test_an_answer_counts_for_a_while_for_exactly_that_question() -> None:
    """Not for other credentials, another task or another action; one that is cut elsewhere is another."""
    async with app(Said()) as (judge, one):
        others = [
            replace(ASKED, task_id="job-2"),
            replace(ASKED, action="cancel"),
            replace(ASKED, authorization=None),
            replace(ASKED, cookie=None),
            replace(ASKED, authorization=b"Basic YW5uOnB3session=s3cret", cookie=b""),
            replace(ASKED, authorization=b"", cookie=b"Basic YW5uOnB3session=s3cret"),
        ]
        for _ in range(3):
            for each in (ASKED, *others):
                await judge.judge(each)
        assert len(one.asked) == 1 + len(others)


async def test_a_no_is_kept_as_well() -> None:
    """Also that credentials are none: a page that keeps asking costs the app little."""
    async with app(Said(403)) as (judge, one):
        assert await judge.judge(ASKED) == await judge.judge(ASKED)
        one.answer = lambda _: Said(401)
        other = replace(ASKED, task_id="job-2")
        assert await judge.judge(other) is await judge.judge(other) is None
        assert len(one.asked) == 2


async def test_nothing_is_kept_where_that_is_switched_off() -> None:
    """With 0 the app is asked each time."""
    async with app(Said(), forward_cache_seconds=0) as (judge, one):
        await judge.judge(ASKED)
        one.answer = lambda _: Said(403)
        visitor = await judge.judge(ASKED)
        assert visitor is not None
        assert not visitor.granted


async def test_an_answer_is_kept_no_longer_than_it_is_said_to() -> None:
    """After that the app is asked anew."""
    async with app(Said(), forward_cache_seconds=0.001) as (judge, one):
        await judge.judge(ASKED)
        one.answer = lambda _: Said(403)
        while (visitor := await judge.judge(ASKED)) is not None and visitor.granted:
            pass
        assert len(one.asked) >= 2


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest answers go first."""
    monkeypatch.setattr(forward, "_KEPT", 3)
    async with app(Said()) as (judge, one):
        for number in range(10):
            await judge.judge(replace(ASKED, task_id=f"job-{number}"))
        assert len(judge._answers) == 3
        await judge.judge(replace(ASKED, task_id="job-9"))
        assert len(one.asked) == 10
        await judge.judge(replace(ASKED, task_id="job-0"))
        assert len(one.asked) == 11


@pytest.mark.parametrize(
    "said",
    [
        Said(500), Said(502), Said(503), Said(400), Said(429), Said(304),
        Said(302, headers={"location": "/login"}), Said(307, headers={"location": "/may"}),
    ],
)  # fmt: skip
async def test_anything_else_lets_nobody_in(said: Said, caplog: pytest.LogCaptureFixture) -> None:
    """Redirects above all: they lead to a page to log in, which is a 200. It isn't kept, and told once."""
    async with app(said) as (judge, one):
        for _ in range(3):
            with pytest.raises(AuthUnavailable):
                await judge.judge(ASKED)
        assert [asked.path for asked in one.asked] == ["/may"] * 3
        assert caplog.text.count(f"status {said.status}") == 1
        one.answer = lambda _: Said()
        assert await judge.judge(ASKED) is not None
        assert caplog.text.count("answers again") == 1
        assert "s3cret" not in caplog.text


@pytest.mark.parametrize("begins", [False, True])
async def test_an_app_that_does_not_finish_lets_nobody_in(begins: bool) -> None:
    """In `forward_timeout_seconds` the whole answer must be there."""
    go_on = threading.Event()
    said = Said(body=b"x", after=go_on) if begins else Said(before=go_on)
    async with app(said, forward_timeout_seconds=0.2) as (judge, one):
        with pytest.raises(AuthUnavailable):
            await judge.judge(ASKED)
        go_on.set()
        one.answer = lambda _: Said()

        async def lets_in() -> bool:
            with suppress(AuthUnavailable):  # on a busy machine that time may be over once more
                return await judge.judge(ASKED) is not None
            return False

        await eventually_async(lets_in)


async def test_an_app_that_is_away_lets_nobody_in() -> None:
    """A connection that is refused."""
    async with app(Said()) as (judge, one):
        one.stop()
        with pytest.raises(AuthUnavailable):
            await judge.judge(ASKED)


async def test_a_large_answer_is_not_read_to_its_end() -> None:
    """Its status is what counts."""
    async with app(Said(body=b"x" * 10_000_000)) as (judge, _):
        assert await judge.judge(ASKED) is not None


async def test_the_environment_s_proxy_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is meant for the app goes to the app."""
    with elsewhere(Said(403)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with app(Said()) as (judge, one):
            visitor = await judge.judge(ASKED)
            assert visitor is not None
            assert visitor.granted
            assert (len(one.asked), len(proxy.asked)) == (1, 0)


async def test_connections_are_used_again() -> None:
    """A question costs a request, and not a connection."""
    ports = set()
    async with app(Said(body=b"{}"), forward_cache_seconds=0) as (judge, one):
        for _ in range(5):
            await judge.judge(ASKED)
            ports |= {len(judge._client._transport._pool.connections)}  # type: ignore[attr-defined] # httpx's
        assert ports == {1}
        assert len(one.asked) == 5


def test_without_an_address_a_gateway_does_not_start() -> None:
    """It says which setting is missing."""
    with pytest.raises(SettingsError, match="BRIDGE_FORWARD_URL"):
        Forward(Settings(auth="forward"))
