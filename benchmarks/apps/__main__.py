"""``python -m benchmarks.apps MODULE:APP REDIS_URL``: serve that app, as fast as uvicorn can.

It says its port when it listens; who comes before it is up waits in the listener's queue.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

import uvicorn

_BACKLOG: Final = 4096


def main() -> None:
    """Listen, say where, serve."""
    name, os.environ["REDIS_URL"] = sys.argv[1:]
    config = uvicorn.Config(
        name, loop="uvloop", http="httptools", ws="none", log_level="warning", access_log=False, lifespan="on"
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
