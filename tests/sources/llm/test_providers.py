"""Providers over real sockets: what they send, how they keep the time, and what of a connection is left."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing, suppress
from typing import Any

import httpx
import pytest

from bridge.codec import encode
from bridge.errors import InvalidInput
from bridge.events import Chunk, Data, End
from bridge.sources.llm import Anthropic, Azure, Gemini, Limits, Ollama, OpenAI, Provider, Request
from bridge.sources.llm import http as module
from bridge.sources.llm.providers import LONGEST_DETAIL
from tests.servers import free_port
from tests.sources.llm.recordings import ANTHROPIC, GEMINI, OLLAMA, OPENAI, Recording, chunk, sse
from tests.sources.llm.scripted import JSON, Answer, ask, provider
from tests.waiting import eventually_async, go_on_for

KEY = "sk-0123456789-secret"
SOON = 0.15
"""Seconds after which a test doesn't want to wait any longer."""
HELLO = sse(chunk({"content": "Hel"}), chunk({"content": "lo"}))
STOP = sse(chunk({}, "stop"), "[DONE]")

ASKED: list[tuple[type[Provider], dict[str, Any], str, str, Recording]] = [
    (OpenAI, {}, "/chat/completions", f"authorization: Bearer {KEY}", OPENAI),
    (Azure, {"api_version": "2025-01-01"},
     "/openai/deployments/m%2F1/chat/completions?api-version=2025-01-01", f"api-key: {KEY}", OPENAI),
    (Anthropic, {}, "/v1/messages", f"x-api-key: {KEY}", ANTHROPIC),
    (Ollama, {}, "/api/chat", f"authorization: Bearer {KEY}", OLLAMA),
    (Gemini, {"model": "models/m 1"}, "/models/m%201:streamGenerateContent?alt=sse",
     f"x-goog-api-key: {KEY}", GEMINI),
]  # fmt: skip


@pytest.mark.parametrize(("make", "more", "path", "header", "recording"), ASKED, ids=lambda e: str(e)[:20])
async def test_each_provider_is_asked_in_its_own_way(
    make: type[Provider], more: dict[str, Any], path: str, header: str, recording: Recording
) -> None:
    """Path, key and body are its own; the end says who answered, how it ended and what it cost."""
    name, _, value = header.partition(": ")
    async with provider(Answer([recording.data])) as server:
        one = make(**{"model": "m/1", **more}, base_url=server.url + "/", api_key=KEY)
        texts, end, _ = await ask(one)
    (asked,) = server.asked
    assert (asked.path, asked.headers[name]) == (path, value)
    assert asked.headers["accept-encoding"] == "identity"
    assert texts == recording.texts
    assert end.result == {
        "provider": one.name, "model": recording.model, "finish_reason": recording.reason
    }  # fmt: skip
    assert (end.state, end.usage) == ("succeeded", recording.usage)


async def test_options_and_headers_of_ones_own() -> None:
    """They win over what we would send; None takes a member out, objects are joined."""
    async with provider(Answer([OPENAI.data])) as server:
        one = OpenAI(
            "m", base_url=server.url, api_key=KEY, headers={"Authorization": "Other x", "X-Team": "7"},
            options={"stream_options": None, "metadata": {"a": 1}, "temperature": 0.1},
        )  # fmt: skip
        await ask(one, Request("Hi", temperature=0.9, max_tokens=5))
    (asked,) = server.asked
    assert (asked.headers["authorization"], asked.headers["x-team"]) == ("Other x", "7")
    assert asked.body == {
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True,
        "metadata": {"a": 1}, "temperature": 0.1, "max_tokens": 5,
    }  # fmt: skip
    async with provider(Answer([OLLAMA.data])) as server:
        joined = Ollama("m", base_url=server.url, options={"options": {"seed": 1}})
        await ask(joined, Request("Hi", temperature=0.9))
    assert server.asked[0].body["options"] == {"temperature": 0.9, "seed": 1}


