"""Gemini's generateContent. Pure.

Source: Gemini API reference, "models.generateContent", "models.streamGenerateContent" and
"GenerateContentResponse".

A stream is ``data:`` events that each look like a whole response, with the next parts. There is no end
marker: a `finishReason` is the last thing that is said, and the connection ends. A prompt that was blocked
has no candidates but a `promptFeedback`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.errors import InvalidInput
from bridge.events import MAIN_FIELD
from bridge.sources.llm.answer import REASONING, Parser, as_count, as_list, as_object, as_text
from bridge.sources.llm.errors import CONTENT_FILTER
from bridge.sources.llm.request import Request, system_text
from bridge.sse import Frame

_REASONS: Final = {"STOP": "stop", "MAX_TOKENS": "length", "FINISH_REASON_UNSPECIFIED": ""}
_REFUSALS: Final = frozenset(
    ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY")
)
_FAILURES: Final = frozenset(
    ("OTHER", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE")
)


def body(request: Request) -> dict[str, Any]:
    """What is posted. Raises `InvalidInput` for messages that are neither text nor in this format."""
    made: dict[str, Any] = {
        "contents": [_content(message) for message in request.messages if message["role"] != "system"]
    }
    if not made["contents"]:
        raise InvalidInput("this provider needs a message that isn't the system's")
    if system := system_text(request):
        made["systemInstruction"] = {"parts": [{"text": system}]}
    config: dict[str, Any] = {}
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if config:
        made["generationConfig"] = config
    if request.tools:
        made["tools"] = [{"functionDeclarations": [dict(tool) for tool in request.tools]}]
    return made


def _content(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if "parts" in message:
        return message
    if not isinstance(message.get("content"), str):
        raise InvalidInput('this provider takes messages with text as "content", or with its own "parts"')
    role = "model" if message["role"] == "assistant" else message["role"]
    return {"role": role, "parts": [{"text": message["content"]}]}


class GeminiParser(Parser):
    """Reads responses."""

    def _take(self, frame: Frame) -> None:
        self._response(self._object(frame.data))

    def _take_whole(self, value: Any) -> None:
        # Without ``alt=sse`` a stream is one array.
        for each in value if isinstance(value, list) else [value]:
            if not self.answer.over and not self._refused(each):
                self._response(as_object(each))

    def _response(self, response: dict[str, Any]) -> None:
        self.answer.model = as_text(response.get("modelVersion")) or self.answer.model
        self._usage(as_object(response.get("usageMetadata")))
        if blocked := as_text(as_object(response.get("promptFeedback")).get("blockReason")):
            self.answer.fail(CONTENT_FILTER, f"the prompt was blocked: {blocked!r}")
        for each in as_list(response.get("candidates"))[:1]:
            candidate = as_object(each)
            for part in as_list(as_object(candidate.get("content")).get("parts")):
                self._part(as_object(part))
            if reason := as_text(candidate.get("finishReason")):
                self._finish(_REASONS.get(reason, reason), refusals=_REFUSALS, failures=_FAILURES)

    def _part(self, part: dict[str, Any]) -> None:
        self.answer.say(as_text(part.get("text")), REASONING if part.get("thought") is True else MAIN_FIELD)
        if call := as_object(part.get("functionCall")):
            self.answer.whole_call(
                call_id=as_text(call.get("id")), name=as_text(call.get("name")), arguments=call.get("args")
            )

    def _usage(self, usage: dict[str, Any]) -> None:
        answered = as_count(usage.get("candidatesTokenCount"))
        thought = as_count(usage.get("thoughtsTokenCount"))
        self.answer.count(
            input_tokens=as_count(usage.get("promptTokenCount")),
            # What was thought is paid for like what was said, and counted beside it.
            output_tokens=None if answered is None and thought is None else (answered or 0) + (thought or 0),
            cached_tokens=as_count(usage.get("cachedContentTokenCount")),
            reasoning_tokens=thought,
        )
