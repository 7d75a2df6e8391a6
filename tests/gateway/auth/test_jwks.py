"""Published keys: fetched when needed, kept, exchanged, and what happens while nobody publishes them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm

from bridge.errors import AuthUnavailable
from bridge.gateway.auth import jwks
from bridge.gateway.auth.jwks import AGAIN_SECONDS, FRESH_SECONDS, MAX_BYTES, STALE_SECONDS, KeySet
from bridge.gateway.auth.tokens import Tokens
from bridge.settings import Settings
from tests.credentials import jwk, private_key, signed
from tests.elsewhere import Asked, Elsewhere, Said, elsewhere
from tests.gateway.auth.asking import question
from tests.waiting import DEADLINE_SECONDS, eventually_async


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def published(*entries: Any) -> Said:
    """A key set."""
    return Said(body=json.dumps({"keys": entries}).encode())


@asynccontextmanager
async def key_set(
    said: Said, fetch_seconds: float = DEADLINE_SECONDS
) -> AsyncIterator[tuple[KeySet, Elsewhere, Clock]]:
    """A key set that has read nothing yet, its publisher and its clock."""
    clock = Clock()
    with elsewhere(said) as publisher:
        keys = KeySet(f"{publisher.url}/jwks.json", clock=clock, fetch_seconds=fetch_seconds)
        async with keys.open():
            yield keys, publisher, clock


async def test_keys_are_fetched_once_for_many() -> None:
    """However many tokens come at the same moment, and afterwards."""
    async with key_set(published(jwk("RS256", "a"), jwk("ES256", "b"))) as (keys, publisher, _):
        found = await asyncio.gather(*(keys.find("RS256", "a") for _ in range(20)))
        assert all(key is found[0] for key in found)
        assert found[0] is not None
        assert await keys.find("ES256", "b") is not None
        assert [one.path for one in publisher.asked] == ["/jwks.json"]


async def test_a_key_is_used_with_algorithms_of_its_kind_only() -> None:
    """An RSA key for RS and PS, unless it names one; a curve for its own."""
    entries = [jwk("RS256", "any"), jwk("RS256", "one", alg="PS384"), jwk("ES384", "curve")]
    async with key_set(published(*entries)) as (keys, _, _):
        for algorithm in ("RS256", "RS512", "PS256"):
            assert await keys.find(algorithm, "any") is not None
        assert await keys.find("PS384", "one") is not None
        assert await keys.find("RS256", "one") is None
        assert await keys.find("ES384", "curve") is not None
        for algorithm in ("ES256", "RS256", "EdDSA", "HS256", "none"):
            assert await keys.find(algorithm, "curve") is None


async def test_without_an_id_only_where_there_is_no_choice() -> None:
    """RFC 7515 leaves `kid` out where the key is known anyhow."""
    async with key_set(published(jwk("RS256", "a"), jwk("ES256"))) as (keys, publisher, clock):
        assert await keys.find("RS256", None) is not None
        assert await keys.find("ES256", None) is not None
        publisher.answer = lambda _: published(jwk("RS256", "a"), jwk("RS256", "b", number=2))
        clock.now += FRESH_SECONDS
        assert await keys.find("RS256", None) is None
        assert await keys.find("RS256", "a") is not await keys.find("RS256", "b")


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "a"},
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "a", "alg": "RS256"},
        jwk("RS256", "a", use="enc"),
        jwk("RS256", "a", alg="HS256"),
        jwk("RS256", "a", alg="RSA-OAEP"),
        jwk("RS256", "a", alg=["RS256"]),
        jwk("RS256", "a", kty="EC"),
        jwk("RS256", "a", n="AQAB"),
        jwk("RS256", "a", n=None),
        {**ECAlgorithm.to_jwk(private_key("ES256"), as_dict=True), "kid": "a", "use": "sig"},
        {**jwk("RS256"), "kid": ["a"]},
        {**jwk("RS256"), "kid": {"a": 1}},
        {"kid": "a"}, [], "a", None, 7,
    ],
)  # fmt: skip
async def test_what_is_no_key_for_signatures_is_left_out(entry: Any) -> None:
    """Shared secrets above all; and one that is broken doesn't spoil the others."""
    async with key_set(published(entry, jwk("ES256", "good"))) as (keys, _, _):
        for algorithm in ("RS256", "ES256", "HS256"):
            assert await keys.find(algorithm, "a") is None
        assert await keys.find("ES256", "good") is not None


