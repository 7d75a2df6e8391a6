"""The proxies of `deploy/` as they are written there, but for addresses, between two servers of the test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from tests.deploy.rendering import DEPLOY
from tests.processes import environ
from tests.servers import free_port
from tests.tools import require_tool
from tests.waiting import DEADLINE_SECONDS, eventually


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that runs, with its URL."""

    url: str

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        return httpx.get(self.url + path, timeout=DEADLINE_SECONDS, **options)


def nginx(text: str, folder: Path, port: int) -> list[str]:
    """nginx with that site in a configuration of the test's, which holds only what keeps it in its folder."""
    # A small buffer towards clients, so that one who reads nothing is noticed after little.
    listen = {"listen 80;": f"listen 127.0.0.1:{port} sndbuf=64k;"}
    (folder / "site.conf").write_text(replaced(text, listen))
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        # One process, or its workers were another user, who can't get into this folder.
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}include {folder}/site.conf;\n}}\n"
    )
    return ["-e", "stderr", "-c", f"{folder}/nginx.conf"]


def caddy(text: str, folder: Path, port: int) -> list[str]:
    """Caddy with that Caddyfile, without the administration port, which another Caddy may have."""
    options = "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n"
    (folder / "Caddyfile").write_text(options + replaced(text, {":80 {": f"http://:{port} {{"}))
    return ["run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


FILES: dict[str, tuple[Path, Callable[[str, Path, int], list[str]]]] = {
    "nginx": (DEPLOY / "nginx" / "bridge.conf", nginx),
    "caddy": (DEPLOY / "caddy" / "Caddyfile", caddy),
}


@contextmanager
def proxy(
    name: str, folder: Path, *, gateway: int, app: int, changes: Mapping[str, str] | None = None
) -> Iterator[Proxy]:
    """Run that proxy between clients and those two ports. `changes` are made in its file first."""
    file, prepare = FILES[name]
    text = replaced(
        file.read_text(),
        {"127.0.0.1:8620": f"127.0.0.1:{gateway}", "127.0.0.1:8000": f"127.0.0.1:{app}", **(changes or {})},
    )
    port = free_port()
    # Caddy keeps things in the home of its user.
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        command = [str(require_tool(name)), *prepare(text, folder, port)]
        with subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environ(**home)) as process:
            try:
                one = Proxy(f"http://127.0.0.1:{port}")
                eventually(lambda: process.poll() is not None or answers(one))
                assert process.poll() is None, (folder / "log").read_text()
                yield one
            finally:
                process.terminate()


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with each of these exchanged; what isn't there is an error."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def answers(one: Proxy) -> bool:
    """Whether it accepts connections already."""
    try:
        return one.get("/").status_code > 0
    except httpx.TransportError:
        return False


class _App(BaseHTTPRequestHandler):
    """Says that it is the app, and what it was asked for."""

    def do_GET(self) -> None:
        body = f"app {self.path} {self.headers.get('Cookie', '')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_app() -> Iterator[int]:
    """Somebody's app; the value is its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _App)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
