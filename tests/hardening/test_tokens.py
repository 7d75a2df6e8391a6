"""Tokens that somebody made up, changed, kept or found."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.codec import dumps
from bridge.gateway.auth.tokens import LEEWAY_SECONDS, MAX_BYTES
from bridge.settings import Settings
from bridge.tickets import AUDIENCE, ticket
from tests.credentials import OTHER, SECRET, TICKET_KEY, bearer, claims, jwk, pem, private_key, signed, token
from tests.elsewhere import Elsewhere, Said, elsewhere
from tests.gateway.running import Running, running
from tests.gateway.writer import Writer
from tests.waiting import eventually

STATUS = "/tasks/job-1/status"
CANCEL = "/tasks/job-1/cancel"
TICKETS = Settings(ticket_keys=TICKET_KEY)
FOR_ALL = {"tasks": ["*"], "actions": ["read", "cancel"]}


@pytest.fixture(autouse=True)
def _anns_task(writer: Writer) -> None:
    """A task that is there to be seen."""
    writer.create("ann")
    writer.open().text("private")


@pytest.fixture
def public(redis_url: str) -> Iterator[Running]:
    """A gateway that trusts tokens signed with one RSA key, and tickets."""
    with running(
        redis_url, auth="jwt", jwt_keys=pem("RS"), jwt_algorithms="RS256", ticket_keys=TICKET_KEY
    ) as one:
        yield one


@pytest.fixture
def secret(redis_url: str) -> Iterator[Running]:
    """A gateway that trusts tokens signed with one secret, for one audience by one issuer, and tickets."""
    with running(
        redis_url,
        auth="jwt",
        jwt_keys=SECRET,
        jwt_issuer="app",
        jwt_audience="bridge",
        ticket_keys=TICKET_KEY,
    ) as one:
        yield one


@pytest.fixture
def publisher() -> Iterator[Elsewhere]:
    """One key is published, and what is asked for is remembered."""
    with elsewhere(Said(body=dumps({"keys": [jwk("RS256", "right")]}))) as one:
        yield one


def refused(gateway: Running, text: str, status: int = 401) -> None:
    """It lets nobody in, neither from the header nor from the URL, to read nor to cancel."""
    answers = [
        gateway.get(STATUS, headers=bearer(text)),
        gateway.get(STATUS, params={"ticket": text}),
        gateway.get("/tasks/job-1/events", headers=bearer(text)),
        gateway.post(CANCEL, headers=bearer(text)),
    ]
    assert [answer.status_code for answer in answers] == [status] * len(answers)
    assert all(b"private" not in answer.content for answer in answers)


def part(value: Any) -> str:
    """One part of a token that is made by hand."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: Any, payload: Any, key: str = "") -> str:
    """A token that no library would make; with a key its HMAC stands at the end."""
    body = f"{part(header)}.{part(payload)}"
    mac = hmac.new(key.encode(), body.encode(), hashlib.sha256).digest() if key else b""
    return f"{body}.{part(mac)}"


def test_the_gateways_let_the_right_ones_in(public: Running, secret: Running) -> None:
    """Else all that follows would prove nothing."""
    assert public.get(STATUS, headers=bearer(signed("RS256", sub="ann"))).status_code == 200
    good = token(sub="ann", iss="app", aud="bridge")
    assert secret.get(STATUS, headers=bearer(good)).status_code == 200
    for gateway in (public, secret):
        assert gateway.get(STATUS, headers=bearer(ticket("job-1", settings=TICKETS))).status_code == 200


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 0, False, [], ["none"], {}])
def test_none_algorithm(public: Running, secret: Running, name: Any) -> None:
    """RFC 8725, 3.2: a token that says it needs no signature, however it is spelt."""
    for header in ({"typ": "JWT", "alg": name}, {"typ": "JWT"}):
        for payload in (claims(sub="ann", iss="app", aud="bridge"), claims(aud=AUDIENCE, bridge=FOR_ALL)):
            for gateway in (public, secret):
                refused(gateway, by_hand(header, payload))


