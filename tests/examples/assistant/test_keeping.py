"""keeping: an answer is stored once, whoever brings it, and nothing of one is lost."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from assistant import keeping
from assistant.asking import Asked
from assistant.conversations import Message
from assistant.gateway import Gateway
from assistant.keeping import LOST, Answer, Sweeper

from bridge.errors import GatewayUnavailable
from tests.examples.assistant.backstage import Backstage
from tests.examples.assistant.behind import Behind
from tests.waiting import eventually_async

WHOLE = Answer("succeeded", "Because.", usage={"output_tokens": 2}, provider="openai", model="m")
WORKER_LOST = Answer("failed", "Beca", {"code": "worker_lost", "message": "The worker was lost."})


@pytest.fixture
def stage(tmp_path: Path) -> Backstage:
    """Nobody is there yet."""
    return Backstage(tmp_path)


@pytest.fixture
def asked(stage: Backstage) -> Asked:
    """A question that is being answered."""
    return stage.ask(stage.user("ann"))


def test_an_answer_is_stored_once(stage: Backstage, asked: Asked) -> None:
    """Of eight who bring it at the same moment one stores it, and all see the same."""
    together = threading.Barrier(8)

    def keep(number: int) -> object:
        together.wait()
        return keeping.keep_now(stage.database, asked.generation, Answer("succeeded", f"by {number}"))

    with ThreadPoolExecutor(8) as threads:
        first, *others = threads.map(keep, range(8))
    assert all(one == first for one in others)
    assert stage.messages(asked.conversation_id) == [asked.user, first]
    assert stage.generation(asked.generation.task_id).state == "succeeded"


@pytest.mark.parametrize(
    ("answer", "partial"),
    [
        (WHOLE, False),
        (Answer("succeeded", "Because", truncated=True), True),
        (Answer("cancelled", "Bec"), True),
        (Answer("failed", "", {"code": "timeout", "message": "Too late."}), True),
        (WORKER_LOST, True),
    ],
)
def test_what_is_partial(stage: Backstage, asked: Asked, answer: Answer, partial: bool) -> None:
    """All that is not a whole answer."""
    kept = keeping.keep_now(stage.database, asked.generation, answer)
    assert (kept.partial, kept.content, kept.state) == (partial, answer.content, answer.state)
    assert stage.generation(asked.generation.task_id).state == answer.state


@pytest.mark.parametrize("given_up", [WORKER_LOST, LOST, Answer.failed("not_sent", "Please ask again.")])
def test_a_worker_that_was_given_up_comes_back(stage: Backstage, asked: Asked, given_up: Answer) -> None:
    """Its whole answer takes the place of what was kept without it, under the same id."""
    before = keeping.keep_now(stage.database, asked.generation, given_up)
    after = keeping.keep_now(stage.database, asked.generation, WHOLE)
    assert (after.id, after.content, after.error, after.partial) == (before.id, "Because.", None, False)
    assert stage.generation(asked.generation.task_id).state == "succeeded"
    assert keeping.keep_now(stage.database, asked.generation, given_up) == after


def test_who_was_given_up_twice(stage: Backstage, asked: Asked) -> None:
    """What had been written until then isn't lost when its task is forgotten later."""
    before = keeping.keep_now(stage.database, asked.generation, WORKER_LOST)
    assert keeping.keep_now(stage.database, asked.generation, LOST) == before


def test_no_other_end_is_taken_back(stage: Backstage, asked: Asked) -> None:
    """What was stored as stopped stays so."""
    before = keeping.keep_now(stage.database, asked.generation, Answer("cancelled", "Bec"))
    assert keeping.keep_now(stage.database, asked.generation, WHOLE) == before


def test_storing_fails(stage: Backstage, asked: Asked) -> None:
    """Nothing has changed, and it works later."""
    stage.refuse_answers()
    with pytest.raises(sqlite3.Error, match="the disk is full"):
        keeping.keep_now(stage.database, asked.generation, WHOLE)
    assert stage.messages(asked.conversation_id) == [asked.user]
    assert stage.generation(asked.generation.task_id).state == "running"
    stage.take_answers()
    assert keeping.keep_now(stage.database, asked.generation, WHOLE).content == "Because."


