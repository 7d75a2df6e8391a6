"""What each format has of its own: what is asked, whole answers, how it says that something is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.errors import InvalidInput
from bridge.sources.llm import anthropic, gemini, ollama, openai
from bridge.sources.llm.answer import Parser
from bridge.sources.llm.anthropic import AnthropicParser
from bridge.sources.llm.gemini import GeminiParser
from bridge.sources.llm.ollama import OllamaParser
from bridge.sources.llm.openai import OpenAIParser
from bridge.sources.llm.request import Request
from tests.sources.llm.recordings import calls_of, chunk, line, lines, part, read, sse, texts_of, tool

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
FULL = Request(
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Find it"},
    ],
    max_tokens=50,
    temperature=0.5,
    stop="END",
    tools=[{"name": "find", "description": "Finds.", "parameters": SCHEMA}],
)
SAID = [{"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"))]
SAID.append({"role": "user", "content": "Find it"})
FUNCTION = {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": SCHEMA}}


def code_of(parser: Parser, *pieces: bytes) -> str | None:
    """The code with which reading these ends."""
    read(parser, *pieces)
    return parser.answer.failure.code if parser.answer.failure else None


# What is asked


def test_openai_is_asked_for_a_stream_with_usage() -> None:
    """Everything of a request stands where the reference has it."""
    assert openai.body(FULL, "m", stream=True, limit="max_completion_tokens") == {
        "model": "m", "messages": [{"role": "system", "content": "Be kind."}, *SAID], "stream": True,
        "stream_options": {"include_usage": True}, "max_completion_tokens": 50, "temperature": 0.5,
        "stop": ["END"], "tools": [FUNCTION],
    }  # fmt: skip
    assert openai.body(Request("Hi"), "m", stream=False) == {"model": "m", "messages": SAID[:1]}


def test_anthropic_wants_the_system_apart_and_a_limit() -> None:
    """The system's messages become one text, and without `max_tokens` there is a default."""
    assert anthropic.body(FULL, "m", stream=True) == {
        "model": "m", "max_tokens": 50, "messages": SAID, "system": "Be kind.", "stream": True,
        "temperature": 0.5, "stop_sequences": ["END"],
        "tools": [{"name": "find", "description": "Finds.", "input_schema": SCHEMA}],
    }  # fmt: skip
    assert anthropic.body(Request("Hi"), "m", stream=False) == {
        "model": "m", "max_tokens": anthropic.DEFAULT_MAX_TOKENS, "messages": SAID[:1],
    }  # fmt: skip


def test_ollama_has_options_of_its_own() -> None:
    """And always says whether it should stream, because it would by default."""
    assert ollama.body(FULL, "m", stream=True) == {
        "model": "m", "messages": [{"role": "system", "content": "Be kind."}, *SAID], "stream": True,
        "options": {"num_predict": 50, "temperature": 0.5, "stop": ["END"]}, "tools": [FUNCTION],
    }  # fmt: skip
    assert ollama.body(Request("Hi"), "m", stream=False)["stream"] is False


def test_gemini_has_contents_with_parts() -> None:
    """The assistant is called model there, and the model's name stands in the URL."""
    assert gemini.body(FULL) == {
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello"}]},
            {"role": "user", "parts": [{"text": "Find it"}]},
        ],
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "generationConfig": {"maxOutputTokens": 50, "temperature": 0.5, "stopSequences": ["END"]},
        "tools": [
            {"functionDeclarations": [{"name": "find", "description": "Finds.", "parameters": SCHEMA}]}
        ],
    }
    assert gemini.body(Request("Hi")) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_messages_in_a_providers_own_form_are_passed_on() -> None:
    """Images, calls and their results go as they are to the provider for whom they were written."""
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}
    result = {"role": "tool", "tool_call_id": "call_a", "content": "42"}
    request = Request([image, result])
    assert openai.body(request, "m", stream=True)["messages"] == [image, result]
    assert anthropic.body(Request([image]), "m", stream=True)["messages"] == [image]
    parts = {"role": "function", "parts": [{"functionResponse": {"name": "find"}}]}
    assert gemini.body(Request([parts]))["contents"] == [parts]
    with pytest.raises(InvalidInput, match="parts"):
        gemini.body(request)


def test_a_question_without_a_user_is_refused_where_it_can_not_be_asked() -> None:
    """Two formats have no system's message among the others; what is left must not be nothing."""
    alone = Request([{"role": "system", "content": "Be kind."}])
    pictured = Request([{"role": "system", "content": [{"type": "text"}]}, {"role": "user", "content": "x"}])
    for request in (alone, pictured):
        with pytest.raises(InvalidInput):
            anthropic.body(request, "m", stream=True)
        with pytest.raises(InvalidInput):
            gemini.body(request)


