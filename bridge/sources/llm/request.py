"""What a model is asked, the same for every provider. Pure.

Messages whose content is text mean the same everywhere. What else a message can hold (images, calls of tools
and their results) every provider writes in its own way: such messages are passed on as they are, so they fit
a chain whose providers all speak one format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.codec import MAX_DEPTH, dumps
from bridge.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    messages
        ``{"role": "system" | "user" | "assistant", "content": "…"}``, in order. A string alone is one message
        of the user's.
    max_tokens
        The answer has at most so many; without it as many as the provider allows (Anthropic: 4096).
    temperature, stop
        As everywhere: randomness, and texts at which the answer ends.
    tools
        ``{"name": "…", "description": "…", "parameters": {JSON Schema}}``. What the model calls is found in
        the task's data under `tool_calls`.

    What only one provider knows stands in that provider's `options`. It is copied, so that later changes to
    what was passed change nothing. Raises `InvalidInput` (a ValueError).
    """

    # Not shown: what people ask is nobody's business who reads a log.
    messages: Sequence[Mapping[str, Any]] = field(repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    stop: Sequence[str] = ()
    tools: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    def __init__(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        # A frozen object is set up like this.
        keep = object.__setattr__
        keep(self, "messages", _objects("messages", messages))
        keep(self, "max_tokens", max_tokens)
        keep(self, "temperature", temperature)
        keep(self, "stop", (stop,) if isinstance(stop, str) else tuple(stop))
        keep(self, "tools", _objects("tools", tools))
        if not self.messages:
            raise InvalidInput("a request needs at least one message")
        if not all(isinstance(message.get("role"), str) for message in self.messages):
            raise InvalidInput('every message needs a "role"')
        if not all(isinstance(tool.get("name"), str) for tool in self.tools):
            raise InvalidInput('every tool needs a "name"')
        if max_tokens is not None and max_tokens < 1:
            raise InvalidInput(f"max_tokens is a whole number above 0 (got {max_tokens})")


def _objects(name: str, values: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """A copy that its owner can't change any more."""
    copies = json.loads(dumps([dict(value) for value in values if isinstance(value, Mapping)], MAX_DEPTH))
    if len(copies) != len(values):
        raise InvalidInput(f"{name} are objects, such as {{'role': 'user', 'content': '…'}}")
    return tuple(copies)


def with_options(body: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A request's body with a provider's own options: they win, objects join, None takes a member out."""
    merged = dict(body)
    for name, value in options.items():
        there = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(there, Mapping):
            merged[name] = {**there, **value}
        else:
            merged[name] = value
    return merged


def system_text(request: Request) -> str:
    """All that the system says, for formats in which it is no message."""
    texts = [message.get("content") for message in request.messages if message["role"] == "system"]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidInput("this provider takes text alone as the system's message")
    return "\n\n".join(text for text in texts if text)


def functions(request: Request) -> list[dict[str, Any]]:
    """Tools as OpenAI has them, and those that follow it."""
    return [{"type": "function", "function": dict(tool)} for tool in request.tools]
