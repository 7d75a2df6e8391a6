"""The ways in which a worker's tokens reach a sender: the bridge's hook, Redis pub/sub, HTTP to Nchan.

All carry the same data, ``{"text": …}``. `report` may collect; `flush` sends what was collected, and is
called after each look at the clock.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import redis

import bridge
from benchmarks.wire import read_head
from bridge.store.connect import keys_for

CHANNEL: Final = "tasks:{task}"
_HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 30.0
_ANSWER: Final = b"HTTP/1.1 "
_OK: Final = b"HTTP/1.1 20"
_CANCEL_SECONDS: Final = 10.0
_NCHAN_CONNECTIONS: Final = 4
_NCHAN_AT_ONCE: Final = 32
"""So many requests are under way on one connection: more answers than a socket holds would be a deadlock."""


class Feed(Protocol):
    """One way in. Tasks are known by their place in the list that it was made with."""

    def report(self, number: int, text: str) -> None:
        """Report a token of that task."""

    def flush(self) -> None:
        """Send what was collected."""

    def finish(self) -> int:
        """End all tasks; of how many that is confirmed."""


class Hook:
    """The bridge's own: `report_progress` of open tasks. Begins them, and waits until Redis knows them."""

    def __init__(self, tasks: Sequence[str], redis_url: str, flush_milliseconds: float) -> None:
        # Thousands of tasks in one process, as only a benchmark has, would ask thousands of times a second.
        settings = bridge.configure(
            redis_url=redis_url, flush_milliseconds=flush_milliseconds, cancel_check_seconds=_CANCEL_SECONDS
        )
        self._tasks = [bridge.task(task, bind=False).start() for task in tasks]
        with redis.Redis.from_url(redis_url) as client:
            keys = keys_for(settings, client)
            names = [keys.task(task) for task in tasks]
            deadline = time.monotonic() + _START_SECONDS
            while client.exists(*names) < len(names):
                if time.monotonic() > deadline:
                    raise TimeoutError("not all tasks have begun")
                time.sleep(0.02)

    def report(self, number: int, text: str) -> None:
        """Say a token."""
        if not self._tasks[number].report_progress(text):
            raise RuntimeError(f"{self._tasks[number].id} was told to stop")

    def flush(self) -> None:
        """The pump does that."""

    def finish(self) -> int:
        """Leave all tasks."""
        return sum(task.finish() for task in self._tasks)


class Publish:
    """Redis pub/sub, as apps with a queue per viewer are fed: a message per token."""

    def __init__(self, tasks: Sequence[str], redis_url: str) -> None:
        self._channels = [CHANNEL.format(task=task) for task in tasks]
        client: Any = redis.Redis.from_url(redis_url)  # redis-py's own types are too loose
        self._pipeline = client.pipeline(transaction=False)

    def report(self, number: int, text: str) -> None:
        """Collect a message."""
        self._pipeline.publish(self._channels[number], json.dumps({"text": text}))

    def flush(self) -> None:
        """All in one round trip."""
        if len(self._pipeline):
            self._pipeline.execute()

    def finish(self) -> int:
        """There is no end to say."""
        return len(self._channels)


class Nchan:
    """HTTP requests to a publisher's location, on a few connections that stay open. A task keeps to one, and
    requests don't wait for each other's answers: nothing cheaper can be asked of nginx.
    """

    def __init__(self, tasks: Sequence[str], port: int) -> None:
        self._heads = [
            f"POST /publish/{task} HTTP/1.1\r\nHost: {_HOST}\r\nContent-Type: text/plain\r\n"
            "Content-Length: ".encode()
            for task in tasks
        ]
        number = min(_NCHAN_CONNECTIONS, len(tasks))
        self._sockets = [socket.create_connection((_HOST, port)) for _ in range(number)]
        for sock in self._sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting: list[list[bytes]] = [[] for _ in self._sockets]

    def report(self, number: int, text: str) -> None:
        """Collect a request."""
        body = json.dumps({"text": text}).encode()
        self._waiting[number % len(self._waiting)].append(
            b"%b%d\r\n\r\n%b" % (self._heads[number], len(body), body)
        )

    def flush(self) -> None:
        """Send all, and wait for the answers."""
        while any(self._waiting):
            under_way = []
            for sock, waiting in zip(self._sockets, self._waiting, strict=True):
                requests = waiting[:_NCHAN_AT_ONCE]
                del waiting[:_NCHAN_AT_ONCE]
                sock.sendall(b"".join(requests))
                under_way.append((sock, len(requests)))
            for sock, number in under_way:
                self._take_answers(sock, number)

    def _take_answers(self, sock: socket.socket, number: int) -> None:
        answers = b""
        while number and not _complete(answers, number):
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError("nginx has closed the publisher's connection")
            answers += piece
        if answers.count(_OK) != number:
            raise RuntimeError(f"Nchan refused a message: {answers[:200]!r}")

    def finish(self) -> int:
        """There is no end to say."""
        return len(self._heads)


def _complete(answers: bytes, number: int) -> bool:
    """Whether so many answers are there, the last one with its body."""
    if answers.count(_ANSWER) < number:
        return False
    last = answers[answers.rfind(_ANSWER) :]
    head = read_head(last)
    return head is not None and len(last) >= head.size + int(head.headers[b"content-length"])