async def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    """Publishers exchange keys without notice."""
    async with key_set(published(jwk("RS256", "old"))) as (keys, publisher, clock):
        assert await keys.find("RS256", "old") is not None
        publisher.answer = lambda _: published(jwk("RS256", "old"), jwk("RS256", "new", number=2))
        clock.now += AGAIN_SECONDS
        assert await keys.find("RS256", "new") is not None
        assert len(publisher.asked) == 2


async def test_made_up_key_ids_do_not_make_many_fetches() -> None:
    """All together one within ten seconds."""
    async with key_set(published(jwk("RS256", "a"))) as (keys, publisher, clock):
        for fetches in (1, 2, 3):
            for number in range(50):
                assert await keys.find("RS256", f"made-up-{number}") is None
                clock.now += AGAIN_SECONDS / 100
            assert len(publisher.asked) == fetches
            clock.now += AGAIN_SECONDS / 2


async def test_a_key_that_is_withdrawn_goes() -> None:
    """With the next fetch, which is after five minutes at the latest."""
    async with key_set(published(jwk("RS256", "a"), jwk("RS256", "b", number=2))) as (keys, publisher, clock):
        assert await keys.find("RS256", "b") is not None
        publisher.answer = lambda _: published(jwk("RS256", "a"))
        clock.now += FRESH_SECONDS - 1
        assert await keys.find("RS256", "b") is not None
        clock.now += 1
        assert await keys.find("RS256", "b") is None


async def test_all_keys_can_be_withdrawn(caplog: pytest.LogCaptureFixture) -> None:
    """An empty set is a set; the log says that nobody can come in."""
    async with key_set(published(jwk("RS256", "a"))) as (keys, publisher, clock):
        assert await keys.find("RS256", "a") is not None
        publisher.answer = lambda _: published()
        clock.now += FRESH_SECONDS
        assert await keys.find("RS256", "a") is None
        assert "there is no key" in caplog.text


async def test_keys_outlive_an_outage_of_their_publisher(caplog: pytest.LogCaptureFixture) -> None:
    """For an hour; it is asked again every ten seconds, and the log says so once. Then nobody can tell."""
    caplog.set_level(logging.WARNING)
    async with key_set(published(jwk("RS256", "a"))) as (keys, publisher, clock):
        assert await keys.find("RS256", "a") is not None
        publisher.answer = lambda _: Said(500)
        clock.now += FRESH_SECONDS
        for _ in range(5):
            assert await keys.find("RS256", "a") is not None
            assert await keys.find("RS256", "a") is not None
            clock.now += AGAIN_SECONDS
        assert len(publisher.asked) == 1 + 5
        with pytest.raises(AuthUnavailable):
            await keys.find("RS256", "unknown")
        clock.now = 1000.0 + STALE_SECONDS
        with pytest.raises(AuthUnavailable):
            await keys.find("RS256", "a")
        assert caplog.text.count("can't be read (status 500)") == 1
        publisher.answer = lambda _: published(jwk("RS256", "a"))
        clock.now += AGAIN_SECONDS
        assert await keys.find("RS256", "a") is not None
        assert "can be read again" in caplog.text


async def test_while_a_fetch_is_slow_the_keys_that_are_here_are_used() -> None:
    """One request waits for it, and that not for long; the others don't."""
    async with key_set(published(jwk("RS256", "a")), fetch_seconds=3.0) as (keys, publisher, clock):
        before = await keys.find("RS256", "a")
        go_on = threading.Event()
        publisher.answer = lambda _: Said(before=go_on)
        clock.now += FRESH_SECONDS
        first = asyncio.create_task(keys.find("RS256", "a"))
        await eventually_async(lambda: len(publisher.asked) == 2)
        assert await asyncio.wait_for(keys.find("RS256", "a"), 2.0) is before
        assert not first.done()
        assert await first is before
        go_on.set()


