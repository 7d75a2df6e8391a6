"""Providers that nobody here wrote, as processes: every format, and all that can happen to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

import bridge
from bridge.events import Chunk, Data, End
from bridge.settings import Settings
from bridge.sources.llm import Anthropic, FailoverChain, Limits, OpenAI, Provider, Request, Whole
from bridge.sources.relay import relay
from bridge.worker import process
from tests.servers import free_port
from tests.sources.llm.scripted import ask
from tests.sources.llm.servers import (
    CALL,
    FIXTURES,
    REASONING,
    STEADY,
    TEXT,
    Process,
    aimock,
    fakellm,
    fixture,
    providers,
)
from tests.waiting import eventually_async
from tests.worker.conftest import brisk
from tests.worker.logs import call, end_of, read_view

pytestmark = pytest.mark.needs("node", "aimock")

NAMES = sorted(providers("http://x"))
BRISK = Limits(first_token_seconds=0.5, between_tokens_seconds=0.5)


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One aimock for all of them. A test that kills its server has one of its own."""
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as server:
        yield server


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, mock: Process) -> Provider:
    """A provider of each format."""
    return providers(mock.url)[request.param]


def code_of(end: End) -> str:
    """The code of a failed end."""
    assert end.state == "failed"
    assert end.error is not None
    return end.error["code"]


# What an answer is made of


@pytest.mark.parametrize("stream", [True, False])
async def test_text_and_reasoning(model: Provider, stream: bool) -> None:
    """They arrive whole and apart from each other, in many chunks or in one, in every format."""
    texts, end, events = await ask(replace(model, stream=stream), "think")
    assert texts == {"reasoning": REASONING, "text": TEXT}
    assert (end.state, end.result["finish_reason"]) == ("succeeded", "stop")
    assert (len(events) > 10) is stream


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_of_tools(model: Provider, stream: bool) -> None:
    """Several calls beside a text, with their arguments."""
    texts, end, events = await ask(replace(model, stream=stream), "call")
    (calls,) = [event.value for event in events if isinstance(event, Data)]
    assert texts == {"text": "Let me see."}
    assert [(one["name"], one["arguments"]) for one in calls] == [
        ("find", CALL["arguments"]), ("again", CALL["arguments"])
    ]  # fmt: skip
    assert end.state == "succeeded"


async def test_usage(model: Provider) -> None:
    """What was told of the cost is the end's usage, under the same names for all."""
    _, end, _ = await ask(model, "count")
    if model.name == "ollama":  # aimock always says 0 there
        assert end.usage == {"input_tokens": 0, "output_tokens": 0}
    else:
        assert end.usage == {"input_tokens": 8, "output_tokens": 5}


async def test_a_length_that_was_reached_is_no_failure(model: Provider) -> None:
    """The end says why the model stopped."""
    _, end, _ = await ask(model, "long")
    assert (end.state, end.result["finish_reason"]) == (
        "succeeded", "stop" if model.name == "ollama" else "length"  # aimock knows no other there
    )  # fmt: skip


# What can happen to it


@pytest.mark.parametrize("word", ["truncate", "disconnect"])
async def test_an_answer_that_breaks_off_keeps_its_text(model: Provider, word: str) -> None:
    """Cut after some chunks or after some time: it has failed, and what came is there."""
    texts, end, _ = await ask(model, word)
    assert code_of(end) == "interrupted"
    assert texts["text"]
    assert (TEXT * 20).startswith(texts["text"])
    assert texts["text"] != TEXT


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("limit", "rate_limited"),
        ("key", "auth"),
        ("full", "overloaded"),
        ("wrong", "bad_request"),
        ("drop", "unavailable"),
        ("malformed", "unavailable"),
        ("vanish", "unavailable"),
        ("slow start", "timeout"),
        ("slow middle", "timeout"),
    ],
)
async def test_what_providers_do(model: Provider, word: str, code: str) -> None:
    """Each refusal and each fault has its code."""
    _, end, _ = await ask(replace(model, limits=BRISK) if code == "timeout" else model, word)
    assert code_of(end) == code
    assert end.result.get("retry_after_seconds") == (7.0 if word == "limit" else None)


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini"])
async def test_what_the_filter_holds_back(mock: Process, name: str) -> None:
    """A filter is a failure of its own kind."""
    _, end, _ = await ask(providers(mock.url)[name], "filter")
    assert code_of(end) == "content_filter"


async def test_leaving_in_the_middle_of_a_token_closes_the_connection(mock: Process, model: Provider) -> None:
    """The server sees it at once, and can stop."""
    async with aclosing(model.events(Request("steady"))) as events:
        assert isinstance(await anext(events), Chunk)
        assert mock.connections() == 1
    await eventually_async(lambda: mock.connections() == 0)


@pytest.mark.parametrize("name", NAMES)
async def test_a_provider_that_is_killed_in_the_middle(tmp_path: Path, name: str) -> None:
    """The text so far stays, the answer has broken off; the next request finds nobody."""
    with aimock(tmp_path, FIXTURES) as server:
        model = providers(server.url)[name]
        text = ""
        async with aclosing(model.events(Request("steady"))) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    text += event.text
                    server.kill()
        assert isinstance(event, End)
        assert code_of(event) == "interrupted"
        assert text
        assert STEADY.startswith(text)
        assert code_of((await ask(model, "greet"))[1]) == "unavailable"


# Several providers


async def test_the_first_is_down(mock: Process) -> None:
    """The next answers, in another format, and whoever watches learns of it."""
    gone = OpenAI("gpt-5", base_url=f"http://127.0.0.1:{free_port()}/v1", name="ours")
    events = [event async for event in FailoverChain([gone, providers(mock.url)["gemini"]]).events(GREET)]
    assert events[0] == Data("failover", [{"provider": "ours", "code": "unavailable"}])
    assert "".join(event.text for event in events if isinstance(event, Chunk)) == TEXT
    assert isinstance(events[-1], End)
    assert events[-1].result["provider"] == "gemini"


