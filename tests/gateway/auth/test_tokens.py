"""What tokens let in: tickets, and the app's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bridge.errors import SettingsError
from bridge.gateway.auth.tokens import Tokens
from bridge.gateway.auth.visitor import Action, Visitor
from bridge.settings import Settings
from bridge.tickets import AUDIENCE, ticket
from tests.credentials import OTHER, SECRET, TICKET_KEY, claims, pem, private_key, signed, token
from tests.gateway.auth.asking import judged, question

APP = {"jwt_keys": SECRET}
ACTIONS: tuple[Action, ...] = ("read", "cancel")
TICKETS = Settings(ticket_keys=TICKET_KEY)


def grant(**more: Any) -> dict[str, Any]:
    """The claim of a token that lists tasks."""
    return {"tasks": ["job-1"], "actions": ["read"], **more}


def test_a_user_sees_what_they_own() -> None:
    """`sub` is the owner that the app gave the task, for both actions."""
    for action in ACTIONS:
        asked = question(token(sub="ann"), action=action)
        assert judged(APP, asked) == Visitor("sub:ann", owner="ann")


@pytest.mark.parametrize(
    ("claim", "action", "sees"),
    [
        (grant(), "read", True),
        (grant(), "cancel", False),
        (grant(actions=["read", "cancel"]), "cancel", True),
        (grant(actions=["cancel"]), "read", False),
        (grant(actions=[]), "read", False),
        ({"tasks": ["job-1"]}, "read", True),
        ({"tasks": ["job-1"]}, "cancel", False),
        (grant(tasks=["job-2", "job-1"]), "read", True),
        (grant(tasks=["*"]), "read", True),
        (grant(tasks=["*"]), "cancel", False),
        (grant(tasks=["job-2"]), "read", False),
        (grant(tasks=["job-*"]), "read", False),
        (grant(tasks=["JOB-1"]), "read", False),
        (grant(tasks=[]), "read", False),
        (grant(more="members are ignored"), "read", True),
    ],
)
def test_a_claim_lists_tasks_and_actions(claim: dict[str, Any], action: Action, sees: bool) -> None:
    """Whoever owns them. What isn't listed isn't seen; without actions it is only reading."""
    visitor = judged(APP, question(token(bridge=claim, sub="ann"), action=action))
    assert visitor == Visitor("sub:ann", granted=sees)


@pytest.mark.parametrize(
    "claim",
    ["job-1", [], 1, {}, {"tasks": "job-1"}, {"tasks": None}, {"tasks": [1]}, {"tasks": [["job-1"]]},
     grant(actions="read"), grant(actions=None), grant(actions=[1]), grant(owner=1), grant(owner=["ann"])],
)  # fmt: skip
def test_a_claim_that_makes_no_sense_is_no_token(claim: Any) -> None:
    """It is not taken for a user's, whatever its subject is."""
    assert judged(APP, question(token(bridge=claim, sub="ann"))) is None


def test_a_claim_of_null_is_one_that_makes_no_sense() -> None:
    """An app that left it empty by mistake gives nobody more than it meant to."""
    text = jwt.encode({**claims(sub="ann"), "bridge": None}, SECRET, "HS256")
    assert judged(APP, question(text)) is None


def test_a_claim_with_an_owner_holds_for_their_tasks_only() -> None:
    """So an app can give a ticket for an id that a client named, without looking up whose it is."""
    visitor = judged(APP, question(token(bridge=grant(owner="ann"))))
    assert visitor is not None
    assert visitor.may_see("ann")
    assert not visitor.may_see("bob")
    assert not visitor.may_see("")
    empty = judged(APP, question(token(bridge=grant(owner=""))))
    assert empty is not None
    assert not empty.may_see("")


@pytest.mark.parametrize("sub", [None, ""])
def test_a_token_that_names_nobody_is_not_valid(sub: str | None) -> None:
    """Else all those whose tasks have no owner would be one."""
    assert judged(APP, question(token(sub=sub))) is None


