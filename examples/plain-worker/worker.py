"""A worker of one's own, with nothing but a Redis list as its queue.

python worker.py                          does what is in the list, one after the other
python worker.py "Why is the sky blue?"   puts a question there, and prints its id
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator

import redis

import bridge
from bridge import report_progress

QUEUE = "questions"


def model(question: str) -> Iterator[str]:
    """Stands for whatever takes its time and has something to say meanwhile."""
    for word in f"You asked: {question} That is a good question, and this is a long answer.".split():
        time.sleep(0.1)
        yield word + " "


def ask(queue: redis.Redis, question: str) -> str:
    """The app's side: announce the task, then schedule it."""
    task_id = str(uuid.uuid4())
    bridge.create_task(task_id, owner="user-7")
    queue.rpush(QUEUE, json.dumps({"id": task_id, "question": question}))
    return task_id


def answer(task_id: str, question: str) -> None:
    """The worker's side: leaving the block ends the task, also when the model raises."""
    with bridge.task(task_id):
        for token in model(question):
            if not report_progress(token):
                return  # somebody cancelled


def work(queue: redis.Redis) -> None:
    """For ever."""
    while True:
        _, job = queue.blpop([QUEUE])
        job = json.loads(job)
        try:
            answer(job["id"], job["question"])
        except Exception as error:
            print(f"{job['id']} failed: {error}", file=sys.stderr)


if __name__ == "__main__":
    with redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")) as connection:
        print(ask(connection, sys.argv[1])) if len(sys.argv) > 1 else work(connection)
