"""The Python client of a gateway: read a task's status, follow it live, ask it to stop.

    from bridge.client import Client

    with Client("http://127.0.0.1:8620") as client:
        for view in client.follow("job-42"):
            print(view.text)

Needs httpx (``pip install 'bridge[client]'``).
"""

from bridge.client.http import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
