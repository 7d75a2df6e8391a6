"""Several providers as one: who is passed over, who never, and how long it is waited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from bridge.errors import InvalidInput
from bridge.events import Chunk, Data, End, Event, Progress
from bridge.sources.llm import FailoverChain, Gemini, Model, OpenAI, Request, Whole
from bridge.sources.llm import chain as module
from bridge.sources.llm.errors import MESSAGES, Failure
from tests.servers import free_port
from tests.sources.llm.recordings import OPENAI, chunk, sse
from tests.sources.llm.scripted import JSON, Answer, provider
from tests.waiting import eventually_async

ASK = Request("Hi")
DONE = End("succeeded", result={"finish_reason": "stop"})


class Scripted:
    """A model that yields what a test wrote down; the n-th time the n-th script, then the last again."""

    def __init__(self, name: str, *scripts: list[Event | Exception]) -> None:
        self.name = name
        self.asked = 0
        self.closed = 0
        self._scripts = scripts

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        assert request is ASK
        script = self._scripts[min(self.asked, len(self._scripts) - 1)]
        self.asked += 1
        try:
            for step in script:
                await asyncio.sleep(0)
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.closed += 1


def failure(code: str, retry_after: float | None = None) -> End:
    """A failed end."""
    result = {} if retry_after is None else {"retry_after_seconds": retry_after}
    return End("failed", Failure(code, "").error, {"provider": "x", **result})


def down(name: str, code: str = "unavailable", retry_after: float | None = None) -> Scripted:
    """A model that always fails before it has said anything."""
    return Scripted(name, [failure(code, retry_after)])


def up(name: str = "up") -> Scripted:
    """A model that answers."""
    return Scripted(name, [Chunk("Hello"), DONE])


async def answer(*models: Model, patience: float = 0.0, **options: Any) -> list[Event]:
    """All events of a chain's answer."""
    chain = FailoverChain(models, patience_seconds=patience, **options)
    return [event async for event in chain.events(ASK)]


def passed(*names: str, code: str = "unavailable") -> Data:
    """What is told of those who were passed over."""
    return Data("failover", [{"provider": name, "code": code} for name in names])


async def test_the_first_that_answers_answers() -> None:
    """Those after it aren't asked."""
    first, second = up("a"), up("b")
    assert await answer(first, second) == [Chunk("Hello"), DONE]
    assert (first.asked, second.asked) == (1, 0)


@pytest.mark.parametrize("code", sorted(set(MESSAGES) - {"content_filter"}))
async def test_who_fails_before_the_first_chunk_is_passed_over(code: str) -> None:
    """Whoever watches is told at once, and learns the code, not the reason."""
    models = down("a", code), down("b", code), up()
    assert await answer(*models) == [
        passed("a", code=code), passed("a", "b", code=code), Chunk("Hello"), DONE
    ]  # fmt: skip
    assert [model.closed for model in models] == [1, 1, 1]


async def test_who_fails_after_the_first_chunk_is_not() -> None:
    """The text stays, and the failure is the end: another try would show two answers."""
    for first in (Chunk("Hel"), Chunk("hm", "reasoning"), Data("tool_calls", [])):
        broken, other = Scripted("a", [first, failure("interrupted")]), up()
        assert await answer(broken, other, patience=60) == [first, failure("interrupted")]
        assert other.asked == 0


async def test_a_status_line_is_no_chunk() -> None:
    """Nor is what an inner chain tells of those that it has passed over."""
    inner = FailoverChain([down("a"), down("b")], patience_seconds=0)
    loading = Scripted("c", [Progress(None, "loading"), failure("timeout")])
    events = await answer(inner, loading, up())
    assert events[-2:] == [Chunk("Hello"), DONE]
    assert events[-3] == Data("failover", [{"provider": "chain", "code": "unavailable"},
                                           {"provider": "c", "code": "timeout"}])  # fmt: skip


async def test_what_the_filter_held_back_is_an_answer() -> None:
    """It isn't offered to the next one."""
    other = up()
    assert await answer(down("a", "content_filter"), other) == [failure("content_filter")]
    assert other.asked == 0


