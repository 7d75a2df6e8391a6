"""Looking for credentials where they are not: in logs, errors, answers, and what commands print."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import httpx
import pytest
import uvicorn
from click.testing import CliRunner
from starlette.types import Message

from bridge.cli import main
from bridge.gateway.app import Gateway
from bridge.settings import Settings
from bridge.tickets import ticket
from tests.cli.test_serve import first_line
from tests.credentials import OTHER, SECRET, TICKET_KEY, bearer, signed, token
from tests.elsewhere import Asked, Said, elsewhere
from tests.gateway.running import running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer
from tests.processes import program
from tests.waiting import DEADLINE_SECONDS, eventually

STATUS, EVENTS, CANCEL = "/tasks/job-1/status", "/tasks/job-1/events", "/tasks/job-1/cancel"
TICKETS = Settings(ticket_keys=TICKET_KEY)


def test_credentials_in_logs_and_answers(
    redis_url: str, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Good ones and bad ones, from everywhere that they can come from, while all that is asked is down or up:
    at the finest level of every log no part of any can be found, nor in what is answered.
    """
    caplog.set_level(logging.DEBUG)
    writer.create("ann")
    writer.open().text("private")
    good = [ticket("job-1", settings=TICKETS), token(sub="ann"), signed("RS256", "a", sub="ann")]
    bad = [token(OTHER, sub="ann"), token(sub="ann", exp=1), "c0ffee-c0ffee-c0ffee", "a.b.c0ffee-c0ffee"]
    answers = []
    with elsewhere(Said(500)) as publisher, elsewhere(Said(500)) as app:
        with running(
            redis_url, auth="jwt forward", jwt_keys=SECRET, ticket_keys=TICKET_KEY, jwt_cookie="s",
            forward_url=app.url, forward_cache_seconds=0,
        ) as gateway:  # fmt: skip
            for status in (500, 200, 401, 302, 403):
                app.answer = lambda _, status=status: Said(status)  # type: ignore[misc] # a default binds it
                for text in (*good, *bad):
                    cookie = {"Cookie": f"s={text}; session={text}"}
                    for headers in (bearer(text), cookie, {"Authorization": f"Basic {text}"}):
                        answers.append(gateway.get(STATUS, headers=headers))
                    answers.append(gateway.get(f"{STATUS}?ticket={text}&after=x"))
                    answers.append(gateway.get(f"/tasks/a%20b/status?ticket={text}"))
                    answers.append(gateway.get(f"/nothing?ticket={text}"))
                    answers.append(gateway.post(f"{CANCEL}?ticket={text}", headers={"Origin": "null"}))
        settings: dict[str, Any] = {"jwt_jwks_url": publisher.url, "jwt_algorithms": "RS256"}
        with running(redis_url, auth="jwt", **settings) as gateway:
            answers += [gateway.get(STATUS, headers=bearer(text)) for text in (*good, *bad)]
    said = caplog.text + "".join(f"{answer.headers} {answer.text}" for answer in answers)
    for text in (*good, *bad, SECRET, TICKET_KEY):
        for part in {text, *text.split(".")} - {"a", "b"}:
            # The client that the test asks with logs what it was told to ask.
            ours = [line for line in said.split("\n") if "HTTP Request" not in line]
            assert part not in "\n".join(ours)


