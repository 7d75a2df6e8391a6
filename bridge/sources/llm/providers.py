"""The providers: where each is, how it wants to be asked, and which parser reads it.

A provider is a value: make it once and use it for any number of requests, from any event loop and thread.
Keys and headers appear in none of its texts; from what a provider says they are taken out before it goes to
the log.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import httpx

from bridge.codec import dumps, utf8
from bridge.errors import InvalidInput
from bridge.events import End, Event
from bridge.sources.llm import anthropic, gemini, ollama, openai
from bridge.sources.llm.answer import Answer, Parser
from bridge.sources.llm.errors import BAD_REQUEST, INTERRUPTED, UNAVAILABLE, Failure
from bridge.sources.llm.http import Limits, Post, exchange
from bridge.sources.llm.request import Request, with_options

log = logging.getLogger(__name__)

LONGEST_DETAIL: Final = 2000
"""Characters of a provider's own words that go to the log."""


@dataclass(frozen=True, slots=True)
class Provider(ABC):
    """One model at one provider.

    base_url
        Where it is, without a query; the usual place by default.
    api_key
        What lets us in, in the way of this format. Empty where none is needed.
    name
        By which it is known in logs, in the end's result and to whoever watches.
    headers, options
        Added to each request's headers and to its body. Options win over the request's own; objects are
        joined; None takes a member out, as in ``{"stream_options": None}`` for servers that don't know it.
    limits
        See `Limits`.
    stream
        False for one that can't: its whole answer is one chunk.
    http
        An httpx client of your own (its proxies, certificates, open connections), of the event loop in which
        requests are made. It isn't closed. Without it each request has a connection of its own.

    Raises `InvalidInput`.
    """

    model: str
    api_key: str = field(default="", repr=False, kw_only=True)
    base_url: str = field(default="", kw_only=True)
    name: str = field(default="", kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, kw_only=True)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, kw_only=True)
    limits: Limits = field(default_factory=Limits, repr=False, kw_only=True)
    stream: bool = field(default=True, kw_only=True)
    http: httpx.AsyncClient | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", _checked_url(self.base_url))
        for name, value in (("api_key", self.api_key), *self.headers.items()):
            if not value.isascii() or not value.isprintable() or value != value.strip():
                # Not shown: it may be a key, and a line end from its file is what is wrong with it.
                raise InvalidInput(f"{name} holds a line end, a space at an end, or what is no ASCII")
        if not self.model:
            raise InvalidInput("a provider needs the name of a model")

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """Ask the model; yield its answer and, last, an `End`. It raises nothing for what goes wrong out
        there.

        The end is `succeeded`, with ``{"provider", "model", "finish_reason"}`` as result, or `failed` with a
        code of `errors` and, where the provider said so, `retry_after_seconds` in the result. Usage is what
        was told.
        """
        parser = self._parser()
        answer = parser.answer
        try:
            post = self._post(request)
        except InvalidInput as error:
            answer.fail(BAD_REQUEST, str(error))
        else:
            async with aclosing(exchange(post, parser, self.limits, self.http)) as events:
                async for event in events:
                    yield event
        yield self._end(answer)

    @abstractmethod
    def _parser(self) -> Parser: ...

    @abstractmethod
    def _body(self, request: Request) -> dict[str, Any]: ...

    @abstractmethod
    def _url(self) -> str: ...

    def _own_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def _post(self, request: Request) -> Post:
        headers = {"content-type": "application/json", **self._own_headers()}
        headers |= {name.lower(): value for name, value in self.headers.items()}
        body = dumps(with_options(self._body(request), self.options))
        return Post(self._url(), headers, body, self.stream)

    def _end(self, answer: Answer) -> End:
        # Whoever keeps the result elsewhere can't be expected to know what to do with half a character.
        model, reason = (utf8(said).decode() for said in (answer.model[:200] or self.model, answer.reason))
        result: dict[str, Any] = {"provider": self.name, "model": model}
        usage = answer.usage or None
        failure = answer.failure
        if failure is None:
            return End("succeeded", result={**result, "finish_reason": reason or None}, usage=usage)
        if failure.code == INTERRUPTED and not answer.begun:
            # What hasn't begun can't break off.
            failure = replace(failure, code=UNAVAILABLE)
        log.warning("%s (%s) failed: %s: %s", self.name, self.model, failure.code, self._redacted(failure))
        if failure.retry_after is not None:
            result["retry_after_seconds"] = failure.retry_after
        return End("failed", failure.error, result, usage)

    def _redacted(self, failure: Failure) -> str:
        """What the provider said, without any of our secrets: some quote the key that they refuse."""
        words = [word for value in self.headers.values() for word in (value, *value.split())]
        detail = failure.detail
        for secret in sorted((self.api_key, *words), key=len, reverse=True):
            if len(secret) > 3:
                detail = detail.replace(secret, "***")
        # Cut only now: half a key would not have been found.
        return detail[:LONGEST_DETAIL]