GREET = Request("greet")


async def test_all_are_down(mock: Process) -> None:
    """Each was asked once, and the end is one of ours."""
    refusing = FailoverChain(list(providers(mock.url).values()), patience_seconds=0)
    events = [event async for event in refusing.events(Request("full"))]
    notes, end = events[-2:]
    assert isinstance(notes, Data)
    assert [(note["provider"], note["code"]) for note in notes.value] == [
        (name, "overloaded") for name in ("openai", "azure", "anthropic", "ollama", "gemini")
    ]
    assert isinstance(end, End)
    assert code_of(end) == "overloaded"


async def test_after_the_first_chunk_nobody_else_is_asked(mock: Process) -> None:
    """The answer breaks off, although the next could give a whole one."""
    first, second = providers(mock.url)["openai"], providers(mock.url)["anthropic"]
    events = [event async for event in FailoverChain([first, second]).events(Request("truncate"))]
    assert not [event for event in events if isinstance(event, Data)]
    assert isinstance(events[-1], End)
    assert (code_of(events[-1]), events[-1].result["provider"]) == ("interrupted", "openai")


async def test_who_is_limited_is_asked_again_when_it_said(tmp_path: Path) -> None:
    """A 429 with Retry-After, and then an answer."""
    again = fixture("greet", {"content": TEXT})
    limited = fixture("greet", {"error": {"message": "slow down"}, "status": 429, "retryAfter": 1})
    limited["match"]["sequenceIndex"] = 0
    with aimock(tmp_path, [limited, again]) as server:
        chain = FailoverChain([providers(server.url)["openai"]], patience_seconds=10)
        events = [event async for event in chain.events(GREET)]
    assert events[0] == Data("failover", [{"provider": "openai", "code": "rate_limited"}])
    assert isinstance(events[-1], End)
    assert events[-1].state == "succeeded"


async def test_one_that_can_not_stream_stands_in(mock: Process) -> None:
    """Its whole answer is one chunk."""
    plain = replace(providers(mock.url)["openai"], stream=False, name="plain")
    gone = OpenAI("gpt-5", base_url=f"http://127.0.0.1:{free_port()}/v1")
    events = [event async for event in FailoverChain([gone, plain]).events(GREET)]
    assert events[1:-1] == [Chunk(TEXT)]


async def test_any_coroutine_stands_in() -> None:
    """Also one that has nothing to do with HTTP."""

    async def canned(_: Request) -> str:
        await asyncio.sleep(0)
        return "We are sorry."

    gone = Anthropic("m", base_url=f"http://127.0.0.1:{free_port()}")
    events = [event async for event in FailoverChain([gone, Whole("canned", canned)]).events(GREET)]
    assert events[1] == Chunk("We are sorry.")


# As tasks


@pytest.fixture
def settings(redis_url: str) -> Iterator[Settings]:
    """The process's settings: the shared server."""
    process.reset()
    yield bridge.configure(brisk(redis_url))
    process.reset()


async def test_a_task_streams_an_answer(
    mock: Process, settings: Settings, redis_client: redis.Redis, model: Provider
) -> None:
    """Text, reasoning, result and usage are the task's."""
    async with bridge.task("t") as task:
        outcome = await relay(task, model.events(Request("think")))
    view = read_view(redis_client, "t")
    assert (view.text, view.fields) == (TEXT, {"reasoning": REASONING})
    assert (view.state, outcome.state, outcome.text) == ("succeeded", "succeeded", TEXT)
    assert view.result["provider"] == model.name


async def test_a_cancelled_task_stops_its_model(
    mock: Process, settings: Settings, redis_client: redis.Redis, model: Provider
) -> None:
    """The connection is closed, the task is cancelled, and its text is what had come."""
    async with bridge.task("t") as task:
        relaying = asyncio.ensure_future(relay(task, model.events(Request("steady"))))
        await eventually_async(lambda: bool(read_view(redis_client, "t").text))
        call(settings, "cancel", "t")
        outcome = await relaying
    await eventually_async(lambda: mock.connections() == 0)
    assert outcome.state == "cancelled"
    assert end_of(redis_client, "t").state == "cancelled"
    assert read_view(redis_client, "t").text == outcome.text != STEADY


# A second opinion


RULES: list[dict[str, Any]] = [
    {"name": "greet", "when": {"messages_contain": "greet"}, "respond": {"content": "Hi there, you two!"}},
    {"name": "call", "when": {"messages_contain": "call"},
     "respond": {"tool_calls": [{"name": "find", "arguments": {"q": "x"}}]}},
    {"name": "limit", "when": {"messages_contain": "limit"}, "respond": {"status": 429, "error": "no"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A fakellm."""
    with fakellm(tmp_path_factory.mktemp("fakellm"), RULES) as server:
        yield server


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_second_opinion(second: Process, name: str, stream: bool) -> None:
    """Another server of the same formats is understood as well."""
    model = replace(providers(second.url)[name], stream=stream)
    texts, end, events = await ask(model, "greet")
    assert texts == {"text": "Hi there, you two!"}
    assert (end.state, end.result["finish_reason"]) == ("succeeded", "stop")
    assert (len(events) > 2) is stream
    _, end, events = await ask(model, "call")
    (calls,) = [event.value for event in events if isinstance(event, Data)]
    assert [(one["name"], one["arguments"]) for one in calls] == [("find", {"q": "x"})]
    assert end.result["finish_reason"] == "tool_calls"
    if not stream:  # it refuses no stream
        assert code_of((await ask(model, "limit"))[1]) == "rate_limited"
