"""`jwt`: tickets of the bridge, and the app's own tokens (RFC 7519, with the advice of RFC 8725).

Rules
-----
1. The algorithm is pinned by the settings and never believed from the token; a key is only ever used with
   algorithms of its own kind. So `none` doesn't exist here, and a public key is never a secret.
2. `kid` is a word to look up in a dictionary, and nothing else. `jku`, `x5u` and the like are not read.
   A token that names critical extensions (`crit`) is refused: none is understood.
3. Every token ends: one without `exp` is refused. `nbf` and `iat` count where they stand. Clocks may differ
   by `LEEWAY_SECONDS`.
4. A ticket is known by a key and an audience of its own, and is tried first.
5. What a token grants stands in its claim `bridge`: `{"tasks": ["job-42"] or ["*"], "actions": ["read"]}`,
   and with `owner` only tasks of theirs. One without that claim is a user's: they see and cancel the tasks
   whose owner is its `sub`. A token that is neither, or whose claim makes no sense, is not valid.
6. Of several tokens in one request the first that is valid counts: `?ticket=`, Authorization, the cookie.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import jwt

from bridge import checks
from bridge.errors import AuthUnavailable, SettingsError
from bridge.gateway.auth.jwks import KeySet
from bridge.gateway.auth.keys import Keys, read_keys
from bridge.gateway.auth.visitor import Question, Visitor, principal
from bridge.settings import Settings
from bridge.tickets import ALGORITHM, AUDIENCE, CLAIM

log = logging.getLogger("bridge.gateway")

MAX_BYTES: Final = 8192
"""Of a token. Larger ones don't fit into what proxies allow, and cost work before they are verified."""

LEEWAY_SECONDS: Final = 10


class Tokens:
    """A judge by what a token says. Raises `SettingsError` without a key, or for one that can't be used."""

    def __init__(self, settings: Settings) -> None:
        self._ticket_keys = settings.ticket_keys.split()
        self._algorithms = checks.words(settings.jwt_algorithms)
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._cookie = settings.jwt_cookie
        self._keys: Keys = read_keys(settings.jwt_keys, self._algorithms)
        self._published: KeySet | None = None
        if settings.jwt_jwks_url:
            if any(name in checks.HMAC for name in self._algorithms):
                raise SettingsError(
                    "jwt_algorithms must name algorithms of public keys, such as RS256, for jwt_jwks_url"
                )
            self._published = KeySet(settings.jwt_jwks_url)
        if not (self._ticket_keys or self._keys or self._published):
            raise SettingsError(
                "auth jwt needs a key: BRIDGE_TICKET_KEYS for tickets, BRIDGE_JWT_KEYS or BRIDGE_JWT_JWKS_URL"
                " for tokens of your own"
            )

    @property
    def waits(self) -> bool:
        """Only for keys that are published."""
        return self._published is not None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold the connection to where keys are published, if they are."""
        async with AsyncExitStack() as stack:
            if self._published is not None:
                await stack.enter_async_context(self._published.open())
            yield

    async def judge(self, question: Question) -> Visitor | None:
        """By the first token that is valid. Raises `AuthUnavailable` when its key may be a published one that
        can't be had now.
        """
        unavailable: AuthUnavailable | None = None
        for token in self._tokens(question):
            try:
                claims = await self._claims(token)
            except AuthUnavailable as error:
                unavailable = error
                continue
            visitor = None if claims is None else visitor_by(claims, question)
            if visitor is not None:
                return visitor
        if unavailable is not None:
            raise unavailable
        return None

    def _tokens(self, question: Question) -> Iterator[str]:
        scheme, _, credentials = (question.authorization or b"").decode("latin-1").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        for token in (question.ticket, bearer, self._from_cookie(question.cookie)):
            if token and len(token) <= MAX_BYTES:
                yield token

    def _from_cookie(self, header: bytes | None) -> str:
        if not self._cookie or not header:
            return ""
        # As browsers send them: name=value, separated by "; ". Others may be malformed as they like.
        for item in header.decode("latin-1").split(";"):
            name, _, value = item.strip().partition("=")
            if name == self._cookie:
                return value.strip('"')
        return ""

    async def _claims(self, token: str) -> dict[str, Any] | None:
        """What a valid token says."""
        header = _header(token)
        algorithm = header.get("alg")
        if algorithm == ALGORITHM:
            for secret in self._ticket_keys:
                claims = _verified(token, secret, ALGORITHM, audience=AUDIENCE)
                if claims is not None:
                    return claims if CLAIM in claims else None
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            return None
        for key in self._keys.get(algorithm, ()):
            claims = _verified(token, key, algorithm, audience=self._audience, issuer=self._issuer)
            if claims is not None:
                return claims
        if self._published is None:
            return None
        published = await self._published.find(algorithm, header.get("kid"))
        if published is None:
            return None
        return _verified(token, published, algorithm, audience=self._audience, issuer=self._issuer)


def visitor_by(claims: dict[str, Any], question: Question) -> Visitor | None:
    """Whom the claims of a valid token let in (rule 5); None when they make no sense."""
    sub = claims.get("sub")
    user = principal("sub", sub) if isinstance(sub, str) and sub else ""
    if CLAIM not in claims:
        return Visitor(user, owner=sub) if user else None
    grant = claims[CLAIM]
    if not isinstance(grant, dict):
        return None
    tasks, actions = _texts(grant.get("tasks")), _texts(grant.get("actions", ["read"]))
    owner = grant.get("owner")
    if tasks is None or actions is None or not (owner is None or isinstance(owner, str)):
        return None
    name = user or principal("ticket", tasks[0] if tasks else "")
    if not (question.task_id in tasks or "*" in tasks) or question.action not in actions:
        return Visitor(name)
    return Visitor(name, granted=True) if owner is None else Visitor(name, owner=owner)


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _header(token: str) -> dict[str, Any]:
    """A token's header, not verified; empty for what is no token, or one that asks for too much."""
    try:
        header: dict[str, Any] = jwt.get_unverified_header(token)
    except Exception as error:
        # Whatever a library does with text that somebody made up: it is no token.
        log.debug("what came as a token is none (%s)", type(error).__name__)
        return {}
    return {} if "crit" in header or "b64" in header else header


def _verified(
    token: str, key: Any, algorithm: str, *, audience: str, issuer: str = ""
) -> dict[str, Any] | None:
    """The claims of a token that this key has signed, and that is valid now and here."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audience or None,
            issuer=issuer or None,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp"]},
        )
    except Exception as error:
        # Mostly a PyJWTError, but odd claims (an `exp` of Infinity) raise others; either way it isn't valid.
        log.debug("a token is not valid (%s)", type(error).__name__)
        return None
    return claims
