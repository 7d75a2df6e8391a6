"""Answers as the providers send them, byte for byte, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bridge.events import Chunk, Data, Event
from bridge.sources.llm.answer import Parser
from bridge.sources.llm.anthropic import AnthropicParser
from bridge.sources.llm.gemini import GeminiParser
from bridge.sources.llm.ollama import OllamaParser
from bridge.sources.llm.openai import OpenAIParser


@dataclass(frozen=True)
class Recording:
    """One answer: its bytes, which parser reads them, and what must come of it.

    `marker` is how many bytes at its end may be missing without anything being wrong.
    """

    name: str
    parser: Callable[[], Parser]
    data: bytes
    texts: dict[str, str]
    reason: str = "stop"
    model: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    marker: int = 0


def texts_of(events: list[Event]) -> dict[str, str]:
    """What stands in each field."""
    texts: dict[str, str] = {}
    for event in events:
        if isinstance(event, Chunk):
            texts[event.field] = texts.get(event.field, "") + event.text
    return texts


def calls_of(events: list[Event]) -> list[Any]:
    """What the model calls, as the latest data says."""
    found = [event.value for event in events if isinstance(event, Data) and event.name == "tool_calls"]
    return list(found[-1]) if found else []


def sse(*values: Any, named: bool = False, end: str = "\n") -> bytes:
    """An event stream of JSON values (strings as they are); `named` repeats each `type` as a name."""
    made = ""
    for value in values:
        if named:
            made += f"event: {value['type']}{end}"
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        made += f"data: {text}{end}{end}"
    return made.encode()


def lines(*values: Any) -> bytes:
    """Newline-delimited JSON."""
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def chunk(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One of OpenAI's chunks."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-Aa1", "object": "chat.completion.chunk", "created": 1763650000, "model": "gpt-5-2025",
        "choices": [choice], **more,
    }  # fmt: skip


def tool(index: int | None, arguments: str, **more: Any) -> dict[str, Any]:
    """A piece of a call in OpenAI's form."""
    piece: dict[str, Any] = {"function": {"arguments": arguments}, **more}
    if index is not None:
        piece["index"] = index
    return {"tool_calls": [piece]}


USAGE = {
    "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2},
}  # fmt: skip

OPENAI = Recording(
    "openai",
    OpenAIParser,
    sse(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Grüße"}),
        chunk({"content": " aus\n"}),
        chunk({"content": "K\u2028öln \u0085 👋🏽"}),
        chunk({}, "stop"),
        chunk({}, None, choices=[], usage=USAGE),
        "[DONE]",
    ),
    {"text": "Grüße aus\nK\u2028öln \u0085 👋🏽"},
    model="gpt-5-2025",
    usage={"input_tokens": 11, "output_tokens": 7, "cached_tokens": 4, "reasoning_tokens": 2},
    marker=len(b"data: [DONE]\n\n"),
)

OPENAI_TOOLS = Recording(
    "openai-tools",
    OpenAIParser,
    sse(
        chunk({"role": "assistant", "content": None}),
        chunk(tool(0, "", id="call_a", type="function", function={"name": "find", "arguments": ""})),
        chunk(tool(0, '{"q":"caf')),
        chunk(tool(0, 'é"}')),
        chunk(tool(1, "", id="call_b", type="function", function={"name": "stop", "arguments": ""})),
        chunk({}, "tool_calls"),
        "[DONE]",
        end="\r\n",
    ),
    {},
    reason="tool_calls",
    model="gpt-5-2025",
    calls=[
        {"id": "call_a", "name": "find", "arguments": {"q": "café"}},
        {"id": "call_b", "name": "stop", "arguments": {}},
    ],
    marker=len(b"data: [DONE]\r\n\r\n"),
)

