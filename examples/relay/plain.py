"""Answers one question as a task, in plain asyncio: python plain.py job-42 "Why is the sky blue?" """

from __future__ import annotations

import asyncio
import sys

from models import models

import bridge
from bridge.sources.llm import Request
from bridge.sources.relay import relay

MODELS = models()


async def answer(job_id: str, question: str) -> None:
    """The task streams while the model writes; a cancel through the bridge stops the model."""
    request = Request(
        [
            {"role": "system", "content": "Answer in one short paragraph."},
            {"role": "user", "content": question},
        ],
        max_tokens=500,
    )
    async with bridge.task(job_id) as task:
        outcome = await relay(task, MODELS.events(request))
    # Here an app would store it. The text is there also when the answer broke off.
    print(f"{outcome.state}: {outcome.text}")
    if outcome.error:
        print(f"{outcome.error['code']}: {outcome.error['message']}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit('usage: python plain.py TASK_ID "QUESTION"')
    asyncio.run(answer(*sys.argv[1:]))