async def test_text_arrives_while_the_model_writes() -> None:
    """Each piece comes out before the next was sent."""
    more = asyncio.Event()
    async with provider(Answer([HELLO, more, STOP])) as server:
        async with aclosing(OpenAI("m", base_url=server.url).events(Request("Hi"))) as events:
            assert await anext(events) == Chunk("Hel")
            assert await anext(events) == Chunk("lo")
            more.set()
            assert isinstance(await anext(events), End)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_whole_answer_is_one_chunk(stream: bool) -> None:
    """Whether it was asked for so, or came so although a stream was asked for."""
    body = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    kind = {"Content-Type": "application/json; charset=utf-8"}
    async with provider(Answer([json.dumps(body).encode()], headers=kind)) as server:
        _, end, events = await ask(OpenAI("m", base_url=server.url, stream=stream))
    assert server.asked[0].body.get("stream", False) is stream
    assert events == [Chunk("Hello"), end]
    assert end.state == "succeeded"


# Time


def patient(**limits: float) -> Limits:
    """Limits of which only those named can be met."""
    return Limits(**{"first_token_seconds": 60, "between_tokens_seconds": 60, "total_seconds": 60, **limits})


PING = b": ping\n\n"
EMPTY = sse(chunk({"role": "assistant", "content": ""}))


@pytest.mark.parametrize(
    ("limits", "answer", "text"),
    [
        (patient(first_token_seconds=SOON), Answer(mute=True), ""),
        (patient(first_token_seconds=SOON), Answer([PING, EMPTY], then="hold"), ""),
        (patient(between_tokens_seconds=SOON), Answer([HELLO], then="hold"), "Hello"),
        (patient(total_seconds=20 * SOON), Answer([HELLO], then="hold"), "Hello"),
    ],
    ids=["nothing", "no token", "no further token", "in all"],
)
async def test_what_takes_too_long_has_failed(limits: Limits, answer: Answer, text: str) -> None:
    """What came is kept, and the provider sees the connection close."""
    async with provider(answer) as server:
        texts, end, _ = await ask(OpenAI("m", base_url=server.url, limits=limits))
        await server.hung_up.wait()
    assert texts.get("text", "") == text
    assert end.error is not None
    assert end.error["code"] == "timeout"


async def test_a_handshake_that_never_comes_has_the_time_of_a_connect() -> None:
    """Who takes a connection and then says nothing is not there."""
    async with provider(Answer()) as server:
        secure = server.url.replace("http:", "https:")
        _, end, _ = await ask(OpenAI("m", base_url=secure, limits=Limits(connect_seconds=SOON)))
    assert end.error is not None
    assert end.error["code"] == "timeout"


async def test_heartbeats_are_no_tokens() -> None:
    """A server that only says that it lives is given up like one that says nothing."""
    pieces: list[bytes | asyncio.Event] = [HELLO]

    async def beat(limit: float) -> str:
        """The code after a stream whose heart beats for ever."""
        gates = [asyncio.Event() for _ in range(2000)]
        async with provider(Answer([*pieces, *(each for gate in gates for each in (gate, PING))])) as server:
            beating = asyncio.ensure_future(_open_one_by_one(gates))
            limits = patient(between_tokens_seconds=limit)
            _, end, _ = await ask(OpenAI("m", base_url=server.url, limits=limits))
            beating.cancel()
        assert end.error is not None
        return end.error["code"]

    assert await beat(SOON) == "timeout"


async def _open_one_by_one(gates: list[asyncio.Event]) -> None:
    loop = asyncio.get_running_loop()
    for gate in gates:
        gate.set()
        began = loop.time()
        await eventually_async(lambda began=began: loop.time() > began + SOON / 10)  # type: ignore[misc]  # mypy can't infer a lambda with a default


