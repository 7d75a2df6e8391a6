"""The worker's part: ask a model, stream its answer, store it.

    celery -A assistant.generation worker

Rules
-----
1. The task's id is all that the message says. What was asked stands in the database, and so does whether an
   answer is still wanted: of what is delivered twice, or has been given up, nothing is asked.
2. The answer is stored before the task ends, also when it was cancelled or failed. So whoever sees the end
   finds the message; where storing failed the end's result says `persist_failed`, and the sweeper tries
   again.
3. No retries: a second attempt would be a second answer. The message is acknowledged when the work begins,
   and of a worker that is killed the partial answer is kept.
4. Nothing is raised that a user could read: a task that fails does so with a code and a sentence of ours.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Any, Final

from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError

import bridge
from assistant import conversations, keeping
from assistant.asking import NotSent
from assistant.config import Config
from assistant.conversations import Generation
from assistant.database import Database
from assistant.keeping import Answer
from assistant.providers import Providers
from bridge.sources.llm import Request
from bridge.sources.relay import Outcome, relay_sync
from bridge.worker.adapters.celery import install

log = logging.getLogger(__name__)

CONFIG: Final = Config.from_env()
DATABASE: Final = Database(CONFIG.database)
PROVIDERS: Final = Providers(CONFIG)

app = Celery("assistant", broker=CONFIG.broker_url)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,  # an answer takes long: the next one goes to whoever is free
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 5},
    task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
)
install(app)


def send(generation: Generation) -> None:
    """Announce a generation, and give it to a worker. Raises `NotSent`."""
    # Should Redis not confirm it in time, the bridge goes on trying, and the answer is written all the same.
    bridge.create_task(generation.task_id, owner=generation.owner)
    try:
        write.apply_async(task_id=generation.task_id)
    except (OSError, KombuError, CeleryError) as error:
        raise NotSent(f"{type(error).__name__}: {error}") from error


@app.task(bind=True)  # type: ignore[untyped-decorator]  # Celery has no types
def write(self: Any) -> dict[str, Any]:
    """Answer what the generation with this task's id asks."""
    task = bridge.current_task()
    try:
        with DATABASE.connection() as db:
            generation = conversations.generation(db, self.request.id)
            wanted = generation is not None and generation.state == "running"
            said = conversations.context(db, generation) if generation and wanted else []
    except sqlite3.Error:
        log.exception("task %s: the conversation can't be read", self.request.id)
        return _failed(task, "database", "The conversation can't be read at this moment.")
    if generation is None or not wanted:
        return _failed(task, "not_wanted", "Nobody waits for this answer any more.")
    if not PROVIDERS.knows(generation.provider):
        return _failed(task, "no_provider", "The provider that was asked for is not configured.")
    outcome = relay_sync(task, PROVIDERS.ask(generation.provider, Request(said)))
    if outcome.state == "superseded":
        return {}  # another worker has the task now, and will store it
    result = {**(outcome.result or {}), **_keep(generation, outcome)}
    if task is not None and outcome.state == "succeeded":
        task.succeed(result, outcome.usage)
    elif task is not None and outcome.error is not None:
        task.fail(outcome.error["code"], outcome.error["message"], result, outcome.usage)
    return result


def _keep(generation: Generation, outcome: Outcome) -> dict[str, Any]:
    """Store it; what the task's end will say about that."""
    try:
        message = keeping.keep_now(DATABASE, generation, Answer.of_outcome(outcome))
    except sqlite3.Error:
        log.exception("task %s: the answer can't be stored; it stays on the bridge", generation.task_id)
        return {"persist_failed": True}
    return {"message_id": message.id}


def _failed(task: bridge.Task | None, code: str, message: str) -> dict[str, Any]:
    if task is not None:
        task.fail(code, message)
    return {}