# Whole answers


WHOLE: list[tuple[type[Parser], dict[str, Any]]] = [
    (
        OpenAIParser,
        {
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant", "content": "Hello", "reasoning_content": "hm",
                        "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": '{"q":1}'}}],
                    },
                    "finish_reason": "tool_calls",
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        },
    ),
    (
        AnthropicParser,
        {
            "type": "message", "model": "m", "stop_reason": "tool_use",
            "content": [
                {"type": "thinking", "thinking": "hm"},
                {"type": "text", "text": "Hello"},
                {"type": "tool_use", "id": "c1", "name": "find", "input": {"q": 1}},
            ],
            "usage": {"input_tokens": 3, "output_tokens": 4},
        },
    ),
    (
        OllamaParser,
        {
            "model": "m", "done": True,
            "message": {
                "role": "assistant", "content": "Hello", "thinking": "hm",
                "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": {"q": 1}}}],
            },
            "prompt_eval_count": 3, "eval_count": 4,
        },
    ),
    (
        GeminiParser,
        {
            "modelVersion": "m",
            "candidates": [
                {
                    "content": {
                        "parts": [
                            {"text": "hm", "thought": True},
                            {"text": "Hello"},
                            {"functionCall": {"id": "c1", "name": "find", "args": {"q": 1}}},
                        ]
                    },
                    "finishReason": "STOP",
                }
            ],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4},
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "body"), WHOLE, ids=lambda each: getattr(each, "__name__", ""))
def test_a_whole_answer_means_what_its_stream_would(make: type[Parser], body: dict[str, Any]) -> None:
    """Text is one chunk; reasoning, calls, usage and reason are there."""
    parser = make()
    events = parser.whole(json.dumps(body).encode())
    assert texts_of(events) == {"text": "Hello", "reasoning": "hm"}
    assert calls_of(events) == [{"id": "c1", "name": "find", "arguments": {"q": 1}}]
    answer = parser.answer
    assert (answer.failure, answer.model, answer.reason) == (None, "m", "tool_calls")
    assert (answer.usage["input_tokens"], answer.usage["output_tokens"]) == (3, 4)


def test_an_array_of_geminis_is_a_whole_answer() -> None:
    """So it answers where a stream was asked for in another way."""
    parser = GeminiParser()
    body = [part({"text": "Hel"}), part({"text": "lo"}, finishReason="MAX_TOKENS")]
    assert texts_of(parser.whole(json.dumps(body).encode())) == {"text": "Hello"}
    assert parser.answer.reason == "length"


# What is seldom


def test_content_may_be_a_list_of_parts() -> None:
    """Mistral's thinking and text come so."""
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    text = [{"type": "text", "text": "Hello"}, {"type": "reference", "reference_ids": [1]}]
    events = read(
        OpenAIParser(), sse(chunk({"content": thinking}), chunk({"content": text}, "stop"), "[DONE]")
    )
    assert texts_of(events) == {"reasoning": "hm", "text": "Hello"}


def test_a_refusal_in_the_models_own_words_is_text() -> None:
    """It is what the model has to say to the user."""
    parser = OpenAIParser()
    assert texts_of(read(parser, sse(chunk({"refusal": "No."}), chunk({}, "stop")))) == {"text": "No."}
    assert parser.answer.failure is None


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    """Some servers leave the index out, or give every call the same."""
    pieces = [chunk(tool(None, "{}", id=name)) for name in ("a", "b")] + [chunk(tool(0, "[1]", id="c"))]
    calls = calls_of(read(OpenAIParser(), sse(*pieces, chunk({}, "tool_calls"))))
    assert [(call["id"], call["arguments"]) for call in calls] == [("a", {}), ("b", {}), ("c", [1])]


def test_further_choices_are_not_mixed_in() -> None:
    """Only the first answer is the answer."""
    second = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}]}
    events = read(OpenAIParser(), sse(chunk({"content": "one"}), second, chunk({}, "stop")))
    assert texts_of(events) == {"text": "one"}


def test_what_anthropic_runs_itself_is_no_call() -> None:
    """The input of its own tools streams like that of ours."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use"}}
    delta = {"type": "input_json_delta", "partial_json": '{"query": "x"}'}
    parser = AnthropicParser()
    events = read(
        parser,
        sse(
            start, {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"},
        ),
    )  # fmt: skip
    assert (events, parser.answer.failure, parser.answer.reason) == ([], None, "stop")
    assert parser.answer.pieces > 0


def test_anthropics_reason_alone_is_no_end() -> None:
    """Without `message_stop` the answer isn't whole."""
    reason = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    assert code_of(AnthropicParser(), sse(reason)) == "interrupted"


