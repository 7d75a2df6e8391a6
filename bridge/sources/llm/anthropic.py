"""Anthropic's messages. Pure.

Source: Anthropic API reference, "Messages", "Streaming messages" and "Errors".

A stream begins with `message_start` and ends with `message_stop`. Between them are blocks
(`content_block_start`, `…_delta`, `…_stop`) and a `message_delta` with the reason for stopping and the usage,
which is cumulative. Any number of `ping` and of unknown types may stand anywhere; `error` ends it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bridge.errors import InvalidInput
from bridge.sources.llm.answer import REASONING, Parser, as_count, as_list, as_object, as_text
from bridge.sources.llm.request import Request, system_text
from bridge.sse import Frame

DEFAULT_MAX_TOKENS: Final = 4096
"""The format wants to be told."""

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
_REFUSALS: Final = frozenset(("refusal", "content_filter"))


def body(request: Request, model: str, *, stream: bool) -> dict[str, Any]:
    """What is posted. Raises `InvalidInput` for a system message that is no text."""
    made: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": [message for message in request.messages if message["role"] != "system"],
    }
    if not made["messages"]:
        raise InvalidInput("this provider needs a message that isn't the system's")
    if system := system_text(request):
        made["system"] = system
    if stream:
        made["stream"] = True
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.stop:
        made["stop_sequences"] = list(request.stop)
    if request.tools:
        made["tools"] = [_tool(tool) for tool in request.tools]
    return made


def _tool(tool: Any) -> dict[str, Any]:
    made = {name: value for name, value in tool.items() if name != "parameters"}
    return {**made, "input_schema": tool.get("parameters") or {"type": "object"}}


class AnthropicParser(Parser):
    """Reads messages."""

    def __init__(self) -> None:
        super().__init__()
        self._reason = ""
        """Why it stopped. It counts when `message_stop` has come."""
        self._input: dict[str, int] = {}

    def _take(self, frame: Frame) -> None:
        event = self._object(frame.data)
        place = as_count(event.get("index")) or 0
        match event.get("type"):
            case "message_start":
                message = as_object(event.get("message"))
                self.answer.model = as_text(message.get("model"))
                self._usage(as_object(message.get("usage")))
            case "content_block_start":
                self._block(as_object(event.get("content_block")), place)
            case "content_block_delta":
                self._delta(as_object(event.get("delta")), place)
            case "message_delta":
                self._reason = as_text(as_object(event.get("delta")).get("stop_reason")) or self._reason
                self._usage(as_object(event.get("usage")))
            case "message_stop":
                self._stop(self._reason)

    def _take_whole(self, value: Any) -> None:
        message = as_object(value)
        self.answer.model = as_text(message.get("model"))
        self._usage(as_object(message.get("usage")))
        for place, block in enumerate(as_list(message.get("content"))):
            self._block(as_object(block), place)
        if message.get("type") == "message":
            self._stop(as_text(message.get("stop_reason")))

    def _block(self, block: dict[str, Any], place: int) -> None:
        match block.get("type"):
            case "text":
                self.answer.say(as_text(block.get("text")))
            case "thinking":
                self.answer.say(as_text(block.get("thinking")), REASONING)
            case "tool_use":
                given = as_object(block.get("input"))  # empty where the deltas bring it
                self.answer.call(
                    place,
                    call_id=as_text(block.get("id")),
                    name=as_text(block.get("name")),
                    arguments=json.dumps(given) if given else "",
                )

    def _delta(self, delta: dict[str, Any], place: int) -> None:
        match delta.get("type"):
            case "text_delta":
                self.answer.say(as_text(delta.get("text")))
            case "thinking_delta":
                self.answer.say(as_text(delta.get("thinking")), REASONING)
            case "input_json_delta":
                self.answer.continue_call(place, as_text(delta.get("partial_json")))

    def _stop(self, reason: str) -> None:
        self._finish(_REASONS.get(reason, reason), refusals=_REFUSALS, failures=frozenset())
        self.answer.end()

    def _usage(self, usage: dict[str, Any]) -> None:
        names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        self._input |= {name: count for name in names if (count := as_count(usage.get(name))) is not None}
        self.answer.count(
            # Its own `input_tokens` are those that no cache had anything to do with.
            input_tokens=sum(self._input.values()) if self._input else None,
            output_tokens=as_count(usage.get("output_tokens")),
            cached_tokens=self._input.get("cache_read_input_tokens"),
        )
