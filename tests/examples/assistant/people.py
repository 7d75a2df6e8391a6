"""Somebody in front of the assistant, with a browser's manners: a cookie, JSON, streams read in steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from bridge.sse import CONTENT_TYPE, Decoder

TIMEOUT_SECONDS = 30.0
TEXT_OF = {"chunk": "content", "token": "token"}
"""The events that bring text, and the member that holds it."""


class Stream:
    """An open stream, read only as far as a test wants: what comes later waits in the socket."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.seen: list[tuple[str, Any]] = []
        """Name and data of each event that was read."""
        self.last_event_id = ""
        self._events = self._read()

    @property
    def text(self) -> str:
        """What has come of the answer."""
        return "".join(data[TEXT_OF[name]] for name, data in self.seen if name in TEXT_OF)

    @property
    def names(self) -> list[str]:
        """The events in order, text counted once however many pieces it came in."""
        names = [name for name, _ in self.seen]
        return [name for at, name in enumerate(names) if name not in TEXT_OF or name != names[at - 1]]

    def until(self, name: str) -> Any:
        """Read on to the next event of that name; its data."""
        for found, data in self._events:
            if found == name:
                return data
        raise AssertionError(f"the stream ended without {name!r}: {self.names}")

    def until_text(self, length: int = 1) -> str:
        """Read on until at least so many characters have come; the text."""
        while len(self.text) < length:
            name, _ = next(self._events)
            assert name not in ("done", "error", "complete"), f"it ended after {len(self.text)} characters"
        return self.text

    def rest(self) -> list[tuple[str, Any]]:
        """Read to the end; what had not been read before."""
        return list(self._events)

    def _read(self) -> Iterator[tuple[str, Any]]:
        decoder = Decoder()
        for data in self.response.iter_bytes():
            for frame in decoder.feed(data):
                self.seen.append((frame.event, json.loads(frame.data)))
                self.last_event_id = frame.id
                yield self.seen[-1]


class Person:
    """Somebody who is logged in. What they ask goes to one web app."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, verify=False)

    def log_in(self, password: str) -> None:
        """Get the cookie."""
        answer = self.http.post("/login", json={"name": self.name, "password": password})
        assert answer.status_code == 204, answer.text

    @contextmanager
    def elsewhere(self, url: str) -> Iterator[Person]:
        """The same person, with the same cookie, at another web app."""
        other = Person(self.name, url)
        with other.http:
            other.http.cookies = self.http.cookies
            yield other

    @property
    def cookie(self) -> str:
        """The header, for programs of other languages."""
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    def post(self, content: str, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """Ask, in the way that the headers say: a JSON answer that blocks, if there are none."""
        return self.http.post("/messages", json={"content": content, **body}, headers=headers)

    def ask(self, content: str, **body: Any) -> dict[str, Any]:
        """Ask and wait for the answer: `{thread, user, assistant}`."""
        answer = self.post(content, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ask_later(self, content: str, **body: Any) -> dict[str, Any]:
        """Ask and wait for nothing: `{task_id, conversation_id, …}`."""
        answer = self.post(content, headers={"Prefer": "respond-async"}, **body)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @contextmanager
    def stream(self, content: str, **body: Any) -> Iterator[Stream]:
        """Ask and read the answer while it grows."""
        body = {"content": content, **body}
        with self._open("POST", "/messages", json=body) as stream:
            yield stream

    @contextmanager
    def chat(self, last_event_id: str | None = None, **params: Any) -> Iterator[Stream]:
        """The older style, as an EventSource asks for it."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        with self._open("GET", "/chat/stream", params=params, headers=headers) as stream:
            yield stream

    @contextmanager
    def chat_post(self, content: str, **body: Any) -> Iterator[Stream]:
        """The older style, posted."""
        with self._open("POST", "/chat/stream", json={"content": content, **body}) as stream:
            yield stream

    def check(self, task_id: str, conversation_id: object) -> httpx.Response:
        """One poll."""
        params = {"taskId": task_id, "sessionId": str(conversation_id)}
        return self.http.get("/check_generation", params=params)

    def text_so_far(self, later: dict[str, Any]) -> str:
        """What a poll shows of an answer that is being written, of which `ask_later` told."""
        output = self.check(later["task_id"], later["conversation_id"]).json().get("task_output")
        return str(output["output"]) if output else ""

    def conversation(self, conversation_id: object) -> dict[str, Any]:
        """What is stored, and what runs."""
        answer = self.http.get(f"/conversations/{conversation_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def answers(self, conversation_id: object) -> list[dict[str, Any]]:
        """The assistant's messages."""
        messages = self.conversation(conversation_id)["messages"]
        return [message for message in messages if message["role"] == "assistant"]

    def cancel(self, task_id: str) -> httpx.Response:
        """Press the stop button."""
        return self.http.post(f"/generations/{task_id}/cancel", json={})

    @contextmanager
    def _open(self, method: str, path: str, **options: Any) -> Iterator[Stream]:
        headers = {"Accept": CONTENT_TYPE, **options.pop("headers", {})}
        with self.http.stream(method, path, headers=headers, **options) as response:
            if response.headers.get("content-type") != CONTENT_TYPE:
                response.read()
            yield Stream(response)