AZURE = Recording(
    "azure",
    OpenAIParser,
    sse(
        {"choices": [], "created": 0, "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0}]},
        chunk(None),
        chunk({"content": "Yes"}, model="gpt-4o"),
        {"choices": [{"content_filter_offsets": {}, "finish_reason": None, "index": 0}], "model": ""},
        chunk({}, "length", model="gpt-4o"),
        "[DONE]",
    ),
    {"text": "Yes"},
    reason="length",
    model="gpt-4o",
    marker=len(b"data: [DONE]\n\n"),
)

VLLM = Recording(
    "vllm",
    OpenAIParser,
    sse(
        chunk({"role": "assistant", "content": ""}, model="qwen"),
        chunk({"reasoning_content": "hm", "reasoning": "hm"}, model="qwen"),
        chunk({"reasoning": "…"}, model="qwen"),
        chunk({"content": "42"}, model="qwen"),
        chunk({"content": ""}, "stop", model="qwen", stop_reason=None),
        {"choices": None, "model": "qwen", "usage": {"prompt_tokens": 3, "completion_tokens": 5}},
        "[DONE]",
    ),
    {"reasoning": "hm…", "text": "42"},
    model="qwen",
    usage={"input_tokens": 3, "output_tokens": 5},
    marker=len(b"data: [DONE]\n\n"),
)

LOCALAI = Recording(
    "localai, without an end marker",
    OpenAIParser,
    sse(chunk({"content": "Hi"}, model="phi"), chunk({"content": " you"}, "stop", model="phi")),
    {"text": "Hi you"},
    model="phi",
)


def delta(index: int, **members: str) -> dict[str, Any]:
    """One of Anthropic's deltas."""
    return {"type": "content_block_delta", "index": index, "delta": members}


ANTHROPIC = Recording(
    "anthropic",
    AnthropicParser,
    sse(
        {
            "type": "message_start",
            "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
                "content": [], "stop_reason": None,
                "usage": {"input_tokens": 8, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 3,
                          "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "ping"},
        delta(0, type="thinking_delta", thinking="Let me"),
        delta(0, type="thinking_delta", thinking=" see"),
        delta(0, type="signature_delta", signature="EqQ"),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        delta(1, type="text_delta", text="Ja, "),
        {"type": "invented_later", "index": 1, "delta": {"type": "text_delta", "text": "no"}},
        delta(1, type="text_delta", text="gërn 🎈"),
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start", "index": 2,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {}},
        },
        delta(2, type="input_json_delta", partial_json=""),
        delta(2, type="input_json_delta", partial_json='{"q": "x'),
        delta(2, type="input_json_delta", partial_json='"}'),
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 25},
        },
        {"type": "message_stop"},
        named=True,
    ),
    {"reasoning": "Let me see", "text": "Ja, gërn 🎈"},
    reason="tool_calls",
    model="claude-sonnet-4-5",
    usage={"input_tokens": 12, "output_tokens": 25, "cached_tokens": 3},
    calls=[{"id": "toolu_1", "name": "find", "arguments": {"q": "x"}}],
    marker=len(b"\n\n"),
)  # fmt: skip


def line(content: str, **more: Any) -> dict[str, Any]:
    """One of Ollama's lines."""
    return {
        "model": "llama3.2", "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content}, "done": False, **more,
    }  # fmt: skip


OLLAMA = Recording(
    "ollama",
    OllamaParser,
    lines(
        line("", message={"role": "assistant", "content": "", "thinking": "so\nso"}),
        line("Hé"),
        line("llo\u2028 👍"),
        line("", message={"tool_calls": [{"function": {"name": "find", "arguments": {"q": [1]}}}]}),
        line("", done=True, done_reason="stop", total_duration=5, prompt_eval_count=26, eval_count=9),
    ),
    {"reasoning": "so\nso", "text": "Héllo\u2028 👍"},
    reason="tool_calls",
    model="llama3.2",
    usage={"input_tokens": 26, "output_tokens": 9},
    calls=[{"id": "", "name": "find", "arguments": {"q": [1]}}],
    marker=len(b"\n"),
)


def part(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One of Gemini's responses."""
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}
    return {
        "candidates": [candidate], "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5},
    }  # fmt: skip


GEMINI = Recording(
    "gemini",
    GeminiParser,
    sse(
        part({"text": "Hm, ", "thought": True}),
        part({"text": "Àpfel"}),
        part(
            {"text": " 🍏"},
            {"functionCall": {"name": "find", "args": {"q": "a"}}, "thoughtSignature": "CiQ"},
        ),
        {
            **part({"text": ""}, finishReason="STOP"),
            "usageMetadata": {
                "promptTokenCount": 5, "candidatesTokenCount": 6, "thoughtsTokenCount": 4,
                "cachedContentTokenCount": 2, "totalTokenCount": 15,
            },
        },
        end="\r\n",
    ),
    {"reasoning": "Hm, ", "text": "Àpfel 🍏"},
    reason="tool_calls",
    model="gemini-2.5-flash",
    usage={"input_tokens": 5, "output_tokens": 10, "cached_tokens": 2, "reasoning_tokens": 4},
    calls=[{"id": "", "name": "find", "arguments": {"q": "a"}}],
    marker=len(b"\r\n\r\n"),
)  # fmt: skip

RECORDINGS = [OPENAI, OPENAI_TOOLS, AZURE, VLLM, LOCALAI, ANTHROPIC, OLLAMA, GEMINI]


def read(parser: Parser, *pieces: bytes) -> list[Event]:
    """All events of a stream that comes in these pieces, and ends after them."""
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    return events + parser.close()