async def test_a_slow_reader_is_not_the_providers_fault() -> None:
    """Only the time counts in which the provider is waited for."""
    limits = patient(between_tokens_seconds=5 * SOON)
    async with provider(Answer([HELLO, STOP])) as server:
        async with aclosing(OpenAI("m", base_url=server.url, limits=limits).events(Request("Hi"))) as events:
            await anext(events)
            await go_on_for(6 * SOON)
            rest = [event async for event in events]
    assert isinstance(rest[-1], End)
    assert rest[-1].state == "succeeded"


@pytest.mark.parametrize("then", ["hold", "reset", "close"])
async def test_a_whole_answer_stays_whole(then: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the reason for stopping, a server may forget to end, or lose the connection."""
    monkeypatch.setattr(module, "TAIL_SECONDS", SOON)
    async with provider(Answer([HELLO, sse(chunk({}, "stop"))], then=then)) as server:
        texts, end, _ = await ask(OpenAI("m", base_url=server.url))
    assert (texts, end.state) == ({"text": "Hello"}, "succeeded")


def test_limits_are_above_zero() -> None:
    """Also where NaN was computed."""
    for name in ("connect_seconds", "first_token_seconds", "between_tokens_seconds", "total_seconds"):
        for value in (0, -1, float("nan")):
            with pytest.raises(InvalidInput, match=name):
                Limits(**{name: value})


# What goes wrong


async def code_after(*answers: Answer, **options: Any) -> tuple[str, str, Any]:
    """Text, code and result of a failure."""
    async with provider(*answers) as server:
        texts, end, _ = await ask(OpenAI("m", base_url=server.url, **options))
    assert end.state == "failed"
    assert end.error is not None
    return texts.get("text", ""), end.error["code"], end.result


async def test_a_connection_that_breaks_off() -> None:
    """With a text it is an answer that broke off; without any it is a provider that isn't there."""
    assert (await code_after(Answer([HELLO], then="reset")))[:2] == ("Hello", "interrupted")
    assert (await code_after(Answer([HELLO], then="close")))[:2] == ("Hello", "interrupted")
    assert (await code_after(Answer([], then="close")))[:2] == ("", "unavailable")
    assert (await code_after(Answer([EMPTY], then="reset")))[:2] == ("", "unavailable")


async def test_an_error_in_the_middle_keeps_the_text_and_what_it_cost() -> None:
    """The end has a code of ours, who it was, and the usage that was told."""
    counted = chunk({"content": "some"}, usage={"completion_tokens": 4})
    error = {"error": {"message": "the worker on db-7 died", "code": 500}}
    async with provider(Answer([sse(counted, error)], then="hold")) as server:
        texts, end, _ = await ask(OpenAI("m", base_url=server.url, name="ours"))
        await server.hung_up.wait()
    assert texts == {"text": "some"}
    assert end.error == {
        "code": "unavailable", "message": "The language model can't be reached at the moment."
    }  # fmt: skip
    assert end.result == {"provider": "ours", "model": "gpt-5-2025"}
    assert end.usage == {"output_tokens": 4}


async def test_nobody_is_there() -> None:
    """A refused connection is a provider that can't be reached."""
    _, end, _ = await ask(OpenAI("m", base_url=f"http://127.0.0.1:{free_port()}"))
    assert end.error is not None
    assert end.error["code"] == "unavailable"


async def test_a_refusal_says_when_to_come_back() -> None:
    """In the end's result, for whoever wants to tell."""
    limited = Answer([b'{"error":{"message":"slow down"}}'], 429, {**JSON, "Retry-After": "7"})
    assert await code_after(limited) == (
        "", "rate_limited", {"provider": "openai", "model": "m", "retry_after_seconds": 7.0}
    )  # fmt: skip


async def test_a_redirect_is_not_followed() -> None:
    """It would take the key to somebody else."""
    async with provider(Answer([OPENAI.data])) as other:
        moved = Answer(
            status=307, headers={"Location": f"{other.url}/chat/completions", "Content-Length": "0"}
        )
        assert (await code_after(moved, api_key=KEY))[1] == "unavailable"
    assert other.asked == []


async def test_answers_and_errors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large is not read to its end."""
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 100_000)
    large = b'{"choices":[{"message":{"content":"' + b"x" * 5_000_000
    assert (await code_after(Answer([large], headers=JSON, then="hold")))[1] == "unavailable"
    assert (await code_after(Answer([b"x" * 5_000_000], 500, JSON, then="hold")))[1] == "unavailable"


async def test_half_a_character_in_what_is_no_text() -> None:
    """It is U+FFFD in the result, too, which may be kept where only whole ones can be."""
    half = rb'{"model":"m\ud83d","choices":[{"delta":{"content":"x"},"finish_reason":"\ude80"}]}'
    async with provider(Answer([b"data: " + half + b"\n\ndata: [DONE]\n\n"])) as server:
        _, end, _ = await ask(OpenAI("m", base_url=server.url))
    assert end.result == {"provider": "openai", "model": "m\ufffd", "finish_reason": "\ufffd"}


async def test_an_error_whose_body_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status says enough."""
    monkeypatch.setattr(module, "ERROR_SECONDS", SOON)
    assert (await code_after(Answer([b'{"err'], 401, JSON, then="hold")))[1] == "auth"


async def test_a_whole_answer_that_breaks_off() -> None:
    """Half a JSON value is no answer, whether the connection says so or only closes."""
    half = b'{"choices":[{"message":{"content":"x"'
    assert (await code_after(Answer([half], headers=JSON)))[1] == "unavailable"
    told = {**JSON, "Content-Length": "500"}
    assert (await code_after(Answer([half], headers=told)))[1] == "unavailable"


async def test_a_request_that_this_provider_can_not_say_is_not_sent() -> None:
    """It fails as a bad request, like one that the provider refuses; so a chain can ask the next."""
    image = Request([{"role": "user", "content": [{"type": "image_url"}]}])
    for one, request in ((Gemini("m"), image), (OpenAI("m", options={"seed": {1}}), Request("Hi"))):
        _, end, _ = await ask(one, request)
        assert end.error is not None
        assert end.error["code"] == "bad_request"


# Leaving


@pytest.mark.parametrize("shared", [False, True])
async def test_leaving_closes_the_connection_at_once(shared: bool) -> None:
    """So that no more tokens are paid for; also where somebody else's client would keep it."""
    async with provider(Answer([HELLO], then="hold")) as server, httpx.AsyncClient() as http:
        one = OpenAI("m", base_url=server.url, http=http if shared else None)
        async with aclosing(one.events(Request("Hi"))) as events:
            await anext(events)
            assert not server.hung_up.is_set()
        await server.hung_up.wait()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(mute=True),
        Answer([HELLO], then="hold"),
        Answer([HELLO[:-30]], then="hold"),
        Answer([b"{"], headers=JSON, then="hold"),
        Answer([b"{"], 500, JSON, then="hold"),
    ],
    ids=["first token", "between tokens", "within a token", "whole answer", "error"],
)
async def test_a_cancelled_wait_closes_the_connection(answer: Answer, shared: bool) -> None:
    """Whatever it waits for."""
    async with provider(answer) as server, httpx.AsyncClient() as http:
        asking = asyncio.ensure_future(ask(OpenAI("m", base_url=server.url, http=http if shared else None)))
        await eventually_async(lambda: server.asked)
        await go_on_for(SOON)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.hung_up.wait()