@pytest.mark.parametrize("name", ["HS256", "HS384", "HS512", "hs256"])
def test_confused_algorithms(public: Running, name: str) -> None:
    """RFC 8725, 2.1: signed with the public key as if it were a secret, in the forms that people have it."""
    text = pem("RS")
    for key in (text, text.strip(), text.strip() + "\n\n", "".join(text.split("\n")[1:-2])):
        for payload in (claims(sub="ann"), claims(aud=AUDIENCE, bridge=FOR_ALL)):
            refused(public, by_hand({"alg": name}, payload, key))


def test_confused_algorithms_with_published_keys(redis_url: str, publisher: Elsewhere) -> None:
    """A published key is no secret, also where somebody publishes one as such."""
    entry = {"kty": "oct", "kid": "shared", "k": part(SECRET.encode()), "alg": "HS256"}
    publisher.answer = lambda _: Said(body=dumps({"keys": [jwk("RS256", "right"), entry]}))
    with running(redis_url, auth="jwt", jwt_jwks_url=publisher.url, jwt_algorithms="RS256") as gateway:
        for kid in ("right", "shared"):
            for key in (pem("RS"), SECRET, entry["k"]):
                refused(gateway, by_hand({"alg": "HS256", "kid": kid}, claims(sub="ann"), key))


def test_another_algorithm_of_the_same_key(public: Running) -> None:
    """Only those that were chosen: a key that fits is not enough."""
    for algorithm in ("RS384", "RS512", "PS256"):
        refused(public, signed(algorithm, sub="ann"))


@pytest.mark.parametrize(
    "kid",
    ["../../../../dev/null", "/dev/null", "/etc/passwd", "file:///dev/null", "http://127.0.0.1:1/key",
     "' OR 1=1 --", "right\x00", "right\n", "RIGHT", " right", "", "__class__", "x" * 5000,
     "${jndi:ldap://127.0.0.1/a}", "{{7*7}}", "a\r\nX-Injected: 1"],
)  # fmt: skip
def test_kid_traversal(redis_url: str, publisher: Elsewhere, kid: str) -> None:
    """A key id is looked up among the published ones: it names no file, no address and no command."""
    with running(redis_url, auth="jwt", jwt_jwks_url=publisher.url, jwt_algorithms="RS256") as gateway:
        # With an empty file as the key, whoever reads it would believe this signature.
        refused(gateway, signed("RS256", kid, number=2, sub="ann"))
        refused(gateway, by_hand({"alg": "HS256", "kid": kid}, claims(sub="ann"), ""))
        refused(gateway, signed("RS256", kid, sub="ann"))
        assert {asked.path for asked in publisher.asked} == {"/"}


@pytest.mark.parametrize("kid", [1, None, True, ["right"], {"right": 1}, 1.5])
def test_kid_of_another_type(redis_url: str, publisher: Elsewhere, kid: Any) -> None:
    """What can't be a key of a dictionary is no key id."""
    with running(redis_url, auth="jwt", jwt_jwks_url=publisher.url, jwt_algorithms="RS256") as gateway:
        refused(gateway, by_hand({"alg": "RS256", "kid": kid}, claims(sub="ann"), SECRET))


def test_keys_that_a_token_brings_along(public: Running) -> None:
    """`jwk`, `jku` and `x5u`: nobody vouches for himself, and nobody makes the gateway fetch anything."""
    with elsewhere(Said(body=dumps({"keys": [jwk("RS256", "own", number=2)]}))) as attacker:
        for header in (
            {"jwk": jwk("RS256", "own", number=2)},
            {"jku": attacker.url, "kid": "own"},
            {"x5u": attacker.url},
        ):
            refused(public, token(private_key("RS", 2), "RS256", headers=header, sub="ann"))
        assert not attacker.asked