def test_a_ticket_lets_in_for_its_task() -> None:
    """From the URL, and from the header."""
    text = ticket("job-1", settings=TICKETS)
    for asked in (question(ticket=text), question(text)):
        assert judged({"ticket_keys": TICKET_KEY}, asked) == Visitor("ticket:job-1", granted=True)
    owned = ticket("job-1", owner="ann", settings=TICKETS)
    assert judged({"ticket_keys": TICKET_KEY}, question(owned)) == Visitor("sub:ann", owner="ann")


@pytest.mark.parametrize("keys", [f"{OTHER} {TICKET_KEY}", f"{TICKET_KEY} {OTHER}", TICKET_KEY])
def test_keys_of_tickets_can_be_exchanged(keys: str) -> None:
    """Of two keys both are valid, whichever stands first."""
    assert judged({"ticket_keys": keys}, question(ticket("job-1", settings=TICKETS))) is not None
    assert judged({"ticket_keys": OTHER}, question(ticket("job-1", settings=TICKETS))) is None


@pytest.mark.parametrize("secret", [f"{SECRET} {OTHER}", f"{OTHER}\n{SECRET}"])
def test_keys_of_tokens_can_be_exchanged(secret: str) -> None:
    """Each of the keys is tried."""
    assert judged({"jwt_keys": secret}, question(token(sub="ann"))) is not None


@pytest.mark.parametrize(
    "algorithm",
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
)
def test_each_algorithm_with_a_public_key(algorithm: str) -> None:
    """The key stands in the setting as PEM, here beside one of another kind."""
    kind = algorithm if algorithm[0] == "E" else "RS"
    other, name = ("ES384", "ES384") if algorithm == "ES256" else ("ES256", "ES256")
    settings = {"jwt_keys": pem(other) + pem(kind), "jwt_algorithms": f"{name} {algorithm}"}
    assert judged(settings, question(signed(algorithm, sub="ann"))) == Visitor("sub:ann", owner="ann")
    assert judged(settings, question(signed(algorithm, number=2, sub="ann"))) is None


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_each_algorithm_with_a_secret(algorithm: str) -> None:
    """Only those that the setting names."""
    key = SECRET * 2
    text = token(key, algorithm, sub="ann")
    assert judged({"jwt_keys": key, "jwt_algorithms": algorithm}, question(text)) is not None
    other = "HS256" if algorithm != "HS256" else "HS512"
    assert judged({"jwt_keys": key, "jwt_algorithms": other}, question(text)) is None


def test_issuer_and_audience_must_be_named_as_set() -> None:
    """Where they are set a token must carry them; `aud` may be one of several."""
    settings = {**APP, "jwt_issuer": "https://id.example", "jwt_audience": "bridge"}
    good: dict[str, Any] = {"sub": "ann", "iss": "https://id.example", "aud": "bridge"}
    assert judged(settings, question(token(**good))) is not None
    assert judged(settings, question(token(**{**good, "aud": ["app", "bridge"]}))) is not None
    wrongs: list[dict[str, Any]] = [
        {"iss": None}, {"iss": "https://id.example/"}, {"aud": None}, {"aud": "Bridge"}, {"aud": []},
    ]  # fmt: skip
    for wrong in wrongs:
        assert judged(settings, question(token(**{**good, **wrong}))) is None


def test_the_cookie_that_is_named_is_read() -> None:
    """Among others, as browsers send them."""
    text = token(sub="ann")
    settings = {**APP, "jwt_cookie": "__Host-session"}
    for cookie in (f"__Host-session={text}", f"a=b; __Host-session={text}; c", f'__Host-session="{text}"'):
        assert judged(settings, question(cookie=cookie)) is not None
        assert judged(APP, question(cookie=cookie)) is None
    for cookie in (f"session={text}", f"x__Host-session={text}", f"__host-session={text}", "__Host-session"):
        assert judged(settings, question(cookie=cookie)) is None


