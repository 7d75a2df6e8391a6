"""OpenAI's chat completions, and what many others make of them. Pure.

Source: OpenAI API reference, "Chat Completions" and "Streaming"; Azure's, vLLM's, LocalAI's and OpenRouter's
pages on where they differ.

A stream is ``data: {chat.completion.chunk}`` events and, at the end, ``data: [DONE]``. What was seen to
differ:

- `choices` is empty (Azure's first chunk, the chunk with the usage) or null (vLLM); `delta` may be null.
- No ``[DONE]`` (LocalAI). So a `finish_reason` counts as the end when the connection ends after it.
- ``finish_reason: "abort"`` (vLLM) and ``"error"`` (OpenRouter) are failures, and errors come under HTTP 200.
- Reasoning is `reasoning_content` or `reasoning`, or a part of `content`, which may be a list (Mistral).
- Pieces of a tool's call have an `index`; some leave it out, or begin another call under the same one.
"""

from __future__ import annotations

from typing import Any, Final

from bridge.sources.llm.answer import REASONING, Parser, as_count, as_list, as_object, as_text
from bridge.sources.llm.request import Request, functions
from bridge.sse import Frame

_DONE: Final = "[DONE]"
_REASONS: Final = {"eos_token": "stop", "stop_sequence": "stop", "function_call": "tool_calls"}
_REFUSALS: Final = frozenset(("content_filter",))
_FAILURES: Final = frozenset(("abort", "error"))


def body(request: Request, model: str, *, stream: bool, limit: str = "max_tokens") -> dict[str, Any]:
    """What is posted. `limit` is the name under which this server takes `max_tokens`."""
    made: dict[str, Any] = {"model": model, "messages": list(request.messages)}
    if stream:
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.max_tokens is not None:
        made[limit] = request.max_tokens
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.stop:
        made["stop"] = list(request.stop)
    if request.tools:
        made["tools"] = functions(request)
    return made


class OpenAIParser(Parser):
    """Reads chat completions."""

    def _take(self, frame: Frame) -> None:
        if frame.data.strip() == _DONE:
            self.answer.end()
        else:
            self._chunk(self._object(frame.data), "delta")

    def _take_whole(self, value: Any) -> None:
        self._chunk(as_object(value), "message")
        if as_list(as_object(value).get("choices")):
            self.answer.end()

    def _chunk(self, chunk: dict[str, Any], member: str) -> None:
        self.answer.model = as_text(chunk.get("model")) or self.answer.model
        self._usage(as_object(chunk.get("usage")))
        for each in as_list(chunk.get("choices")):
            choice = as_object(each)
            if choice.get("index") in (0, None):  # others are further answers that nobody asked for
                self._delta(as_object(choice.get(member)))
                if reason := as_text(choice.get("finish_reason")):
                    self._finish(_REASONS.get(reason, reason), refusals=_REFUSALS, failures=_FAILURES)

    def _delta(self, delta: dict[str, Any]) -> None:
        # Some send the same text under both names.
        self.answer.say(as_text(delta.get("reasoning_content")) or as_text(delta.get("reasoning")), REASONING)
        content = delta.get("content")
        self.answer.say(as_text(content))
        for part in as_list(content):
            self._part(as_object(part))
        self.answer.say(as_text(delta.get("refusal")))
        for position, each in enumerate(as_list(delta.get("tool_calls"))):
            call, function = as_object(each), as_object(as_object(each).get("function"))
            place = as_count(call.get("index"))
            self.answer.call(
                position if place is None else place,
                call_id=as_text(call.get("id")),
                name=as_text(function.get("name")),
                arguments=as_text(function.get("arguments")),
            )

    def _part(self, part: dict[str, Any]) -> None:
        self.answer.say(as_text(part.get("text")))
        thinking = part.get("thinking")
        self.answer.say(as_text(thinking), REASONING)
        for inner in as_list(thinking):
            self.answer.say(as_text(as_object(inner).get("text")), REASONING)

    def _usage(self, usage: dict[str, Any]) -> None:
        self.answer.count(
            input_tokens=as_count(usage.get("prompt_tokens")),
            output_tokens=as_count(usage.get("completion_tokens")),
            cached_tokens=as_count(as_object(usage.get("prompt_tokens_details")).get("cached_tokens")),
            reasoning_tokens=as_count(
                as_object(usage.get("completion_tokens_details")).get("reasoning_tokens")
            ),
        )
