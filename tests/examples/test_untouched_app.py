"""examples/untouched-app as its README runs it: the app as it is, and the bridge in front of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bridge.client import Client
from tests.processes import environ, program
from tests.servers import free_port
from tests.waiting import eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "untouched-app"
SENTENCE = "Nobody changed a line of this app, and yet its answers can be watched as they grow."


@contextmanager
def app(pause: float) -> Iterator[str]:
    """``python app.py``, which takes so many seconds for a word; its URL."""
    port = free_port()
    env = environ(PORT=str(port), PAUSE_SECONDS=str(pause))
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=EXAMPLE, env=env, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: _answers(url), timeout=30)
            yield url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/jobs/x").status_code == 404
    except httpx.TransportError:
        return False


@contextmanager
def bridged(redis_url: str, *, pause: float) -> Iterator[tuple[str, str]]:
    """Where the app is, and the bridge in front of it."""
    with app(pause) as upstream:
        options = [f"--upstream={upstream}", f"--upstream-mapping={EXAMPLE / 'mapping.toml'}", "--port=0"]
        with program("serve", f"--redis-url={redis_url}", *options, stderr=None) as bridge:
            assert bridge.stdout is not None
            line = bridge.stdout.readline().decode()
            yield upstream, line.split(" at ")[1].split()[0]


def test_old_clients_and_new_ones_see_the_same_job(redis_url: str) -> None:
    """One polls through the bridge, one asks the app itself, and one gets a stream."""
    with bridged(redis_url, pause=0.2) as (upstream, gateway):
        started = httpx.post(f"{gateway}/api/jobs")
        assert started.status_code == 202
        job = started.json()["id"]
        seen = set()
        with Client(gateway) as client:
            for view in client.follow(job):
                seen.add(view.text)
                assert SENTENCE.startswith(httpx.get(f"{gateway}/api/jobs/{job}").json()["text"])
            assert (view.text, view.state, view.progress) == (SENTENCE, "succeeded", 1.0)
            assert len(seen) > 3
            assert client.status(job)["text"] == SENTENCE
        polled, direct = httpx.get(f"{gateway}/api/jobs/{job}"), httpx.get(f"{upstream}/api/jobs/{job}")
        assert (polled.status_code, polled.content) == (direct.status_code, direct.content)


def test_a_job_is_stopped(redis_url: str) -> None:
    """Through the bridge, in the way that the app has for it."""
    # Long before it is done.
    with bridged(redis_url, pause=1.0) as (_, gateway):
        job = httpx.post(f"{gateway}/api/jobs").json()["id"]
        with Client(gateway) as client:
            for view in client.follow(job):
                if view.text and not view.cancel_requested:
                    client.cancel(job)
            assert view.state == "cancelled"
            assert view.text
            assert SENTENCE.startswith(view.text)


def test_the_example_is_short_and_knows_nothing_of_the_bridge() -> None:
    """It is an app as it was before."""
    source = (EXAMPLE / "app.py").read_text()
    assert len(source.splitlines()) <= 60
    assert "import bridge" not in source
    assert "from bridge" not in source
