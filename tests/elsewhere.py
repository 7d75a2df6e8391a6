"""An HTTP server that isn't ours, on a real socket: where keys are published, or the app that is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Header names are in lower case; of several of a name the last."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer. before: waited for before anything is said; after: before the body's last byte."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    before: threading.Event | None = None
    after: threading.Event | None = None


class Elsewhere:
    """`answer` says what is answered, and may be exchanged; `asked` is what was."""

    def __init__(self, answer: Callable[[Asked], Said]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(OSError):
                    outer._serve(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base's)
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Be gone: connections are refused from now on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(handler.command, handler.path, headers)
        self.asked.append(asked)
        said = self.answer(asked)
        if said.before is not None:
            said.before.wait(30)
        handler.send_response(said.status)
        for name, value in said.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(said.body) + (said.after is not None)))
        handler.end_headers()
        handler.wfile.write(said.body)
        if said.after is not None:
            said.after.wait(30)
            handler.wfile.write(b" ")


@contextmanager
def elsewhere(answer: Callable[[Asked], Said] | Said) -> Iterator[Elsewhere]:
    """A running one that answers always the same, or as a function says."""
    one = Elsewhere(answer if callable(answer) else lambda _: answer)
    try:
        yield one
    finally:
        one.stop()