def garbage() -> Sequence[Said]:
    """What is no key set."""
    return [
        Said(body=b""),
        Said(body=b"<html>log in</html>"),
        Said(body=b"[]"),
        Said(body=b"null"),
        Said(body=b"{}"),
        Said(body=b'{"keys": {}}'),
        Said(body=b'{"keys": "' + b"x" * MAX_BYTES + b'"}'),
        Said(body=b'{"keys": ' + b"[" * 100_000),
        Said(body=b'{"keys": [' + b"9" * 10_000 + b"]}"),
        Said(body=b"\xff\xfe\x00"),
        Said(301, headers={"location": "http://127.0.0.1:1/"}),
        Said(204),
        Said(404),
        Said(503),
    ]


@pytest.mark.parametrize("said", garbage())
async def test_what_is_no_key_set_lets_nobody_in(said: Said) -> None:
    """And is no reason to forget the keys that were there before."""
    async with key_set(said) as (keys, publisher, clock):
        with pytest.raises(AuthUnavailable):
            await keys.find("RS256", "a")
        with pytest.raises(AuthUnavailable):
            await keys.find("RS256", "a")
        assert len(publisher.asked) == 1
        publisher.answer = lambda _: published(jwk("RS256", "a"))
        clock.now += AGAIN_SECONDS
        assert await keys.find("RS256", "a") is not None
        publisher.answer = lambda _: said
        clock.now += FRESH_SECONDS
        assert await keys.find("RS256", "a") is not None


@pytest.mark.parametrize("begins", [False, True])
async def test_a_publisher_that_does_not_finish_is_not_waited_for(begins: bool) -> None:
    """Neither one that says nothing, nor one whose answer never ends."""
    go_on = threading.Event()
    said = Said(body=b"{", after=go_on) if begins else Said(before=go_on)
    async with key_set(said, fetch_seconds=0.3) as (keys, _, _):
        with pytest.raises(AuthUnavailable):
            await keys.find("RS256", "a")
        go_on.set()


async def test_keys_are_where_the_setting_says() -> None:
    """Not where a redirect leads."""

    def answer(asked: Asked) -> Said:
        moved = Said(302, headers={"location": "/moved.json"})
        return moved if asked.path == "/jwks.json" else published(jwk("RS256", "a"))

    async with key_set(Said()) as (keys, publisher, _):
        publisher.answer = answer
        with pytest.raises(AuthUnavailable):
            await keys.find("RS256", "a")


async def test_nobody_there_to_publish() -> None:
    """A connection that is refused is an outage like others."""
    async with key_set(published()) as (keys, publisher, _):
        publisher.stop()
        with pytest.raises(AuthUnavailable):
            await keys.find("RS256", "a")


async def test_of_too_many_keys_the_first_hundred_count() -> None:
    """Nobody needs so many; each costs memory."""
    entries = [jwk("ES256", f"key-{number}") for number in range(jwks._MAX_KEYS + 1)]
    async with key_set(published(*entries)) as (keys, _, _):
        assert await keys.find("ES256", "key-99") is not None
        assert await keys.find("ES256", "key-100") is None


async def test_a_token_that_is_signed_with_a_published_key() -> None:
    """From end to end: what the token says its key is, is found and must have signed it."""

    def answer(_: Asked) -> Said:
        return published(jwk("RS256", "a"), jwk("RS256", "b", number=2))

    with elsewhere(answer) as publisher:
        tokens = Tokens(Settings(auth="jwt", jwt_jwks_url=publisher.url, jwt_algorithms="RS256 ES256"))
        async with tokens.open():
            assert await tokens.judge(question(signed("RS256", "a", sub="ann"))) is not None
            assert await tokens.judge(question(signed("RS256", "b", sub="ann"))) is None
            assert await tokens.judge(question(signed("RS256", "b", number=2, sub="ann"))) is not None
            assert await tokens.judge(question(signed("ES256", "a", sub="ann"))) is None
        publisher.stop()
        async with tokens.open():
            # Keys are kept also when a gateway is started anew in the same process.
            assert await tokens.judge(question(signed("RS256", "a", sub="ann"))) is not None