def test_usage_that_comes_with_every_chunk_is_the_latest() -> None:
    """Some servers count as they go."""
    parser = OpenAIParser()
    read(parser, sse(*(chunk({"content": "x"}, usage={"completion_tokens": n}) for n in (1, 2)), "[DONE]"))
    assert parser.answer.usage == {"output_tokens": 2}


@pytest.mark.parametrize("count", [True, "7", 7.5, -1, 2**53, float("nan"), None, [7]])
def test_usage_that_is_no_count_says_nothing(count: Any) -> None:
    """What cost something is a whole number."""
    parser = OpenAIParser()
    read(
        parser, sse(chunk({"content": "x"}, usage={"prompt_tokens": count, "completion_tokens": 7}), "[DONE]")
    )
    assert parser.answer.usage == {"output_tokens": 7}


def test_the_first_reason_for_stopping_counts() -> None:
    """Some say in each chunk after it that they have stopped."""
    parser = OpenAIParser()
    read(parser, sse(chunk({"content": "x"}, "length"), chunk({}, "stop"), "[DONE]"))
    assert parser.answer.reason == "length"


# What is wrong


@pytest.mark.parametrize(
    ("parser", "stream", "code"),
    [
        (OpenAIParser, sse(chunk({"content": "x"}, "abort"), "[DONE]"), "interrupted"),
        (OpenAIParser, sse(chunk({"content": "x"}, "error"), "[DONE]"), "interrupted"),
        (OpenAIParser, sse(chunk({}, "content_filter"), "[DONE]"), "content_filter"),
        (OpenAIParser, sse({"error": {"message": "slow down", "code": 429}}), "rate_limited"),
        (OpenAIParser, sse({"error": {"message": "x", "type": "server_error"}}), "unavailable"),
        (OpenAIParser, sse({"error": "out of memory", "error_type": "generation"}), "interrupted"),
        (OpenAIParser, sse({"object": "error", "message": "too long", "code": 400}), "bad_request"),
        (AnthropicParser, sse({"type": "error", "error": {"type": "overloaded_error"}}), "overloaded"),
        (AnthropicParser, sse({"type": "error", "error": {"type": "api_error"}}), "unavailable"),
        (
            AnthropicParser,
            sse({"type": "message_delta", "delta": {"stop_reason": "refusal"}}, {"type": "message_stop"}),
            "content_filter",
        ),
        (OllamaParser, lines(line("x"), {"error": "an error was encountered"}), "interrupted"),
        (GeminiParser, sse({"error": {"code": 503, "status": "UNAVAILABLE"}}), "overloaded"),
        (GeminiParser, sse(part({"text": "x"}, finishReason="SAFETY")), "content_filter"),
        (GeminiParser, sse({"promptFeedback": {"blockReason": "SAFETY"}}), "content_filter"),
        (GeminiParser, sse(part(finishReason="MALFORMED_FUNCTION_CALL")), "interrupted"),
        (OpenAIParser, b"<!DOCTYPE html><h1>Sign in</h1>", "interrupted"),
        (OpenAIParser, b"", "interrupted"),
        (OpenAIParser, sse("{half of a"), "interrupted"),
    ],
)
def test_what_a_stream_says_is_wrong(parser: type[Parser], stream: bytes, code: str) -> None:
    """Errors and reasons inside an answer become codes, under HTTP 200."""
    assert code_of(parser(), stream) == code


# Requests


def test_a_request_is_a_copy() -> None:
    """What its maker changes afterwards changes nothing, and its text doesn't show what was asked."""
    messages = [{"role": "user", "content": "secret"}]
    request = Request(messages, stop=["a"])
    messages[0]["content"] = "other"
    assert request.messages[0]["content"] == "secret"
    assert request == Request("secret", stop="a")
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([], {}),
        (["Hi"], {}),
        ([{"content": "Hi"}], {}),
        ([{"role": 3, "content": "Hi"}], {}),
        ([{"role": "user", "content": {1, 2}}], {}),
        ("Hi", {"max_tokens": 0}),
        ("Hi", {"tools": [{"description": "no name"}]}),
    ],
)
def test_a_request_that_can_not_be_one_is_refused(messages: Any, options: dict[str, Any]) -> None:
    """At once, where it was made, and not by each provider."""
    with pytest.raises(ValueError, match=r"\w"):
        Request(messages, **options)
