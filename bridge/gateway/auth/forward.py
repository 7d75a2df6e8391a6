"""`forward`: the app itself is asked whether a request may see a task.

Rules
-----
1. It is asked with `GET`, and told what it needs to know the user as it always does: the client's cookies
   and Authorization, as they came, and its address. `X-Bridge-Task` and `X-Bridge-Action` say what for.
2. 2xx: yes. 401: not with these credentials. 403 and 404: no, which the client can't tell from an unknown
   task. Anything else, a redirect above all (to a page to log in), nothing in time, or no connection: it
   can't be asked, and nobody comes in.
3. An answer counts for `forward_cache_seconds`, for the same credentials, task and action, so that a page's
   requests cost one question. That it can't be asked is not kept: the next request tries again.
4. Credentials are kept only as a hash with a key of this process, which says nothing outside of it. They go
   to `forward_url` alone: no proxy of the environment's, no redirect.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from time import monotonic
from typing import Final
from urllib.parse import quote

import httpx

from bridge.errors import AuthUnavailable, SettingsError
from bridge.gateway.auth.visitor import ANONYMOUS, Question, Visitor
from bridge.settings import Settings
from bridge.urls import shown

log = logging.getLogger("bridge.gateway")

_NO: Final = (403, 404)
_CONNECTIONS: Final = 50
_KEPT: Final = 10_000
"""So many answers are kept; the oldest go first."""
_BODY_BYTES: Final = 64 * 1024
"""A body is read, so that the connection can be used again, but not one that is larger."""


class Forward:
    """A judge that asks the app. Raises `SettingsError` without its address."""

    def __init__(self, settings: Settings) -> None:
        if not settings.forward_url:
            raise SettingsError(
                "auth forward needs BRIDGE_FORWARD_URL, where your app says who may see a task"
            )
        self._url = settings.forward_url
        self._timeout = settings.forward_timeout_seconds
        self._kept_seconds = settings.forward_cache_seconds
        self._key = secrets.token_bytes(32)
        self._answers: OrderedDict[bytes, tuple[float, Visitor | None]] = OrderedDict()
        self._well = True

    waits: Final = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold connections to the app."""
        self._answers.clear()
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        async with httpx.AsyncClient(
            timeout=self._timeout, limits=limits, follow_redirects=False, trust_env=False
        ) as client:
            self._client = client
            yield

    async def judge(self, question: Question) -> Visitor | None:
        """By what the app says, or said lately. Raises `AuthUnavailable`."""
        task = self._hash(question, question.task_id, question.action)
        until, visitor = self._answers.get(task, (0.0, None))
        if until > monotonic():
            return visitor
        visitor = self._visitor(question, await self._answer(question))
        if self._kept_seconds:
            self._answers[task] = (monotonic() + self._kept_seconds, visitor)
            self._answers.move_to_end(task)
            if len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return visitor

    def _visitor(self, question: Question, status: int) -> Visitor | None:
        if status == 401:
            return None
        known = question.authorization or question.cookie
        name = "forward:" + self._hash(question).hex()[:16] if known else ANONYMOUS
        return Visitor(name, granted=status not in _NO)

    def _hash(self, question: Question, *more: str) -> bytes:
        """Of the credentials and more, each with its length so that none runs into the next."""
        hashed = blake2b(key=self._key, digest_size=16)
        for part in (question.authorization, question.cookie, *(text.encode() for text in more)):
            hashed.update(b"-" if part is None else b"%d:%s" % (len(part), part))
        return hashed.digest()

    async def _answer(self, question: Question) -> int:
        """A status that means something (rule 2). Raises `AuthUnavailable`."""
        try:
            status = await self._ask(question)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            # Never its text: it may repeat a header that it didn't like.
            status, reason = 0, type(error).__name__
        else:
            reason = f"status {status}"
        well = 200 <= status < 300 or status == 401 or status in _NO
        if well != self._well:
            self._well = well
            words = "answers again" if well else f"can't say who may see tasks ({reason}): nobody is let in"
            log.warning("%s %s", shown(self._url), words)
        if not well:
            raise AuthUnavailable("Whether you may see this can't be found out now.")
        return status

    async def _ask(self, question: Question) -> int:
        url = self._url.replace("{task_id}", quote(question.task_id, safe=""))
        url = url.replace("{action}", question.action)
        headers = [
            (b"x-bridge-task", question.task_id.encode()),
            (b"x-bridge-action", question.action.encode()),
        ]
        if question.address:
            headers.append((b"x-forwarded-for", question.address.encode()))
        if question.authorization is not None:
            headers.append((b"authorization", question.authorization))
        if question.cookie is not None:
            headers.append((b"cookie", question.cookie))
        async with asyncio.timeout(self._timeout):
            async with self._client.stream("GET", url, headers=headers) as response:
                await _skip(response)
        return response.status_code


async def _skip(response: httpx.Response) -> None:
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > _BODY_BYTES:
            break