@pytest.fixture
async def behind(stage: Backstage, redis_url: str) -> AsyncIterator[Behind]:
    """With a gateway and Redis behind it."""
    async with Behind.of(stage, redis_url) as one:
        yield one


async def test_the_sweeper_stores_what_has_ended(stage: Backstage, asked: Asked, behind: Behind) -> None:
    """A task whose worker stored nothing is stored as the bridge has it; one that runs is left alone."""
    running = stage.ask(stage.user("bob"))
    with behind.task(running), behind.task(asked) as task:
        task.report_progress("Because.")
        await behind.sweeper.sweep()
        assert stage.messages(asked.conversation_id) == [asked.user]
        task.succeed({"provider": "openai", "model": "m"}, {"output_tokens": 2})
        task.finish()

        async def swept() -> list[Message]:
            await behind.sweeper.sweep()
            return stage.messages(asked.conversation_id)[1:]

        # The gateway hears of the end a moment after Redis has it.
        (answer,) = await eventually_async(swept)
        assert (answer.content, answer.state, answer.partial) == ("Because.", "succeeded", False)
        assert (answer.provider, answer.model, answer.usage) == ("openai", "m", {"output_tokens": 2})
        assert stage.generation(running.generation.task_id).state == "running"


async def test_one_that_cannot_be_stored_holds_up_no_other(
    stage: Backstage, asked: Asked, behind: Behind
) -> None:
    """The sweeper goes on, and comes back to it."""
    other = stage.ask(stage.user("bob"))
    for each in (asked, other):
        with behind.task(each) as task:
            task.report_progress("Because.")
    with stage.database.connection() as db:
        db.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON messages WHEN NEW.task_id = "
            f"'{asked.generation.task_id}' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    await behind.sweeper.sweep()
    assert stage.generation(other.generation.task_id).state == "succeeded"
    assert stage.generation(asked.generation.task_id).state == "running"
    stage.take_answers()
    await behind.sweeper.sweep()
    assert stage.generation(asked.generation.task_id).state == "succeeded"


class Told:
    """A gateway that says what it is told to, at the time that it is told. (At the seam: httpx.)"""

    def __init__(self, stage: Backstage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.answer: httpx.Response | Exception = httpx.Response(404, json={})
        self.asked = 0
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._respond))
        self.sweeper = Sweeper(stage.database, Gateway(stage.config, http))
        monkeypatch.setattr("assistant.keeping._now", lambda: self.now)
        monkeypatch.setattr("assistant.gateway._ticket", lambda *_: "ticket")

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_task_that_nobody_knows(
    stage: Backstage, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lost when it has been unknown for longer than a lease, without having been known meanwhile."""
    told = Told(stage, monkeypatch)
    unknown, running = told.answer, httpx.Response(200, json={"state": "running"})
    for now, answer in ((0, unknown), (50, running), (100, unknown), (150, unknown)):
        told.now, told.answer = now, answer
        await told.sweeper.sweep()
        assert stage.generation(asked.generation.task_id).state == "running"
    told.now = 161
    await told.sweeper.sweep()
    _, lost = stage.messages(asked.conversation_id)
    assert (lost.state, lost.error) == ("failed", LOST.error)


async def test_a_gateway_that_is_away_is_asked_once(
    stage: Backstage, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep ends there, however many answers wait."""
    told = Told(stage, monkeypatch)
    stage.ask(stage.user("bob"))
    told.answer = httpx.ConnectError("refused")
    await told.sweeper.sweep()
    assert told.asked == 1
    told.answer = httpx.Response(404, json={})
    await told.sweeper.sweep()
    assert told.asked == 3


async def test_the_gateway_is_away(
    stage: Backstage, asked: Asked, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost then, however long it takes."""
    monkeypatch.setattr(keeping, "LOST_SECONDS", 0.0)
    behind.running.stop()
    with pytest.raises(GatewayUnavailable):
        await behind.sweeper.settle(asked.generation)
    await behind.sweeper.sweep()
    assert stage.generation(asked.generation.task_id).state == "running"
