"""A worker over HTTP: whole requests, and such whose body is sent piece by piece, on a bare socket."""

from __future__ import annotations

import json
from typing import Any, Self
from urllib.parse import urlencode

import httpx

from tests.gateway.viewer import Gateway, Viewer
from tests.waiting import DEADLINE_SECONDS

KEY = "a key that is long enough for reports".replace(" ", "-")
ALLOWED = {"Authorization": f"Bearer {KEY}"}
TEXT, JSON, LINES = "text/plain", "application/json", "application/x-ndjson"


class Sending(Viewer):
    """A report that is under way. Its body's pieces go out as chunks of their own."""

    def __init__(self, gateway: Gateway, path: str, headers: dict[str, str]) -> None:
        super().__init__(
            gateway, path, method="POST", headers={"Transfer-Encoding": "chunked", **ALLOWED, **headers}
        )

    def write(self, data: bytes | str) -> Self:
        """Send a piece."""
        data = data.encode() if isinstance(data, str) else data
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        return self

    def finish(self) -> dict[str, Any]:
        """End the body; the answer."""
        self.socket.sendall(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer, with the status as one of its members."""
        self.head().to_end()
        return {**json.loads(self.body), "status": self.status}


class Reporter:
    """One worker of a task. `query` stands in the URL of all its requests."""

    def __init__(self, gateway: Gateway, task_id: str = "job-1", **query: Any) -> None:
        self.gateway = gateway
        self.task_id = task_id
        self.query = query

    def events(self, content: Any = b"", kind: str = TEXT, **more: Any) -> dict[str, Any]:
        """Report text and bytes as they are, anything else as JSON. The answer as in `Sending.answer`."""
        if not isinstance(content, str | bytes):
            content, kind = json.dumps(content), JSON
        return self._post("events", content, kind, more)

    def end(self, value: Any = None, **more: Any) -> dict[str, Any]:
        return self._post("end", b"" if value is None else json.dumps(value), JSON, more)

    def stream(self, kind: str = TEXT, headers: dict[str, str] | None = None, **query: Any) -> Sending:
        """Begin a report whose body comes piece by piece."""
        return Sending(self.gateway, self._path("events", query), {"Content-Type": kind, **(headers or {})})

    def _post(self, what: str, content: str | bytes, kind: str, query: dict[str, Any]) -> dict[str, Any]:
        host, port = self.gateway.address
        headers = {"Content-Type": kind, **ALLOWED, **query.pop("headers", {})}
        url = f"http://{host}:{port}{self._path(what, query)}"
        response = httpx.post(url, content=content, headers=headers, timeout=DEADLINE_SECONDS, verify=False)
        return {**response.json(), "status": response.status_code}

    def _path(self, what: str, query: dict[str, Any]) -> str:
        return f"/tasks/{self.task_id}/{what}?{urlencode({**self.query, **query})}"
