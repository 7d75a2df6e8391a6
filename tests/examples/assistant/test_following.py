"""answers: following a generation from any place, through whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from assistant import answers, keeping
from assistant.answers import Away, Event, Finished, Piece
from assistant.asking import Asked
from assistant.keeping import Answer

from tests.examples.assistant.backstage import Backstage
from tests.examples.assistant.behind import Behind
from tests.waiting import eventually_async

TEXT = "Größe: 👋🏽 «ß»\r\n"


@pytest.fixture
def stage(tmp_path: Path) -> Backstage:
    """Nobody is there yet."""
    return Backstage(tmp_path)


@pytest.fixture
def asked(stage: Backstage) -> Asked:
    """A question that is being answered."""
    return stage.ask(stage.user("ann"))


@pytest.fixture
async def behind(stage: Backstage, redis_url: str) -> AsyncIterator[Behind]:
    """With a gateway and Redis behind it."""
    async with Behind.of(stage, redis_url) as one:
        yield one


async def follow(behind: Behind, asked: Asked, said: int = 0) -> tuple[str, Event]:
    """All the text, and the last event."""
    *pieces, last = [event async for event in behind.answers.follow(asked.generation, said)]
    text = ""
    for piece in pieces:
        assert isinstance(piece, Piece)
        text += piece.text
        assert piece.upto == said + len(text)
    return text, last


async def test_to_the_end(stage: Backstage, asked: Asked, behind: Behind) -> None:
    """The pieces are the text, and the last event is the row of the database."""
    with behind.task(asked) as task:
        for character in TEXT:
            task.report_progress(character)
    text, last = await follow(behind, asked)
    assert text == TEXT
    assert last == Finished(stage.messages(asked.conversation_id)[1])


@pytest.mark.parametrize("how", ["on the bridge", "stored"])
async def test_from_any_place(stage: Backstage, asked: Asked, behind: Behind, how: str) -> None:
    """Who has had so many characters gets the rest of them, and the same end."""
    with behind.task(asked) as task:
        task.report_progress(TEXT)
    if how == "stored":
        keeping.keep_now(stage.database, asked.generation, Answer("succeeded", TEXT))
    for said in range(len(TEXT) + 1):
        text, last = await follow(behind, asked, said)
        assert text == TEXT[said:]
        assert isinstance(last, Finished)
        assert last.message.content == TEXT


async def test_what_is_stored_needs_no_gateway(stage: Backstage, asked: Asked, behind: Behind) -> None:
    """An answer of long ago is shown when the bridge has forgotten its task, and when the gateway is away."""
    kept = keeping.keep_now(stage.database, asked.generation, Answer("cancelled", TEXT))
    behind.running.stop()
    assert await follow(behind, asked) == (TEXT, Finished(kept))


async def test_the_gateway_goes_for_good(
    stage: Backstage, asked: Asked, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest comes from the database, where the worker brings it some time later."""
    monkeypatch.setattr(answers, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("assistant.gateway.AWAY_SECONDS", 0.01)
    with behind.task(asked) as task:
        async with aclosing(behind.answers.follow(asked.generation)) as events:
            task.report_progress(TEXT[:3])
            assert await anext(events) == Piece(TEXT[:3], 3)
            await asyncio.to_thread(behind.running.stop)
            rest = asyncio.ensure_future(anext(events))
            kept = keeping.keep_now(stage.database, asked.generation, Answer("succeeded", TEXT))
            assert await rest == Piece(TEXT[3:], len(TEXT))
            assert await anext(events) == Finished(kept)


async def test_nobody_can_say(asked: Asked, behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without gateway and answer that is said, and nothing is stored."""
    monkeypatch.setattr(answers, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(answers, "PATIENCE_SECONDS", 0.05)
    behind.running.stop()
    assert await follow(behind, asked) == ("", Away())


async def test_storing_fails(stage: Backstage, asked: Asked, behind: Behind) -> None:
    """The whole text is shown all the same, as a message that has no id yet."""
    stage.refuse_answers()
    with behind.task(asked) as task:
        task.report_progress(TEXT)
    text, last = await follow(behind, asked)
    assert text == TEXT
    assert isinstance(last, Finished)
    assert (last.persist_failed, last.message.id, last.message.content) == (True, None, TEXT)


async def test_who_leaves(asked: Asked, behind: Behind) -> None:
    """Nothing stays open at the gateway, and the worker isn't told anything."""
    with behind.task(asked) as task:
        async with aclosing(behind.answers.follow(asked.generation)) as events:
            task.report_progress(TEXT)
            assert await anext(events) == Piece(TEXT, len(TEXT))
            assert behind.running.followers() == 1
        await eventually_async(lambda: behind.running.followers() == 0)
        assert task.report_progress("more")


async def test_more_is_stored_than_reported(stage: Backstage, asked: Asked, behind: Behind) -> None:
    """The last words of a worker that was killed before it could report them come from the database."""
    with behind.task(asked) as task:
        async with aclosing(behind.answers.follow(asked.generation)) as events:
            task.report_progress(TEXT)
            assert await anext(events) == Piece(TEXT, len(TEXT))
            kept = keeping.keep_now(stage.database, asked.generation, Answer("succeeded", TEXT + "more"))
            task.fail("killed", "It was killed.")
            task.finish()
            assert [event async for event in events] == [Piece("more", len(TEXT) + 4), Finished(kept)]


async def test_another_attempt(stage: Backstage, asked: Asked, behind: Behind) -> None:
    """Other text than what was said is not said; the message at the end is right."""
    with behind.task(asked) as task:
        async with aclosing(behind.answers.follow(asked.generation)) as events:
            task.report_progress("one")
            assert await anext(events) == Piece("one", 3)
            with behind.task(asked) as again:
                again.report_progress("another one")
            assert await anext(events) == Finished(stage.messages(asked.conversation_id)[1])
    assert stage.messages(asked.conversation_id)[1].content == "another one"


async def test_redis_forgets_and_is_told_again(asked: Asked, behind: Behind) -> None:
    """What the worker writes anew is the same text, and is not said twice."""
    with behind.task(asked) as task:
        async with aclosing(behind.answers.follow(asked.generation)) as events:
            task.report_progress(TEXT)
            assert await anext(events) == Piece(TEXT, len(TEXT))
            behind.forget(asked)
            task.report_progress("more")
            assert await anext(events) == Piece("more", len(TEXT) + 4)
            task.finish()
            last = await anext(events)
            assert isinstance(last, Finished)
            assert last.message.content == TEXT + "more"