def test_critical_extensions(secret: Running) -> None:
    """RFC 7515, 4.1.11: who doesn't understand one must refuse; and unencoded payloads aren't understood."""
    for header in (
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "crit": ["b64"], "b64": False},
        {"alg": "HS256", "b64": False},
    ):
        refused(secret, by_hand(header, claims(sub="ann", iss="app", aud="bridge"), SECRET))


def test_expired(secret: Running) -> None:
    """Beyond what clocks may differ."""
    over = int(time.time()) - LEEWAY_SECONDS - 1
    refused(secret, token(sub="ann", iss="app", aud="bridge", exp=over))
    refused(secret, token(TICKET_KEY, aud=AUDIENCE, bridge=FOR_ALL, exp=over))


@pytest.mark.parametrize("exp", [None, "tomorrow", "", True, [], {}, float("inf"), float("nan"), -1, "1e999"])
def test_without_an_end(secret: Running, exp: Any) -> None:
    """A token that is for ever, or for a time that is none."""
    refused(secret, by_hand({"alg": "HS256"}, _with(exp, sub="ann", iss="app", aud="bridge"), SECRET))
    refused(secret, by_hand({"alg": "HS256"}, _with(exp, aud=AUDIENCE, bridge=FOR_ALL), TICKET_KEY))


def _with(exp: Any, **more: Any) -> dict[str, Any]:
    named = {name: value for name, value in claims(**more).items() if name != "exp"}
    return named if exp is None else {**named, "exp": exp}


def test_not_yet_valid(secret: Running) -> None:
    """Neither one that is for later, nor one that says it will have been issued."""
    later = int(time.time()) + LEEWAY_SECONDS + 60
    for name in ("nbf", "iat"):
        early = {name: later, "exp": later + 60}
        refused(
            secret, by_hand({"alg": "HS256"}, claims(sub="ann", iss="app", aud="bridge", **early), SECRET)
        )
        ticket_claims = claims(aud=AUDIENCE, bridge=FOR_ALL, **early)
        refused(secret, by_hand({"alg": "HS256"}, ticket_claims, TICKET_KEY))


@pytest.mark.parametrize("audience", [None, "other", "", ["other"], [], ["bridge-"], 1, {"bridge": 1}, [1]])
def test_wrong_audience(secret: Running, audience: Any) -> None:
    """A token that the same issuer made for another service."""
    payload = claims(sub="ann", iss="app")
    payload |= {} if audience is None else {"aud": audience}
    refused(secret, by_hand({"alg": "HS256"}, payload, SECRET))


@pytest.mark.parametrize("issuer", [None, "other", "", "APP", ["app"], 1, "app "])
def test_wrong_issuer(secret: Running, issuer: Any) -> None:
    """A token of another issuer that has the same key."""
    payload = claims(sub="ann", aud="bridge")
    payload |= {} if issuer is None else {"iss": issuer}
    refused(secret, by_hand({"alg": "HS256"}, payload, SECRET))


def test_wrong_key(public: Running, secret: Running) -> None:
    """Signed, but by somebody else."""
    refused(public, signed("RS256", number=2, sub="ann"))
    for key in (OTHER, TICKET_KEY, SECRET[:-1], SECRET + " ", ""):
        refused(secret, by_hand({"alg": "HS256"}, claims(sub="ann", iss="app", aud="bridge"), key))
    for key in (OTHER, SECRET):
        refused(secret, by_hand({"alg": "HS256"}, claims(aud=AUDIENCE, bridge=FOR_ALL), key))


def test_changed_claims(secret: Running) -> None:
    """The signature of one token under the claims of another, and each byte of it changed."""
    header, _, signature = ticket("job-2", settings=TICKETS).split(".")
    refused(secret, f"{header}.{part(claims(aud=AUDIENCE, bridge=FOR_ALL))}.{signature}")
    good = ticket("job-1", settings=TICKETS)
    for at in range(len(good) - 3):
        changed = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
        assert secret.get(STATUS, params={"ticket": changed}).status_code == 401


