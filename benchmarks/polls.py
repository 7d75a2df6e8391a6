"""The other load generator: polls over connections that stay open, each asking again once it is answered.

With some dozens of connections the server always has a request waiting, so what is counted is what it can do.
A part of the answers is kept, and compared when nothing is measured any more.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.helper import obey
from benchmarks.wire import read_head

_HOST: Final = "127.0.0.1"
_BLANK: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TAG: Final = re.compile(rb'\r\netag: *("[^"]*")', re.IGNORECASE)
_KEPT: Final = 100
"""One answer of so many is kept."""
_FIRST_SECONDS: Final = 10.0
"""A server that still wakes up when the time is over may give its first answer until then."""


class Polls:
    """The commands of the process."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def run(self, port: int, path: str, tags: bool, connections: int, seconds: float) -> dict[str, Any]:
        """Poll for so long, or until the first answer if that takes longer; with `tags` each request carries
        the last answer's ETag. How many answers of which status there were, and how busy this process was.
        """
        self._kept = []
        start = f"GET {path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\n".encode()
        plain = start + b"\r\n"
        epoll = select.epoll()
        sockets = {}
        for _ in range(connections):
            sock = socket.create_connection((_HOST, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets[sock.fileno()] = sock
            epoll.register(sock.fileno(), select.EPOLLIN)
        halves = dict.fromkeys(sockets, b"")
        statuses: Counter[bytes] = Counter()
        number = 0
        began, used = time.monotonic(), time.process_time()
        for sock in sockets.values():
            sock.sendall(plain)
        while time.monotonic() - began < (seconds if number else max(seconds, _FIRST_SECONDS)):
            for which, _ in epoll.poll(1.0):
                sock = sockets[which]
                answer = halves[which] + sock.recv(65_536)
                if not _whole(answer):
                    halves[which] = answer
                    continue
                halves[which] = b""
                statuses[answer[9:12]] += 1
                number += 1
                if number % _KEPT == 0:
                    self._kept.append(answer)
                tag = _TAG.search(answer) if tags else None
                sock.sendall(start + b"If-None-Match: " + tag[1] + _BLANK if tag else plain)
        took, used = time.monotonic() - began, time.process_time() - used
        for sock in sockets.values():
            sock.close()
        epoll.close()
        return {
            "statuses": {k.decode(): v for k, v in statuses.items()},
            "seconds": took,
            "busy": used / took,
        }

    def check(self, texts: str, task: str) -> dict[str, Any]:
        """How many of the kept answers hold something else than a beginning of the task's text."""
        wanted = json.loads(Path(texts).read_text())[task]
        wrong = checked = 0
        for answer in self._kept:
            head = read_head(answer)
            assert head is not None
            if head.status == 200:
                checked += 1
                text = json.loads(answer[head.size :]).get("text")
                wrong += not (text and wanted.startswith(text))
        return {"checked": checked, "wrong": wrong}


def _whole(answer: bytes) -> bool:
    """Whether an answer is complete."""
    end = answer.find(_BLANK)
    if end < 0:
        return False
    length = _LENGTH.search(answer, 0, end)
    # 304 has no body, whatever it says of its length.
    return answer[9:12] == b"304" or length is None or len(answer) >= end + len(_BLANK) + int(length[1])


def main() -> None:
    """Do what is said on the standard input."""
    polls = Polls()
    obey({"run": polls.run, "check": polls.check})


if __name__ == "__main__":
    main()
