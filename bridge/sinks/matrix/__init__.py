"""Matrix: a task as one message in a room, edited while it grows; and a bot that answers messages so.

    from bridge.client import AsyncClient
    from bridge.sinks.matrix import MatrixSink, Place

    async with MatrixSink(settings) as matrix, AsyncClient("http://127.0.0.1:8620") as client:
        await matrix.show("job-42", Place("!room:example.org"), client.follow("job-42"))

Needs httpx, markdown-it-py and nh3 (``pip install 'bridge[matrix]'``). Sources: the Matrix client-server API
1.13 (event replacements, threads, mentions, typing), and the proposal MSC4357 for the mark of live messages.
"""

from bridge.sinks.matrix.message import Place, Style
from bridge.sinks.matrix.sink import MatrixSink

__all__ = ["MatrixSink", "Place", "Style"]