@pytest.mark.parametrize("value", ["a\x7fb", "é", "a\tb", " ", "a\x80b", "x" * 20_000])
def test_a_header_that_the_apps_client_refuses(
    redis_url: str, writer: Writer, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """What a library says of a header that it won't send may hold the header; so that isn't repeated."""
    caplog.set_level(logging.DEBUG)
    with elsewhere(Said(200)) as app, running(redis_url, auth="forward", forward_url=app.url) as gateway:
        raw = f"GET {STATUS} HTTP/1.1\r\nHost: x\r\nCookie: s3cret{value}s3cret\r\nConnection: close\r\n\r\n"
        with Viewer(gateway, STATUS, raw=raw.encode("latin-1")) as viewer:
            viewer.to_end()
    assert viewer.status in (400, 404, 503)
    assert b"s3cret" not in viewer.received
    assert "s3cret" not in caplog.text


async def test_a_ticket_in_an_access_log(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where the gateway is mounted somebody else's server writes one: it names the URL without the ticket."""
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": STATUS, "raw_path": STATUS.encode(), "headers": [],
        "query_string": b"ticket=s3cret&after=0", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    gateway = Gateway(Settings(redis_url=redis_url, auth="jwt", ticket_keys=TICKET_KEY))
    async with gateway.lifespan():
        await gateway(scope, receive, send)
    assert sent[0]["status"] == 401
    # What uvicorn's access log prints.
    assert scope["query_string"] == b"after=0"
    assert b"s3cret" not in repr(sent).encode()


def test_a_ticket_in_uvicorns_access_log(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The same by the server that most people run."""
    caplog.set_level(logging.INFO)
    gateway = Gateway(Settings(redis_url=redis_url, auth="jwt", ticket_keys=TICKET_KEY))
    server = uvicorn.Server(uvicorn.Config(gateway, port=0, lifespan="on", log_config=None, access_log=True))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}{STATUS}?ticket=s3cret&after=0"
        assert httpx.get(url, verify=False, timeout=DEADLINE_SECONDS).status_code == 401
        access = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
        eventually(lambda: access or _more(caplog, access))
    finally:
        server.should_exit = True
        thread.join()
    assert "s3cret" not in "".join(access)
    assert f"{STATUS}?after=0" in access[0]


def _more(caplog: pytest.LogCaptureFixture, access: list[str]) -> list[str]:
    access += [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    return access


def test_credentials_in_the_log_of_a_service(redis_url: str) -> None:
    """At its finest level: neither what the client sent, nor what the app's URL holds, nor its answer."""

    def answer(_: Asked) -> Said:
        return Said(headers={"Set-Cookie": "session=s3cret-of-the-app"})

    with elsewhere(answer) as app:
        env = {
            "BRIDGE_REDIS_URL": redis_url,
            "BRIDGE_AUTH": "forward",
            "BRIDGE_FORWARD_URL": app.url.replace("//", "//me:s3cret@") + "/may?key=s3cret",
        }
        arguments = ["--port", "0", "--drain-seconds", "0", "--log-level", "debug"]
        with program("serve", *arguments, env=env) as serving:
            url = first_line(serving).split()[3]
            headers = {"Cookie": "session=s3cret", "Authorization": "Basic s3cret"}
            asking: dict[str, Any] = {"headers": headers, "verify": False, "timeout": DEADLINE_SECONDS}
            for path in ("/tasks/nobody/status", "/tasks/nobody/status?ticket=s3cret"):
                assert httpx.get(url + path, **asking).status_code in (404, 503)
            app.answer = lambda _: Said(500, headers={"X-Trouble": "s3cret"})
            httpx.get(f"{url}/tasks/other/status", **asking)
            serving.terminate()
            stdout, stderr = serving.communicate(timeout=30)
    assert b"can't say who may see tasks" in stderr
    assert b"s3cret" not in stdout + stderr


@pytest.mark.parametrize("arguments", [["settings"], ["settings", "--json"], ["serve", "--help"]])
def test_secrets_in_what_commands_print(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """That they are set is said, and where; not what they are."""
    monkeypatch.setenv("BRIDGE_TICKET_KEYS", TICKET_KEY)
    monkeypatch.setenv("BRIDGE_JWT_KEYS", SECRET)
    monkeypatch.setenv("BRIDGE_FORWARD_URL", "http://me:s3cret@app.example/may?key=s3cret")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    for secret in (TICKET_KEY, SECRET, "s3cret"):
        assert secret not in result.output
    if arguments[0] == "serve":
        assert "--ticket-keys" not in result.output
        assert "--jwt-keys" not in result.output
    elif "--json" in arguments:
        assert json.loads(result.stdout)["ticket_keys"] == {"value": "***", "source": "BRIDGE_TICKET_KEYS"}


@pytest.mark.parametrize(
    "settings",
    [
        {"BRIDGE_TICKET_KEYS": "s3cret"},
        {"BRIDGE_TICKET_KEYS": f"s3cret-{OTHER} s3cret-{OTHER} s3cret-{OTHER}"},
        {"BRIDGE_AUTH": "jwt", "BRIDGE_JWT_KEYS": "s3cret"},
        {"BRIDGE_AUTH": "jwt", "BRIDGE_JWT_KEYS": "s3cret", "BRIDGE_JWT_ALGORITHMS": "RS256"},
        {"BRIDGE_JWT_JWKS_URL": "http://me:s3cret@app.example/"},
        {"BRIDGE_FORWARD_URL": "ftp://me:s3cret@app.example/"},
    ],
)
def test_secrets_in_errors_of_settings(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    """What is wrong with a secret is said without it."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["serve", "--port", "0"])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("bridge: ")
    assert "s3cret" not in result.output


def test_secrets_in_the_settings_repr() -> None:
    """Settings end up in tracebacks and debuggers."""
    settings = Settings(ticket_keys=TICKET_KEY, jwt_keys=SECRET)
    assert TICKET_KEY not in repr(settings)
    assert SECRET not in f"{settings}"


def test_an_app_that_is_told_credentials_by_redirect(redis_url: str, writer: Writer) -> None:
    """They go where the setting says, and not where an answer says."""
    writer.create("ann")
    with elsewhere(Said()) as thief:

        def answer(_: Asked) -> Said:
            return Said(307, headers={"location": thief.url})

        with elsewhere(answer) as app, running(redis_url, auth="forward", forward_url=app.url) as gateway:
            assert gateway.get(STATUS, headers={"Cookie": "session=1"}).status_code == 503
        assert not thief.asked
