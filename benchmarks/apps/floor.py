"""``python -m benchmarks.apps.floor REDIS_URL``: the least that a token can cost in Python, and no server.

Each message is framed once and written to all connections of its task. There is no HTTP but a head that is
always the same, no history, no heartbeat, nobody is waited for. What this costs is the kernel's and uvloop's
part, which depends on the machine alone; so it tells what the others' figures are worth here.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import defaultdict
from itertools import count
from typing import Any, Final, cast

import redis.asyncio
import uvloop

from benchmarks.feeds import CHANNEL

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_ASKED: Final = re.compile(rb"GET /tasks/([^/ ]+)/events ")
_BACKLOG: Final = 4096

_viewers: defaultdict[str, set[asyncio.Transport]] = defaultdict(set)


class Viewer(asyncio.Protocol):
    """A connection. All it sends is one request, in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._channel = ""

    def data_received(self, data: bytes) -> None:
        """The request."""
        asked = _ASKED.match(data)
        assert asked is not None
        self._channel = CHANNEL.format(task=asked[1].decode())
        _viewers[self._channel].add(self._transport)
        self._transport.write(_HEAD)

    def connection_lost(self, _: Exception | None) -> None:
        """Gone."""
        _viewers[self._channel].discard(self._transport)


async def serve(redis_url: str) -> None:
    """Listen, say where, and hand on what is published, for ever."""
    numbers: defaultdict[str, count[int]] = defaultdict(lambda: count(1))
    client: Any = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)
    async with client, client.pubsub() as pubsub:
        await pubsub.psubscribe(CHANNEL.format(task="*"))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Viewer, "127.0.0.1", 0, backlog=_BACKLOG)
        print(server.sockets[0].getsockname()[1], flush=True)
        async for message in pubsub.listen():
            if message["type"] != "pmessage":
                continue
            channel = message["channel"]
            frame = f"event: chunk\nid: {next(numbers[channel])}\ndata: {message['data']}\n\n".encode()
            chunk = b"%x\r\n%b\r\n" % (len(frame), frame)
            for transport in _viewers[channel]:
                transport.write(chunk)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
