"""Commands as Redis reads them (RESP): an array of strings, each with its length in front. Pure.

By hiredis, where it is installed, as it is beside the gateway; a worker alone needs nothing but redis-py.
That has a way of its own to pack, but looks at each part several times, for the sake of commands unlike ours.
The format: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

Part = bytes | str | int
"""Text is sent as UTF-8, a number as its digits."""


def pack_plainly(parts: tuple[Part, ...]) -> bytes:
    """One command, ready to be sent."""
    packed = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        packed.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(packed)


def _best() -> Callable[[tuple[Part, ...]], bytes]:
    try:
        import hiredis
    except ImportError:
        return pack_plainly
    return cast("Callable[[tuple[Part, ...]], bytes]", hiredis.pack_command)  # its own types say: of one part


pack = _best()