def test_the_first_token_that_is_valid_counts() -> None:
    """An old cookie doesn't spoil a good ticket, nor the other way round."""
    settings = {**APP, "ticket_keys": TICKET_KEY, "jwt_cookie": "s"}
    good, old = token(sub="ann"), token(sub="ann", exp=1)
    new = ticket("job-1", settings=TICKETS)
    visitor = judged(settings, question(old, ticket=new, cookie=f"s={good}"))
    assert visitor == Visitor("ticket:job-1", granted=True)
    visitor = judged(settings, question(old, ticket="rubbish", cookie=f"s={good}"))
    assert visitor == Visitor("sub:ann", owner="ann")


@pytest.mark.parametrize("scheme", [b"bearer", b"BEARER", b"Bearer  "])
def test_the_scheme_is_read_as_http_says(scheme: bytes) -> None:
    """RFC 9110, 11.1: a case-insensitive token."""
    asked, text = question(), token(sub="ann").encode()
    assert judged(APP, replace(asked, authorization=scheme + b" " + text)) is not None
    assert judged(APP, replace(asked, authorization=b"Basic " + text)) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "auth jwt needs a key"),
        ({"jwt_keys": "short"}, "jwt_keys must have at least 32 bytes"),
        ({"jwt_keys": SECRET, "jwt_algorithms": "HS512"}, "jwt_keys must have at least 64 bytes"),
        ({"jwt_keys": "PEM"}, "jwt_keys holds a PEM key"),
        ({"jwt_keys": SECRET, "jwt_algorithms": "RS256"}, "jwt_keys must hold public keys"),
        (
            {"jwt_keys": "PEM", "jwt_algorithms": "ES256"},
            "key 1 is no public key that jwt_algorithms can use",
        ),
        ({"jwt_keys": "PRIVATE", "jwt_algorithms": "RS256"}, "key 1 is a private one"),
        ({"jwt_keys": "SHORT", "jwt_algorithms": "RS256"}, "key 1 is no public key"),
        ({"jwt_keys": "file:/nowhere/key.pem", "jwt_algorithms": "RS256"}, "names a file that can't be read"),
        ({"jwt_jwks_url": "https://id.example/jwks"}, "jwt_algorithms must name algorithms of public keys"),
    ],
)
def test_a_gateway_without_a_usable_key_does_not_start(settings: dict[str, str], said: str) -> None:
    """It says what is wrong, and no key."""
    private = private_key("RS").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    texts = {"PEM": pem("RS"), "PRIVATE": private, "SHORT": pem("short")}
    filled: dict[str, Any] = {name: texts.get(value, value) for name, value in settings.items()}
    with pytest.raises(SettingsError, match=said) as caught:
        Tokens(Settings(auth="jwt", **filled))
    assert SECRET not in str(caught.value)
    assert "-----BEGIN" not in str(caught.value)
    assert "MII" not in str(caught.value)


def test_keys_may_stand_in_files(tmp_path: Path) -> None:
    """As `file:/path`, also beside others."""
    (tmp_path / "key.pem").write_text(pem("RS"))
    (tmp_path / "secret").write_text(SECRET + "\n")
    settings = {"jwt_keys": f"file:{tmp_path}/key.pem {pem('RS', 2)}", "jwt_algorithms": "RS256"}
    assert judged(settings, question(signed("RS256", sub="ann"))) is not None
    assert judged(settings, question(signed("RS256", number=2, sub="ann"))) is not None
    assert judged({"jwt_keys": f"file:{tmp_path}/secret"}, question(token(sub="ann"))) is not None


def test_a_ticket_is_no_token_of_the_app_and_the_other_way_round() -> None:
    """Even with one key for both: the audience tells them apart."""
    both = {"jwt_keys": SECRET, "ticket_keys": OTHER}
    forged = token(sub="ann", aud=AUDIENCE, bridge=grant(tasks=["*"]))
    assert judged(both, question(forged)) is None
    assert judged({"ticket_keys": SECRET}, question(token(sub="ann"))) is None
    assert judged({"ticket_keys": SECRET}, question(token(sub="ann", aud=AUDIENCE))) is None
