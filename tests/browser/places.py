"""What the pages of these tests come from: a demonstration of our own, and a web site of somebody else."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import redis

from bridge.cli.demo.command import DEMO_TASK
from tests.processes import program
from tests.servers import free_port


@dataclass(frozen=True, slots=True)
class Demo:
    """A `bridge demo` that runs."""

    url: str
    redis_url: str

    def status(self, task_id: str) -> dict[str, Any]:
        """What the task's `/status` says."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/tasks/{task_id}/status").raise_for_status().json()
        return answer

    def stop_all(self) -> None:
        """Ask all tasks to stop, so that the next test may start as many as it likes."""
        with redis.Redis.from_url(self.redis_url) as client:
            keys = [key.decode() for key in client.scan_iter("*:task")]
        for task_id in {match[1] for match in map(re.compile(r"\{(.+)\}").search, keys) if match}:
            if task_id != DEMO_TASK:
                httpx.post(f"{self.url}/tasks/{task_id}/cancel")


@contextmanager
def demonstration() -> Iterator[Demo]:
    """Start `bridge demo` as people do, and end it as Ctrl-C does."""
    ports = ("--port", str(free_port()), "--redis-port", str(free_port()))
    # Its complaints go where pytest shows them.
    with program("demo", *ports, stderr=None) as process:
        assert process.stdout is not None
        said = b""
        for line in process.stdout:
            said += line
            if b"Ctrl-C" in line:
                break
        words = dict(re.findall(r"^(gateway|redis) +(\S+)", said.decode(), re.MULTILINE))
        yield Demo(words["gateway"], words["redis"])
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


class _Empty(BaseHTTPRequestHandler):
    """Answers every request with an empty page."""

    def do_GET(self) -> None:
        """One empty page."""
        body = b"<!doctype html><link rel=icon href=data:,><title>another site</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def empty_site() -> Iterator[str]:
    """A web server with an empty page, of another origin than all gateways; the value is that origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Empty)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