@dataclass(frozen=True, slots=True)
class OpenAI(Provider):
    """OpenAI, and whatever speaks its chat completions at another `base_url`, which ends before ``/chat``.

    Others know `max_tokens`, which OpenAI itself calls `max_completion_tokens` by now.
    """

    base_url: str = field(default="https://api.openai.com/v1", kw_only=True)
    name: str = field(default="openai", kw_only=True)

    def _parser(self) -> Parser:
        return openai.OpenAIParser()

    def _body(self, request: Request) -> dict[str, Any]:
        theirs = urlsplit(self.base_url).hostname == "api.openai.com"
        limit = "max_completion_tokens" if theirs else "max_tokens"
        return openai.body(request, self.model, stream=self.stream, limit=limit)

    def _url(self) -> str:
        return f"{self.base_url}/chat/completions"


@dataclass(frozen=True, slots=True)
class Azure(OpenAI):
    """Azure OpenAI. `model` is the deployment, `base_url` the resource: ``https://NAME.openai.azure.com``."""

    base_url: str = field(default="", kw_only=True)
    name: str = field(default="azure", kw_only=True)
    api_version: str = field(default="2024-10-21", kw_only=True)

    def _body(self, request: Request) -> dict[str, Any]:
        return openai.body(request, self.model, stream=self.stream, limit="max_completion_tokens")

    def _url(self) -> str:
        query = urlencode({"api-version": self.api_version})
        return f"{self.base_url}/openai/deployments/{quote(self.model, safe='')}/chat/completions?{query}"

    def _own_headers(self) -> dict[str, str]:
        return {"api-key": self.api_key} if self.api_key else {}


@dataclass(frozen=True, slots=True)
class Anthropic(Provider):
    """Anthropic's messages."""

    base_url: str = field(default="https://api.anthropic.com", kw_only=True)
    name: str = field(default="anthropic", kw_only=True)

    def _parser(self) -> Parser:
        return anthropic.AnthropicParser()

    def _body(self, request: Request) -> dict[str, Any]:
        return anthropic.body(request, self.model, stream=self.stream)

    def _url(self) -> str:
        return f"{self.base_url}/v1/messages"

    def _own_headers(self) -> dict[str, str]:
        key = {"x-api-key": self.api_key} if self.api_key else {}
        return {"anthropic-version": "2023-06-01", **key}


@dataclass(frozen=True, slots=True)
class Ollama(Provider):
    """Ollama's own chat. A model that has to be loaded first needs time for its first token."""

    base_url: str = field(default="http://127.0.0.1:11434", kw_only=True)
    name: str = field(default="ollama", kw_only=True)

    def _parser(self) -> Parser:
        return ollama.OllamaParser()

    def _body(self, request: Request) -> dict[str, Any]:
        return ollama.body(request, self.model, stream=self.stream)

    def _url(self) -> str:
        return f"{self.base_url}/api/chat"


@dataclass(frozen=True, slots=True)
class Gemini(Provider):
    """Gemini's generateContent. The key goes into a header: a URL is written into logs."""

    base_url: str = field(default="https://generativelanguage.googleapis.com/v1beta", kw_only=True)
    name: str = field(default="gemini", kw_only=True)

    def _parser(self) -> Parser:
        return gemini.GeminiParser()

    def _body(self, request: Request) -> dict[str, Any]:
        return gemini.body(request)

    def _url(self) -> str:
        # "models/…" is what the list of models calls them; tuned ones stand elsewhere.
        model = quote(self.model if "/" in self.model else f"models/{self.model}", safe="/")
        method = "streamGenerateContent?alt=sse" if self.stream else "generateContent"
        return f"{self.base_url}/{model}:{method}"

    def _own_headers(self) -> dict[str, str]:
        return {"x-goog-api-key": self.api_key} if self.api_key else {}


def _checked_url(url: str) -> str:
    """A base URL without a slash at its end. Raises `InvalidInput`; says nothing of what may be a secret."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise InvalidInput("base_url is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise InvalidInput("base_url is needed, and begins with http:// or https://")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInput(
            "base_url holds a user, a query or a fragment: pass what is secret as api_key or headers"
        )
    return url.rstrip("/")