async def test_all_are_down() -> None:
    """The end is the last failure that may pass by itself, or the last at all."""
    events = await answer(down("a"), down("b", "rate_limited", 99), down("c", "auth"))
    assert events[-1] == failure("rate_limited", 99)
    assert (await answer(down("a", "auth"), down("b", "bad_request")))[-1] == failure("bad_request")


async def test_a_model_that_raises_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """Before the first chunk it is passed over, after it the answer broke off; the log says why."""
    broken = Scripted("a", [ValueError("a bug at line 7")])
    assert await answer(broken, up()) == [passed("a"), Chunk("Hello"), DONE]
    late = Scripted("a", [Chunk("Hel"), ValueError("a bug at line 7")])
    events = await answer(late, up())
    assert events[0] == Chunk("Hel")
    assert isinstance(events[-1], End)
    assert events[-1].error == {"code": "interrupted", "message": MESSAGES["interrupted"]}
    assert "line 7" not in repr(events)
    assert caplog.text.count("line 7") == 2


async def test_a_model_that_just_ends_has_succeeded() -> None:
    """A source may leave its end out."""
    assert await answer(Scripted("a", [Chunk("Hello")])) == [Chunk("Hello"), End("succeeded")]


def test_a_chain_needs_a_provider_and_shows_names() -> None:
    """There is nothing else that it may show."""
    with pytest.raises(InvalidInput):
        FailoverChain([])
    key = "sk-secret-secret"
    chain = FailoverChain([OpenAI("m", api_key=key), Gemini("m", api_key=key)])
    assert repr(chain) == "FailoverChain(openai, gemini)"


# Pauses


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; time stands still meanwhile, but for the chain's own clock."""
    pauses: list[float] = []
    now = 1000.0
    sleep: Callable[[float], Any] = asyncio.sleep

    async def pause(seconds: float) -> None:
        nonlocal now
        if seconds:
            pauses.append(seconds)
            now += seconds
        await sleep(0)

    monkeypatch.setattr(module, "_sleep", pause)
    monkeypatch.setattr(module, "_now", lambda: now)
    return pauses


async def test_when_all_have_failed_they_are_asked_again(slept: list[float]) -> None:
    """After a pause that grows, as long as there is patience."""
    full: list[Event | Exception] = [failure("overloaded")]
    late = Scripted("a", full, full, full, [Chunk("Hello"), DONE])
    events = await answer(late, patience=30)
    assert events[-2:] == [Chunk("Hello"), DONE]
    assert late.asked == 4
    for pause, longest in zip(slept, (1.0, 2.0, 4.0), strict=True):
        assert longest / 2 <= pause <= longest


async def test_the_soonest_retry_after_counts(slept: list[float]) -> None:
    """And who asked for longer is left alone, also in the rounds before that."""
    one = Scripted("a", [failure("rate_limited", 8.0)], [Chunk("Hello"), DONE])
    two = down("b", "rate_limited", 3.0)
    events = await answer(one, two, patience=30)
    assert events[-2:] == [Chunk("Hello"), DONE]
    assert slept == [3.0, 3.0, pytest.approx(2.0)]
    assert (one.asked, two.asked) == (2, 3)


async def test_patience_ends(slept: list[float]) -> None:
    """What would take longer fails at once, and says how long it would take."""
    events = await answer(down("a", "rate_limited", 31.0), patience=30)
    assert (events[-1], slept) == (failure("rate_limited", 31.0), [])
    events = await answer(down("a", "rate_limited", 12.0), patience=30)
    assert (events[-1], slept) == (failure("rate_limited", 12.0), [12.0, 12.0])


async def test_what_will_not_pass_is_not_waited_for(slept: list[float]) -> None:
    """A wrong key is wrong a second later, too."""
    assert (await answer(down("a", "auth"), down("b", "bad_request"), patience=30))[-1] == failure(
        "bad_request"
    )
    assert slept == []


async def test_who_asked_for_a_pause_is_left_alone_by_later_requests(slept: list[float]) -> None:
    """A chain that serves many tasks doesn't ask again for each of them."""
    limited = Scripted("a", [failure("rate_limited", 60.0)], [Chunk("back"), DONE])
    chain = FailoverChain([limited, up()], patience_seconds=0)
    for _ in range(3):
        events = [event async for event in chain.events(ASK)]
        assert events == [passed("a", code="rate_limited"), Chunk("Hello"), DONE]
    assert limited.asked == 1
    await module._sleep(60.0)
    assert [event async for event in chain.events(ASK)] == [Chunk("back"), DONE]


