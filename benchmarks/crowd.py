"""The load generator: thousands of streams in one process that does next to nothing for each of them.

Rules
-----
1. While something is measured it waits with epoll, reads, notes the time, keeps the bytes, and looks for one
   character in them. Everything else (heads, chunks, events, text) is read when nothing is measured any more.
2. It says how busy it was: its CPU time from the first piece to the last. Over `TOO_BUSY` of its processor
   it was the bottleneck, and the figures of the sender are worth little.
3. All that was read is kept until the crowd leaves: some 150 bytes per piece. That bounds a run to some ten
   million pieces.

Linux only: epoll.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.helper import obey
from benchmarks.streams import Viewer, delays, judge, spread
from benchmarks.tokens import LAST

TOO_BUSY: Final = 0.9
_HEAD_END: Final = b"\r\n\r\n"
_WAVE: Final = 500
_WAVE_BACK: Final = 2000
"""So many connect before their answers are waited for. A listener's queue holds 4,096 on most systems, and
whom it has no room for the kernel lets wait for seconds, whatever the server does.
"""
_READ_BYTES: Final = 65_536
"""From 128 KiB on the C library has the kernel make room for each read, which takes five times as long."""
_EVENTS: Final = 1024
_HOST: Final = "127.0.0.1"
_LOOK_SECONDS: Final = 0.25


class Crowd:
    """All viewers, and the commands of the process."""

    def __init__(self) -> None:
        self._viewers: dict[int, Viewer] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._port = 0
        self._path = ""

    # The commands

    def connect(
        self, port: int, path: str, tasks: Sequence[str], each: int, seconds: float
    ) -> dict[str, Any]:
        """Open `each` streams of every task; `path` holds `{task}`. Answers when all have begun."""
        self._port, self._path = port, path
        began = time.monotonic()
        self._open_all([(Viewer(task), "") for _ in range(each) for task in tasks], _WAVE, seconds)
        return {"seconds": time.monotonic() - began}

    def read(self, seconds: float) -> dict[str, Any]:
        """Read until everybody has the last token, at most so long; how many lack it, and how busy it was."""
        missing = set(self._viewers)
        gc.collect()
        gc.disable()  # nothing here makes circles, but looking for them takes longer the more there is
        try:
            took, busy = self._read(missing, LAST, time.monotonic() + seconds)
        finally:
            gc.enable()
        return {"missing": len(missing), "seconds": took, "busy": busy}

    def join(self, port: int, path: str, task: str, viewers: int, seconds: float) -> dict[str, Any]:
        """Open streams of a task whose last token is said already, and read to there. How long that took each
        from before it connected, and all together, in milliseconds.
        """
        self._port, self._path = port, path
        begun: dict[int, int] = {}
        for _ in range(viewers):
            now = time.monotonic_ns() // 1000
            begun[self._open(Viewer(task))] = now
        missing = set(begun)
        self._read(missing, LAST, time.monotonic() + seconds)
        ends = {number: self._viewers[number].times[-1] for number in begun if number not in missing}
        took = spread([end - begun[number] for number, end in ends.items()])
        whole = (max(ends.values(), default=0) - min(begun.values())) / 1000
        return {"missing": len(missing), "each": took and asdict(took), "all": whole}

    def drop(self, seconds: float) -> dict[str, Any]:
        """Break all connections off at once, and come back with the last id; when, in microseconds."""
        viewers = list(self._viewers.values())
        dropped_at = time.monotonic_ns() // 1000
        self._close()
        back = [(viewer, viewer.last_id) for viewer in viewers]
        for viewer in viewers:
            viewer.begin_anew()
        self._open_all(back, _WAVE_BACK, seconds)
        return {"dropped_at": dropped_at}

    def wait(self, seconds: float) -> dict[str, Any]:
        """Read for so long, whatever comes."""
        self._read(set(self._viewers), b"\0", time.monotonic() + seconds)
        return {}

    def check(self, texts: str) -> dict[str, Any]:
        """Compare with the texts in that file: tasks and what was reported to them."""
        return asdict(judge(self._viewers.values(), json.loads(Path(texts).read_text())))

    def delays(self) -> dict[str, Any]:
        """How long tokens took: all of them, and the first of each viewer. In milliseconds."""
        every: list[int] = []
        firsts: list[int] = []
        for viewer in self._viewers.values():
            found = [delay for _, delay in delays(viewer)]
            every += found
            firsts += found[:1]
        return {
            name: each and asdict(each) for name, each in (("all", spread(every)), ("first", spread(firsts)))
        }

    def live(self, since: int) -> dict[str, Any]:
        """How many microseconds after that moment everybody had got something that was reported after it,
        and how many never did.
        """
        late = [
            min((at + delay for at, delay in delays(viewer) if at >= since), default=0)
            for viewer in self._viewers.values()
        ]
        return {"micros": max(late) - since, "never": late.count(0)}

    def leave(self) -> dict[str, Any]:
        """Close everything and forget it."""
        self._close()
        return {}

    # What they are made of

    def _open_all(self, wanted: Sequence[tuple[Viewer, str]], wave: int, seconds: float) -> None:
        """Begin streams, wave after wave, and wait until all are answered."""
        until = time.monotonic() + seconds
        for start in range(0, len(wanted), wave):
            opened = {self._open(viewer, last_id) for viewer, last_id in wanted[start : start + wave]}
            self._read(opened, _HEAD_END, until)
            if opened:
                raise TimeoutError(f"{len(opened)} of {len(wanted)} streams got no answer in {seconds:g} s")

    def _open(self, viewer: Viewer, last_id: str = "") -> int:
        """Begin a stream; its answer is read later. The connecting itself is waited for."""
        sock = socket.create_connection((_HOST, self._port), timeout=20)
        resume = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        sock.sendall(
            f"GET {self._path.format(task=viewer.task)} HTTP/1.1\r\nHost: {_HOST}:{self._port}\r\n"
            f"Accept: text/event-stream\r\n{resume}\r\n".encode()
        )
        sock.setblocking(False)
        number = sock.fileno()
        self._sockets[number], self._viewers[number] = sock, viewer
        self._epoll.register(number, select.EPOLLIN)
        return number

    def _close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._viewers.clear()

    def _read(self, missing: set[int], sign: bytes, until: float) -> tuple[float, float]:
        """Read until that sign has come on all connections in `missing`, which are taken out of it then.
        How many seconds that took from the first piece on, and which share of its processor.
        """
        poll, read, clock = self._epoll.poll, os.read, time.monotonic_ns
        keep = {n: (v.pieces.append, v.times.append) for n, v in self._viewers.items()}
        began = used = 0.0
        while missing and time.monotonic() < until:
            ready = poll(_LOOK_SECONDS, _EVENTS)
            if not ready:
                # A sign that was cut in two is found when nothing else comes.
                missing -= {n for n in missing if sign in b"".join(self._viewers[n].pieces[-3:])}
            elif not began:
                began, used = time.monotonic(), time.process_time()
            for number, _ in ready:
                try:
                    data = read(number, _READ_BYTES)
                except ConnectionError:
                    data = b""
                if not data:
                    self._gone(number)
                    continue
                keep_piece, keep_time = keep[number]
                keep_piece(data)
                keep_time(clock() // 1000)
                if sign in data:
                    missing.discard(number)
        took = time.monotonic() - began
        return (took, (time.process_time() - used) / took) if began else (0.0, 0.0)

    def _gone(self, number: int) -> None:
        """The server has closed this one; what is missing stays missing."""
        self._epoll.unregister(number)


def main() -> None:
    """Do what is said on the standard input."""
    crowd = Crowd()
    obey(
        {
            "connect": crowd.connect,
            "read": crowd.read,
            "join": crowd.join,
            "drop": crowd.drop,
            "wait": crowd.wait,
            "check": crowd.check,
            "delays": crowd.delays,
            "live": crowd.live,
            "leave": crowd.leave,
        }
    )


if __name__ == "__main__":
    main()
