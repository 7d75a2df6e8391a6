"""A TCP relay that breaks what runs through it, as networks do: between any two processes.

It runs on a thread of its own, so tests of all kinds can use it. Rules
-----------------------------------------------------------------------
1. Connections go to the targets in turn; one that refuses is passed over, and where all refuse the client is
   cut off, as a balancer does it.
2. A disturbance is aimed: at all connections, or only at Redis links (those that carried a SUBSCRIBE), or
   only at the others. It meets the connections of this moment; those that are made later are well. Only
   `stall` of all, `delay` and `refuse` are states of the whole relay.
3. `silence` is half-open: bytes vanish, and nobody closes. `stall` keeps them, and loses none.
4. A trap waits for bytes to pass and then does something to that very connection, as often as it was told.
   For `swallow` the stream is taken apart into Redis messages, and just that one is left out.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.waiting import DEADLINE_SECONDS, eventually

Address = tuple[str, int]
Way = Literal["up", "down"]
Deed = Literal["cut_before", "cut_within", "cut_after", "swallow"]

_PIECE = 65_536


@dataclass(slots=True)
class Trap:
    """What waits for `pattern`. `sprung` counts how often it was met; `left` how often it still will be."""

    pattern: bytes
    deed: Deed
    way: Way
    left: int
    sprung: int = 0

    def springs(self, way: Way, data: bytes) -> bool:
        """Whether it acts on these bytes; if so, that is counted."""
        if not self.left or way != self.way or self.pattern not in data:
            return False
        self.left -= 1
        self.sprung += 1
        return True


class _Connection:
    """One client, and the target it is relayed to."""

    def __init__(self, client: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self.client, self.target = client, target
        self.link = False
        self.silent: set[Way] = set()
        self.flowing = asyncio.Event()
        self.whole = b""
        """Bytes from the target that are no whole Redis message yet, while a trap to swallow one waits."""

    def cut(self) -> None:
        """Reset it on both sides: what was under way is gone."""
        for end in (self.client, self.target):
            end.transport.abort()


class Proxy:
    """A relay to one target or several. `url` is for Redis, `http` for gateways."""

    def __init__(self, *targets: Address, path: str = "/0") -> None:
        self.targets = list(targets)
        self.connected = 0
        """Connections that were made so far."""
        self.links_made = 0
        self._path = path
        self._port = 0
        self._turn = 0
        self._delay = 0.0
        self._refusing = False
        self._stalling = False
        self._traps: list[Trap] = []
        self._left: dict[Way, int] = {}
        self._connections: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        eventually(lambda: self._port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}{self._path}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    def cut(self, *, links: bool | None = None) -> int:
        """Reset connections; returns how many. links: True only the Redis links, False only the others."""
        return self._at(links, _Connection.cut)

    def silence(self, *, links: bool | None = True, way: Way | None = "down") -> int:
        """From now on the bytes of these connections vanish, and nobody closes them. way None: both ways."""

        def hush(one: _Connection) -> None:
            one.silent |= {way} if way else {"up", "down"}

        return self._at(links, hush)

    def stall(self, *, links: bool | None = None) -> None:
        """Hold bytes back until `flow`; links None: all, on new connections too."""
        self._stalling = links is None
        self._at(links, lambda one: one.flowing.clear())

    def flow(self) -> None:
        """End `stall`."""
        self._stalling = False
        self._at(None, lambda one: one.flowing.set())

    def delay(self, seconds: float) -> None:
        """Every piece waits so long on its way; 0 ends it."""
        self._call(lambda: setattr(self, "_delay", seconds))

    def refuse(self, refusing: bool = True) -> None:
        """Cut off whoever connects from now on, or no longer."""
        self._call(lambda: setattr(self, "_refusing", refusing))

    def trap(self, pattern: bytes, deed: Deed, *, way: Way = "up", times: int = 1) -> Trap:
        """Lay a trap for a piece, or a message, that contains `pattern`.

        cut_before: it never arrives. cut_within: its first half arrives. cut_after: it arrives, but no answer
        to it comes back. swallow (way "down" only): one Redis message is left out, all others arrive.
        """
        one = Trap(pattern, deed, "down" if deed == "swallow" else way, times)
        self._call(lambda: self._traps.append(one))
        return one

    def cut_at(self, count: int, *, way: Way = "up") -> None:
        """Let so many more bytes pass this way, on all connections together, and cut that of the last one."""
        self._call(lambda: self._left.__setitem__(way, count))

    def cut_happened(self, way: Way = "up") -> bool:
        """Whether the last `cut_at` has come to its end."""
        return way not in self._left

    def stop(self) -> None:
        self._call(self._stop.set)
        self._thread.join(DEADLINE_SECONDS)

    def _call(self, function: Callable[[], Any]) -> Any:
        """Do something on the relay's own thread, and wait until it is done."""
        done: list[Any] = []
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: done.append(function()))
        eventually(lambda: done)
        return done[0]

    def _at(self, links: bool | None, do: Callable[[_Connection], None]) -> int:
        def all_of_them() -> int:
            meant = [one for one in self._connections if links in (None, one.link)]
            for one in meant:
                do(one)
            return len(meant)

        count: int = self._call(all_of_them)
        return count

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0, backlog=4096)
        self._port = server.sockets[0].getsockname()[1]
        await self._stop.wait()
        # A connection that was just accepted when its server is closed is never closed by Python 3.11.
        for listener in server.sockets:
            self._loop.remove_reader(listener.fileno())
        await asyncio.sleep(0)
        server.close()
        self._stalling = False
        # A relay that `asyncio.run` has to cancel would be reported as an error of the loop.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for one in list(self._connections):
                one.flowing.set()
                one.cut()
            await asyncio.wait(others, timeout=0.05)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = None if self._refusing else await self._connect()
        if found is None:
            writer.transport.abort()
            return
        to_reader, to_writer = found
        connection = _Connection(writer, to_writer)
        if not self._stalling:
            connection.flowing.set()
        self._connections.add(connection)
        self.connected += 1
        ways = [
            asyncio.create_task(self._pump(connection, "up", reader, to_writer)),
            asyncio.create_task(self._pump(connection, "down", to_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._connections.discard(connection)
            for end in (writer, to_writer):
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self.targets:
            target = self.targets[self._turn % len(self.targets)]
            self._turn += 1
            with suppress(OSError):
                return await asyncio.open_connection(sock=await _small_socket(target))
        return None

    async def _pump(
        self, connection: _Connection, way: Way, reader: asyncio.StreamReader, to: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                await connection.flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if way == "up" and not connection.link and b"SUBSCRIBE" in data:
                    connection.link = True
                    self.links_made += 1
                data = self._disturb(connection, way, data)
                if data and way not in connection.silent:
                    to.write(data)
                    await to.drain()

    def _disturb(self, connection: _Connection, way: Way, data: bytes) -> bytes:
        """What is left of a piece when the traps have had theirs."""
        if way in self._left:
            count = self._left[way]
            if len(data) >= count:
                del self._left[way]
                self._end(connection, way, data[:count])
                return b""
            self._left[way] = count - len(data)
        for trap in self._traps:
            if trap.deed == "swallow" or not trap.springs(way, data):
                continue
            stops = {"cut_before": 0, "cut_within": data.index(trap.pattern), "cut_after": len(data)}
            self._end(connection, way, data[: stops[trap.deed]])
            return b""
        if way == "down":
            data = self._without_swallowed(connection, data)
        return data

    def _end(self, connection: _Connection, way: Way, last: bytes) -> None:
        """Cut a connection after these bytes: they still arrive; what comes back for them doesn't."""
        to, back = connection.target, connection.client
        if way == "down":
            to, back = back, to
        to.write(last)
        to.close()
        back.transport.abort()

    def _without_swallowed(self, connection: _Connection, data: bytes) -> bytes:
        traps = [trap for trap in self._traps if trap.deed == "swallow" and trap.left]
        if not (connection.link and (traps or connection.whole)):
            return data
        messages, connection.whole = resp_messages(connection.whole + data)
        return b"".join(
            message for message in messages if not any(trap.springs("down", message) for trap in traps)
        )


async def _small_socket(target: Address) -> socket.socket:
    """A connection for which the kernel holds little. By itself Linux lets a buffer that nobody reads grow as
    far as the machine's settings go, 32 MB on some: who writes to a stalled relay would not notice anything.
    """
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        end.setblocking(False)
        await asyncio.get_running_loop().sock_connect(end, target)
    except BaseException:
        end.close()
        raise
    return end


def resp_messages(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole RESP2 values in `data`, and the rest that is not whole yet."""
    messages, begin = [], 0
    while (end := _value_end(data, begin)) is not None:
        messages.append(data[begin:end])
        begin = end
    return messages, data[begin:]


def _value_end(data: bytes, begin: int) -> int | None:
    """Where the value that begins there ends; None when it isn't whole."""
    line_end = data.find(b"\r\n", begin)
    if line_end < 0:
        return None
    kind, end = data[begin : begin + 1], line_end + 2
    if kind == b"$":
        end += max(int(data[begin + 1 : line_end]) + 2, 0)
        return end if end <= len(data) else None
    if kind == b"*":
        for _ in range(int(data[begin + 1 : line_end])):
            inner = _value_end(data, end)
            if inner is None:
                return None
            end = inner
    return end


@contextmanager
def proxy(*urls: str) -> Iterator[Proxy]:
    """A running relay to servers, named by their URLs."""
    parts = [urlsplit(url) for url in urls]
    one = Proxy(*((part.hostname or "", part.port or 0) for part in parts), path=parts[0].path)
    try:
        yield one
    finally:
        one.stop()