@pytest.mark.parametrize("action", ["get", "post"])
def test_a_ticket_for_another_task(secret: Running, action: str) -> None:
    """To its bearer this one is unknown."""
    path = STATUS if action == "get" else CANCEL
    for other in ("job-2", "job-", "job-10", "JOB-1", "job-1."):
        text = ticket(other, actions=("read", "cancel"), settings=TICKETS)
        assert getattr(secret, action)(path, headers=bearer(text)).status_code == 404


def test_a_ticket_without_the_action(secret: Running, writer: Writer) -> None:
    """Who may read may not cancel, and the other way round; nothing happens to the task."""
    read = bearer(ticket("job-1", settings=TICKETS))
    cancel = bearer(ticket("job-1", actions=("cancel",), settings=TICKETS))
    assert secret.post(CANCEL, headers=read).status_code == 404
    assert secret.get(STATUS, headers=cancel).status_code == 404
    assert secret.get(STATUS, headers=read).json()["cancel_requested"] is False


def test_replay_after_expiry(secret: Running) -> None:
    """A ticket that was good is not good for ever, wherever it was found."""

    def still_good() -> str | None:
        """Such a ticket. On a busy machine it may be over before it is looked at."""
        soon_over = int(time.time()) - LEEWAY_SECONDS + 2
        text = token(TICKET_KEY, aud=AUDIENCE, bridge=FOR_ALL, exp=soon_over)
        return text if secret.get(STATUS, headers=bearer(text)).status_code == 200 else None

    found = eventually(still_good)
    assert found is not None
    eventually(lambda: secret.get(STATUS, headers=bearer(found)).status_code != 200)
    refused(secret, found)


def test_replay_as_a_token_of_the_app(redis_url: str) -> None:
    """A ticket whose owner is ann is not ann, even where one key serves for both."""
    with running(redis_url, auth="jwt", jwt_keys=TICKET_KEY) as gateway:
        refused(gateway, ticket("job-1", owner="ann", settings=TICKETS))


HUGE: dict[str, Callable[[], str]] = {
    "signed, but too large": lambda: token(sub="ann", iss="app", aud="bridge", pad="x" * MAX_BYTES),
    "eight KiB of nothing": lambda: "a" * MAX_BYTES,
    "dots": lambda: "." * MAX_BYTES,
    "deep header": lambda: by_hand(b"[" * 5000, {}),
    "deep payload": lambda: by_hand({"alg": "HS256"}, b'{"a":' * 1000, SECRET),
    "large number in the header": lambda: by_hand(b'{"alg":' + b"9" * 5000 + b"}", {}),
    "large number as its end": lambda: by_hand({"alg": "HS256"}, b'{"exp":' + b"9" * 4500 + b"}", SECRET),
    "padding": lambda: "=" * 6000 + "." + "=" * 10 + ".",
    "control characters": lambda: "\x7f.\x7f.\x7f",
    "not ASCII": lambda: "\xff\xfe.\xe9.\xe9",
    "empty parts": lambda: "..",
    "one part": lambda: "bridge",
    "five parts, as if it were encrypted": lambda: ".".join([part({"alg": "dir"})] * 5),
}
"""Tokens that are too large, or seem to be none at all."""


@pytest.mark.parametrize("name", HUGE)
def test_huge_tokens(secret: Running, name: str) -> None:
    """Refused like any other, and nothing breaks."""
    text = HUGE[name]()
    assert secret.get(STATUS, params={"ticket": text}).status_code == 401
    raw = {b"Authorization": b"Bearer " + text.encode("latin-1")}
    if name != "control characters":  # which HTTP itself refuses
        assert secret.get(STATUS, headers=raw).status_code == 401
    assert secret.get("/healthz").status_code == 200


def test_two_authorizations(secret: Running) -> None:
    """Of two nobody can say which another, before or behind us, would believe."""
    good, bad = token(sub="ann", iss="app", aud="bridge"), "rubbish"
    for first, second in ((good, bad), (bad, good)):
        answer = secret.get(
            STATUS, headers=[("Authorization", f"Bearer {first}"), ("Authorization", f"Bearer {second}")]
        )
        assert answer.status_code == 401
