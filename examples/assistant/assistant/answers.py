"""Following an answer: what the bridge shows of a task becomes this application's events.

Rules
-----
1. `follow` yields the text in pieces, in order, nothing twice, and last a `Finished` with the message as it
   is stored; `Away` instead, where nobody could say how it went on for `PATIENCE_SECONDS`.
2. A place in an answer is a number of characters. Who has had so many gets the rest, whatever happened to
   connections, gateways and Redis meanwhile: the bridge has the whole text of every task.
3. What was said can't be taken back on these wires. Should the text begin anew (another attempt of the
   task, which nothing here starts) it says no more than the message at the end, which is whole.
4. When the task has ended its message is in the database, or it is brought there now (`keeping`). If that
   fails, it is shown all the same, without an id. What the bridge lacks of it (the worker was killed after it
   had stored the last words, and before it could report them) is said, too.
5. With the gateway away the database is asked again and again: the worker goes on, and stores its answer
   without us. An answer that is stored is never asked for at the gateway, which forgets it after an hour.
6. Whoever follows may leave at any moment by closing the generator; the answer is written all the same.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from assistant import conversations, keeping
from assistant.conversations import Generation, Message
from assistant.database import Database
from assistant.gateway import Gateway
from assistant.keeping import ENDED, Answer
from bridge.errors import ClientError, GatewayUnavailable

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 120.0
AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """More text. upto: how many characters of the answer have been said with it."""

    text: str
    upto: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end. persist_failed: the message isn't stored yet, and has no id."""

    message: Message
    persist_failed: bool = False


@dataclass(frozen=True, slots=True)
class Away:
    """Nobody can say how it goes on. The answer may still be written, and will be in its conversation."""

    code: str = "gateway_unavailable"
    message: str = (
        "The answer can't be followed at this moment. It will be in the conversation when it is written."
    )


Event = Piece | Finished | Away


@dataclass(frozen=True, slots=True)
class Answers:
    """Follows generations, any number at once."""

    database: Database
    gateway: Gateway

    async def follow(self, generation: Generation, said: int = 0) -> AsyncGenerator[Event, None]:
        """All that is still to come of an answer of which `said` characters have been had."""
        heard = time.monotonic()
        while (message := await run_in_threadpool(self._stored, generation)) is None:
            try:
                async with aclosing(self.gateway.follow(generation)) as views:
                    async for view in views:
                        heard = time.monotonic()
                        if len(view["text"]) > said and view["attempt"] <= 1:
                            yield Piece(view["text"][said:], len(view["text"]))
                            said = len(view["text"])
                        if view["state"] in ENDED:
                            end = await self.finish(generation, view)
                            whole = end.message.content
                            if len(whole) > said and view["attempt"] <= 1:
                                yield Piece(whole[said:], len(whole))
                            yield end
                            return
            except GatewayUnavailable as error:
                log.info("%s can't be followed now: %s", generation.task_id, error)
            except ClientError:
                log.exception("%s can't be followed", generation.task_id)
                heard = -PATIENCE_SECONDS
            if time.monotonic() - heard > PATIENCE_SECONDS:
                yield Away()
                return
            await asyncio.sleep(AGAIN_SECONDS)
        if len(message.content) > said:
            yield Piece(message.content[said:], len(message.content))
        yield Finished(message)

    async def finish(self, generation: Generation, view: dict[str, Any]) -> Finished:
        """What is stored of an answer that the bridge shows as ended; what should be, where it can't."""
        message = await run_in_threadpool(self._stored, generation)
        if message is not None:
            return Finished(message)
        answer = Answer.of_view(view)
        try:
            message = await run_in_threadpool(keeping.keep_now, self.database, generation, answer)
        except sqlite3.Error as error:
            log.error("task %s can't be stored, the sweeper tries again: %s", generation.task_id, error)
            return Finished(answer.as_message(generation), persist_failed=True)
        return Finished(message)

    def _stored(self, generation: Generation) -> Message | None:
        try:
            with self.database.connection() as db:
                return conversations.answer_of(db, generation.task_id)
        except sqlite3.Error:
            return None  # the bridge has it, too
