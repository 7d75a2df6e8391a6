"""Ollama's own chat. Pure.

Source: Ollama's API documentation, "Generate a chat completion", and its guides to thinking and tool calling.

A stream is newline-delimited JSON; the last line has ``done: true`` and the counts. An error in the middle is
a line ``{"error": "…"}``, under HTTP 200. A call of a tool comes in one piece.
"""

from __future__ import annotations

from typing import Any

from bridge.sources.llm.answer import REASONING, Lines, Parser, as_count, as_list, as_object, as_text
from bridge.sources.llm.request import Request, functions
from bridge.sse import Frame


def body(request: Request, model: str, *, stream: bool) -> dict[str, Any]:
    """What is posted."""
    made: dict[str, Any] = {"model": model, "messages": list(request.messages), "stream": stream}
    options: dict[str, Any] = {}
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if request.stop:
        options["stop"] = list(request.stop)
    if options:
        made["options"] = options
    if request.tools:
        made["tools"] = functions(request)
    return made


class OllamaParser(Parser):
    """Reads chat answers."""

    def __init__(self) -> None:
        super().__init__(Lines())

    def _take(self, frame: Frame) -> None:
        self._line(self._object(frame.data))

    def _take_whole(self, value: Any) -> None:
        self._line(as_object(value))

    def _line(self, line: dict[str, Any]) -> None:
        message = as_object(line.get("message"))
        self.answer.model = as_text(line.get("model")) or self.answer.model
        # The second name is what servers beside Ollama's own call it.
        thinking = as_text(message.get("thinking")) or as_text(message.get("reasoning_content"))
        self.answer.say(thinking, REASONING)
        self.answer.say(as_text(message.get("content")))
        for each in as_list(message.get("tool_calls")):
            function = as_object(as_object(each).get("function"))
            self.answer.whole_call(
                call_id=as_text(as_object(each).get("id")),
                name=as_text(function.get("name")),
                arguments=function.get("arguments"),
            )
        if line.get("done") is True:
            self.answer.count(
                input_tokens=as_count(line.get("prompt_eval_count")),
                output_tokens=as_count(line.get("eval_count")),
            )
            self.answer.finish(as_text(line.get("done_reason")) or "stop")
            self.answer.end()
