"""generation: what a worker does with a message that has been delivered before, or means nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis
from celery import Celery

from tests.examples.assistant.people import Person
from tests.examples.assistant.stage import TEXT, Stage
from tests.waiting import eventually
from tests.worker.logs import read_view

pytestmark = pytest.mark.needs("node", "aimock")


@pytest.fixture
def deliver(assistant: Stage) -> Iterator[Callable[[str], None]]:
    """Gives the workers a message, from a broker that does so twice."""
    app = Celery(broker=assistant.env["BROKER_URL"])
    with app.connection_for_write() as connection:
        yield lambda task_id: app.send_task(
            "assistant.generation.write", task_id=task_id, connection=connection
        )
    app.close()


def refused(assistant: Stage, task_id: str) -> bool:
    """Whether a worker has said that nobody waits for it."""
    with redis.Redis.from_url(assistant.redis.url) as client:
        view = read_view(client, task_id)
    return view.error is not None and view.error["code"] == "not_wanted"


def test_delivered_twice(assistant: Stage, ann: Person, deliver: Callable[[str], None]) -> None:
    """A model is asked once, and the stored answer stays what it is."""
    question = assistant.teach()
    asked = ann.ask(question)
    task_id, place = asked["thread"]["task_id"], asked["thread"]["id"]
    for name in (task_id, "nobodys"):
        deliver(name)
        eventually(partial(refused, assistant, name))
    assert len(assistant.asked(question)) == 1
    assert ann.answers(place) == [asked["assistant"]]
    assert ann.check(task_id, place).json()["content"] == TEXT