async def test_nobody_is_left_alone_for_ever(slept: list[float]) -> None:
    """A provider that names a day in years is asked again in an hour."""
    limited = Scripted("a", [failure("rate_limited", 1e9)], [Chunk("back"), DONE])
    chain = FailoverChain([limited, up()], patience_seconds=0)
    await _all(chain)
    await module._sleep(module.LONGEST_REST_SECONDS - 1)
    assert (await _all(chain))[-2:] == [Chunk("Hello"), DONE]
    await module._sleep(1)
    assert await _all(chain) == [Chunk("back"), DONE]


async def test_notes_are_bounded(slept: list[float]) -> None:
    """Of many rounds the latest are told."""
    *_, note, end = await answer(*(down("a", "overloaded", 0.0) for _ in range(60)), patience=0)
    assert isinstance(note, Data)
    assert len(note.value) == module.MAX_NOTES
    assert isinstance(end, End)


async def test_a_retry_after_of_zero_comes_to_an_end(slept: list[float]) -> None:
    """A provider that says "at once" for ever isn't asked for ever."""
    eager = down("a", "rate_limited", 0.0)
    assert (await answer(eager, patience=5))[-1] == failure("rate_limited", 0.0)
    assert eager.asked < 30


# With real connections


async def test_a_cancelled_pause_and_a_closed_chain_stop_at_once() -> None:
    """Nothing is asked any more, and the provider that was answering sees its connection close."""
    tired = down("a", "overloaded", 50.0)
    waiting = asyncio.ensure_future(_all(FailoverChain([tired], patience_seconds=60)))
    await eventually_async(lambda: tired.closed)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert tired.asked == 1
    gone = OpenAI("m", base_url=f"http://127.0.0.1:{free_port()}")
    async with provider(Answer([sse(chunk({"content": "x"}))], then="hold")) as server:
        chain = FailoverChain([gone, OpenAI("m", base_url=server.url)])
        async with aclosing(chain.events(ASK)) as events:
            assert await anext(events) == passed("openai")
            assert await anext(events) == Chunk("x")
        await server.hung_up.wait()


async def _all(chain: FailoverChain) -> list[Event]:
    return [event async for event in chain.events(ASK)]


async def test_retry_after_of_a_real_answer_is_honoured() -> None:
    """The same provider is asked again when it said, and answers."""
    limited = Answer([b"{}"], 429, {**JSON, "Retry-After-Ms": "30"})
    async with provider(limited, Answer([OPENAI.data])) as server:
        events = await answer(OpenAI("m", base_url=server.url), patience=5)
    assert events[0] == passed("openai", code="rate_limited")
    assert isinstance(events[-1], End)
    assert events[-1].state == "succeeded"
    assert len(server.asked) == 2


# What can't stream


async def test_what_can_not_stream_answers_in_one_chunk() -> None:
    """A coroutine function is enough to be one of a chain."""

    async def ask(request: Request) -> str:
        await asyncio.sleep(0)
        return f"You said {request.messages[0]['content']}"

    events = await answer(down("a"), Whole("ours", ask))
    assert events == [
        passed("a"),
        Chunk("You said Hi"),
        End("succeeded", result={"provider": "ours", "finish_reason": "stop"}),
    ]


@pytest.mark.parametrize(("error", "code"), [(TimeoutError(), "timeout"), (OSError("x"), "unavailable")])
async def test_what_can_not_stream_may_fail(
    error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises becomes a code, and the next is asked."""

    async def ask(_: Request) -> str:
        raise error

    with caplog.at_level(logging.WARNING):
        assert await answer(Whole("ours", ask), up()) == [passed("ours", code=code), Chunk("Hello"), DONE]
    assert "ours failed" in caplog.text


async def test_what_can_not_stream_has_its_time() -> None:
    """And is cancelled after it."""
    events = await answer(Whole("ours", lambda _: asyncio.Event().wait(), total_seconds=0.05))  # type: ignore[arg-type,return-value]  # it never returns
    assert isinstance(events[-1], End)
    assert events[-1].error == {"code": "timeout", "message": MESSAGES["timeout"]}