@pytest.mark.parametrize("limits", [Limits(), Limits(total_seconds=5 * SOON)], ids=["cancelled", "in all"])
async def test_leaving_within_a_handshake_closes_the_connection(limits: Limits) -> None:
    """There is no answer yet that could be closed."""
    async with provider(Answer()) as server:
        secure = OpenAI("m", base_url=server.url.replace("http:", "https:"), limits=limits)
        asking = asyncio.ensure_future(ask(secure))
        await eventually_async(lambda: server.taken)
        if limits == Limits():
            await go_on_for(SOON)
            asking.cancel()
        await asyncio.wait([asking])
        await server.hung_up.wait()


async def test_an_http_client_of_ones_own_is_used_and_stays_open() -> None:
    """Its proxies, certificates and connections serve many requests."""
    async with provider(Answer([OPENAI.data])) as server, httpx.AsyncClient(headers={"x-mine": "1"}) as http:
        one = OpenAI("m", base_url=server.url, http=http)
        for _ in range(2):
            assert (await ask(one))[1].state == "succeeded"
        assert not http.is_closed
    assert [asked.headers["x-mine"] for asked in server.asked] == ["1", "1"]


async def test_a_connection_of_ones_own_client_serves_many_answers() -> None:
    """The end marker is not the end of the body. One that never ends costs a connection and no time."""
    connections: list[list[bytes]] = []
    serving: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append([])
        serving.append(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                connections[-1].append(head)
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n%s\r\n" % (len(OPENAI.data), OPENAI.data))
                await writer.drain()
                if b"x-endless" not in head:
                    writer.write(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient() as http:
        for headers in ({}, {}, {"x-endless": "1"}, {}):
            one = OpenAI("m", base_url=url, http=http, headers=headers)
            assert (await ask(one))[1].state == "succeeded"
    server.close()
    await asyncio.gather(*serving)
    assert [len(requests) for requests in connections] == [3, 1]


# Keys


async def test_keys_appear_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Not in reprs, logs of any level, events or ends; also where the provider quotes them back."""
    caplog.set_level(logging.DEBUG)
    token = "Bearer of-the-proxy-42"
    said = f"Incorrect API key provided: {KEY} ({token}), {token.split()[1]}."
    quoting = json.dumps({"error": {"message": said}}).encode()
    # Where the log cuts what a provider says, a key begins.
    long = (b"x" * (LONGEST_DETAIL - 20)) + KEY.encode() * 3
    shown = ""
    for make, more, *_ in ASKED:
        for answer in (
            Answer([quoting], 401, JSON),
            Answer([b"data: " + quoting + b"\n\n"]),
            Answer([b"data: {" + long + b"\n\n"]),
            Answer([long], 500),
            Answer(),
        ):
            async with provider(answer) as server:
                one = make(
                    **{"model": "m", **more}, base_url=server.url, api_key=KEY, headers={"x-proxy": token}
                )
                _, end, events = await ask(one)
                assert KEY in str(server.asked[0].headers)
            shown += repr(one) + str(one) + repr(events) + "".join(encode(event).decode() for event in events)
            assert end.state == "failed"
    shown += caplog.text + "".join(repr(record.__dict__) for record in caplog.records)
    assert "Incorrect API key provided: ***" in caplog.text
    assert KEY[:8] not in shown
    assert token not in shown
    assert "of-the-proxy" not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": KEY + "\n"},
        {"api_key": KEY + "é"},
        {"headers": {"x-token": " " + KEY}},
        {"base_url": f"https://user:{KEY}@host"},
        {"base_url": f"https://host/?key={KEY}"},
        {"base_url": "host"},
        {"base_url": ""},
        {"base_url": "ftp://host"},
        {"base_url": "https://host:99999999"},
        {"model": ""},
    ],
    ids=str,
)
def test_what_can_not_be_a_provider_is_refused_without_telling_the_key(wrong: dict[str, Any]) -> None:
    """A line end from a key's file is found where it was read, and not in a request's headers."""
    with pytest.raises(InvalidInput) as caught:
        OpenAI(**{"model": "m", **wrong})
    assert KEY not in str(caught.value)
    assert KEY.strip("sk-") not in repr(caught.value)


async def test_calls_of_tools_come_as_data() -> None:
    """Once, when the answer is whole."""
    async with provider(Answer([ANTHROPIC.data])) as server:
        _, end, events = await ask(Anthropic("m", base_url=server.url))
    assert events[-2:] == [Data("tool_calls", ANTHROPIC.calls), end]
