"""Published keys: a JSON Web Key Set (RFC 7517) behind a URL, kept here and renewed.

Rules
-----
1. Keys are fetched when a token first needs one. They count as new for `FRESH_SECONDS`; after that the next
   token that needs one has them fetched anew. When that fails, the old ones count until `STALE_SECONDS` have
   passed since they were fetched: so long the publisher may be away, and a key that he withdraws may live.
2. An unknown `kid` has them fetched at once, because keys are exchanged without notice; but all together at
   most once in `AGAIN_SECONDS`, whatever ids people make up. Nor is a publisher who is down asked more often.
3. One fetch at a time, within `FETCH_SECONDS` in all, and of at most `MAX_BYTES`; no redirects. Of many
   requests one waits for it; the others only when the keys that are here are of no use to them.
4. A key that isn't there: the token is not valid if the set could be read the last time, and can't be judged
   (`AuthUnavailable`) if not. So a new key that signs before it has been public for `AGAIN_SECONDS` may be
   refused; publishers wait longer than that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import httpx

from bridge.errors import AuthUnavailable
from bridge.gateway.auth.keys import published_key
from bridge.urls import shown

log = logging.getLogger("bridge.gateway")

FRESH_SECONDS: Final = 300.0
STALE_SECONDS: Final = 3600.0
AGAIN_SECONDS: Final = 10.0
FETCH_SECONDS: Final = 3.0
MAX_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 100
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class _Published:
    kid: str | None
    algorithms: frozenset[str]
    key: Any


class KeySet:
    """The keys at one URL. `open` is entered while `find` is called; `clock` counts seconds from anywhere."""

    def __init__(
        self, url: str, *, clock: Callable[[], float] = monotonic, fetch_seconds: float = FETCH_SECONDS
    ) -> None:
        self._url = url
        self._clock = clock
        self._fetch_seconds = fetch_seconds
        self._keys: list[_Published] = []
        self._by_id: dict[str, list[_Published]] = {}
        self._fetched_at = self._tried_at = self._done_at = _NEVER
        self._well = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a connection. Keys from before are kept."""
        self._lock = asyncio.Lock()
        async with httpx.AsyncClient(timeout=self._fetch_seconds, follow_redirects=False) as client:
            self._client = client
            yield

    async def find(self, algorithm: str, kid: Any) -> Any | None:
        """The key for a token, or None when there is none. Raises `AuthUnavailable`."""
        now = self._clock()
        age = now - self._fetched_at
        key = self._pick(algorithm, kid) if age < STALE_SECONDS else None
        if (key is None or age >= FRESH_SECONDS) and not (key is not None and self._lock.locked()):
            await self._renew(now)
            key = self._pick(algorithm, kid) if now - self._fetched_at < STALE_SECONDS else None
        if key is None and not self._well:
            raise AuthUnavailable("The keys of tokens can't be read now.")
        return key

    def _pick(self, algorithm: str, kid: Any) -> Any | None:
        """By its id; without one only if there is no choice."""
        named = self._keys if kid is None else self._by_id.get(kid, []) if isinstance(kid, str) else []
        fitting = [each.key for each in named if algorithm in each.algorithms]
        return fitting[0] if len(fitting) == 1 else None

    async def _renew(self, asked_at: float) -> None:
        """Fetch the keys, unless somebody did while we waited, or it was tried just now."""
        async with self._lock:
            if self._done_at >= asked_at or self._clock() - self._tried_at < AGAIN_SECONDS:
                return
            self._tried_at = self._clock()
            try:
                entries = await self._fetch()
            except (httpx.HTTPError, OSError, ValueError, RecursionError, TimeoutError) as error:
                if self._well:
                    log.warning("the keys at %s can't be read (%s)", shown(self._url), _reason(error))
                self._well = False
            else:
                if not self._well:
                    log.warning("the keys at %s can be read again", shown(self._url))
                self._well = True
                self._fetched_at = self._clock()
                self._take(entries)
            self._done_at = self._clock()

    async def _fetch(self) -> list[Any]:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        body = b""
        async with (
            asyncio.timeout(self._fetch_seconds),
            self._client.stream("GET", self._url, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_BYTES:
                    raise ValueError("it is too large")
        document = json.loads(body)
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("it is no key set")  # noqa: TRY004 (what came over the wire has no type)
        return entries[:_MAX_KEYS]

    def _take(self, entries: list[Any]) -> None:
        found = [published_key(entry) for entry in entries]
        self._keys = [_Published(one[0], frozenset(one[1]), one[2]) for one in found if one is not None]
        self._by_id = {}
        for key in self._keys:
            if key.kid is not None:
                self._by_id.setdefault(key.kid, []).append(key)
        if not self._keys:
            log.warning("there is no key at %s that a token could be signed with", shown(self._url))


def _reason(error: Exception) -> str:
    """Ours says what it was. Those of libraries may repeat what they were given."""
    return str(error) if type(error) is ValueError else type(error).__name__
