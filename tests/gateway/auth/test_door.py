"""The door over HTTP: who comes in, and what the others are told."""

from __future__ import annotations

import json
import time
from importlib.resources import files
from typing import Any

import pytest

from bridge.codec import dumps
from bridge.errors import SettingsError
from bridge.gateway.app import Gateway
from bridge.gateway.auth import Door, refuse_open_door, tokens
from bridge.gateway.auth.tokens import LEEWAY_SECONDS
from bridge.settings import Settings
from bridge.tickets import ticket
from tests.credentials import SECRET, TICKET_KEY, bearer, jwk, signed, token
from tests.elsewhere import Said, elsewhere
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer

STATUS, EVENTS, CANCEL = "/tasks/job-1/status", "/tasks/job-1/events", "/tasks/job-1/cancel"
TICKETS = Settings(ticket_keys=TICKET_KEY)
ANN = bearer(token(sub="ann"))


@pytest.fixture
def anns(writer: Writer) -> Writer:
    """The worker of a task that is ann's."""
    writer.create("ann")
    writer.open().text("hello")
    return writer


def test_the_owner_reads_and_cancels(guarded: Running, anns: Writer) -> None:
    """By poll, by long poll and by stream, from the header or from a cookie."""
    for headers in (ANN, {"Cookie": f"a=b; s={token(sub='ann')}"}):
        assert guarded.get(STATUS, headers=headers).json()["text"] == "hello"
        assert guarded.get(f"{STATUS}?after=0&wait=1", headers=headers).json()["text"] == "hello"
        with Viewer(guarded, EVENTS, headers=headers) as viewer:
            viewer.text_is("hello")
    assert guarded.post(CANCEL, headers=ANN).json()["cancel_requested"] is True


def test_a_ticket_in_the_url_opens_a_stream(guarded: Running, anns: Writer) -> None:
    """As EventSource must send it; with a position beside it, too. It doesn't cancel unless it says so."""
    text = ticket("job-1", settings=TICKETS)
    with Viewer(guarded, f"{EVENTS}?ticket={text}") as viewer:
        viewer.text_is("hello")
        position = viewer.ids[-1]
        anns.text(" world")
        viewer.text_is("hello world")
    with Viewer(guarded, f"{EVENTS}?ticket={text}&after={position}") as viewer:
        viewer.text_is(" world")
    assert guarded.post(f"{CANCEL}?ticket={text}").status_code == 404
    both = ticket("job-1", actions=("read", "cancel"), settings=TICKETS)
    assert guarded.post(CANCEL, headers=bearer(both)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", STATUS), ("HEAD", STATUS), ("GET", f"{STATUS}?wait=5"), ("GET", "/status/job-1"),
     ("GET", "/status?task_id=job-1"), ("GET", EVENTS), ("HEAD", EVENTS), ("POST", CANCEL)],
)  # fmt: skip
def test_without_credentials_it_is_401(guarded: Running, anns: Writer, method: str, path: str) -> None:
    """Also for streams: EventSource then stops, and that is right. It is the same for an unknown task."""
    for credentials in ("", "?"):
        answers = []
        for task in ("job-1", "job-0"):
            url = path.replace("job-1", task)
            headers = bearer("rubbish") if credentials else {}
            with Viewer(guarded, url, method=method, headers=headers) as viewer:
                answers.append(b"\r\n".join(viewer.to_end().received.split(b"\r\n")[0:1]) + viewer.body)
                assert viewer.status == 401
                assert viewer.headers["www-authenticate"] == "Bearer"
                assert viewer.headers["cache-control"] == "no-store"
                assert method == "HEAD" or b'"code":"unauthenticated"' in viewer.body
        assert answers[0] == answers[1]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/bridge.js", "/bridge.d.ts"])
def test_what_belongs_to_no_task_needs_no_credentials(guarded: Running, path: str) -> None:
    """Probes and files are for all."""
    assert guarded.get(path).status_code == 200


def test_a_wrong_id_is_wrong_for_all(guarded: Running) -> None:
    """What never can be a task is told so, whoever asks."""
    assert guarded.get("/tasks/a%20b/status").status_code == 400
    assert guarded.get("/tasks/a%20b/status", headers=ANN).status_code == 400


def test_everybody_sees_everything_where_nobody_is_asked(gateway: Running, anns: Writer) -> None:
    """With auth none credentials don't matter, nor do owners."""
    for headers in ({}, ANN, bearer("rubbish")):
        assert gateway.get(f"{STATUS}?ticket=rubbish", headers=headers).json()["text"] == "hello"


def test_the_first_that_knows_the_credentials_decides(redis_url: str, anns: Writer) -> None:
    """A token that is valid is not discussed with the app; of what isn't, the app is asked."""
    with elsewhere(Said(200)) as app:
        settings: dict[str, Any] = {"jwt_keys": SECRET, "forward_url": app.url, "forward_cache_seconds": 0}
        with running(redis_url, auth="jwt forward", **settings) as gateway:
            assert gateway.get(STATUS, headers=ANN).status_code == 200
            assert gateway.get(STATUS, headers=bearer(token(sub="bob"))).status_code == 404
            assert not app.asked
            assert gateway.get(STATUS, headers=bearer(token(sub="bob", exp=1))).status_code == 200
            assert gateway.get(STATUS, headers={"Cookie": "session=1"}).status_code == 200
            assert len(app.asked) == 2
            app.answer = lambda _: Said(401)
            assert gateway.get(STATUS, headers={"Cookie": "session=1"}).status_code == 401
        with running(redis_url, auth="forward,jwt", **settings) as gateway:
            assert gateway.get(STATUS, headers=ANN).status_code == 200
            assert gateway.get(STATUS, headers=bearer(token(sub="bob"))).status_code == 404
            app.answer = lambda _: Said(403)
            assert gateway.get(STATUS, headers=ANN).status_code == 404


def test_when_one_can_not_be_asked_another_may_still_know(redis_url: str, anns: Writer) -> None:
    """And when none does it is 503, because the one who is away might have."""
    with elsewhere(Said(500)) as app:
        settings: dict[str, Any] = {"jwt_keys": SECRET, "forward_url": app.url}
        with running(redis_url, auth="forward jwt", **settings) as gateway:
            assert gateway.get(STATUS, headers=ANN).status_code == 200
            assert gateway.get(STATUS).status_code == 503
            assert gateway.get(STATUS, headers=bearer("rubbish")).status_code == 503


def test_who_can_not_be_judged_now_comes_back_later(redis_url: str, anns: Writer) -> None:
    """503 with Retry-After; a stream is told so in a way that EventSource survives, and works later on."""
    with elsewhere(Said(500)) as publisher:
        settings: dict[str, Any] = {"jwt_jwks_url": publisher.url, "jwt_algorithms": "RS256"}
        with running(redis_url, auth="jwt", **settings) as gateway:
            headers = bearer(signed("RS256", "a", sub="ann"))
            answer = gateway.get(STATUS, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "auth_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert gateway.post(CANCEL, headers=headers).status_code == 503
            with Viewer(gateway, EVENTS, headers=headers) as viewer:
                viewer.to_end()
            assert viewer.status == 200
            assert viewer.headers["content-type"] == "text/event-stream"
            assert viewer.body.startswith(b"retry: ")
            assert b"keys of tokens can't be read now" in viewer.body
            assert not viewer.frames
            # No credentials at all are refused even now.
            assert gateway.get(STATUS).status_code == 401


def test_a_published_key_lets_in(redis_url: str, anns: Writer) -> None:
    """From the publisher's JSON to the task's text."""
    body = dumps({"keys": [jwk("ES256", "a")]})
    with elsewhere(Said(body=body)) as publisher:
        settings: dict[str, Any] = {"jwt_jwks_url": publisher.url, "jwt_algorithms": "ES256"}
        with running(redis_url, auth="jwt", **settings) as gateway:
            headers = bearer(signed("ES256", "a", sub="ann"))
            assert gateway.get(STATUS, headers=headers).json()["text"] == "hello"
            assert gateway.get(STATUS, headers=bearer(signed("ES256", "b", sub="ann"))).status_code == 401


def test_a_stream_goes_on_after_its_ticket_has_run_out(
    guarded: Running, anns: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials count when a request begins; nobody comes back with that ticket."""
    over = int(time.time()) - LEEWAY_SECONDS - 1
    text = token(TICKET_KEY, aud="bridge-ticket", bridge={"tasks": ["job-1"]}, exp=over)
    monkeypatch.setattr(tokens, "LEEWAY_SECONDS", 1000)
    with Viewer(guarded, f"{EVENTS}?ticket={text}") as viewer:
        viewer.text_is("hello")
        assert guarded.get(f"{STATUS}?ticket={text}").status_code == 200
        monkeypatch.undo()
        assert guarded.get(f"{STATUS}?ticket={text}").status_code == 401
        anns.text(" world")
        viewer.text_is("hello world")


def test_a_mounted_gateway_decides_as_well(redis_url: str, anns: Writer) -> None:
    """Below a path, and with its own prefix."""
    with running(redis_url, auth="jwt", ticket_keys=TICKET_KEY, base_path="/bridge") as gateway:
        text = ticket("job-1", settings=TICKETS)
        assert gateway.get(STATUS).status_code == 401
        assert gateway.get(f"{STATUS}?ticket={text}").status_code == 200


def test_a_page_of_another_origin_can_read_that_it_is_401(redis_url: str, writer: Writer) -> None:
    """CORS headers stand on it; a preflight needs no credentials, as browsers send none."""
    origin = {"Origin": "https://app.example"}
    with running(redis_url, auth="jwt", ticket_keys=TICKET_KEY, cors_origins=origin["Origin"]) as gateway:
        answer = gateway.get(STATUS, headers=origin)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, origin["Origin"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "10.0.0.1"])
def test_an_open_door_is_for_this_machine(host: str) -> None:
    """On an address that others reach one has to say that one means it, or who may come in."""
    with pytest.raises(SettingsError, match="BRIDGE_AUTH or --auth"):
        refuse_open_door(Settings(host=host))
    refuse_open_door(Settings(host=host, insecure=True))
    refuse_open_door(Settings(host=host, auth="jwt"))
    refuse_open_door(Settings(host=host, auth="forward"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_on_this_machine_the_door_may_be_open(host: str) -> None:
    """For trying things out nothing has to be set."""
    refuse_open_door(Settings(host=host))


@pytest.mark.parametrize("auth", ["jwt", "forward", "jwt forward", "forward jwt"])
def test_a_gateway_that_could_let_nobody_in_does_not_start(auth: str) -> None:
    """A way to decide that lacks what it needs is a mistake, and said at once."""
    with pytest.raises(SettingsError, match="needs"):
        Gateway(Settings(auth=auth))


def test_no_library_is_loaded_where_nobody_is_asked() -> None:
    """An open door has no judges."""
    assert Door(Settings())._judges == []


def test_watching_needs_no_owner_where_it_is_granted(guarded: Running, writer: Writer) -> None:
    """A task that nobody announced has none: with a ticket it can be watched all the same."""
    text = ticket("job-1", settings=TICKETS)
    with Viewer(guarded, f"{EVENTS}?ticket={text}") as viewer:
        writer.open().text("nobody's")
        viewer.text_is("nobody's")
    assert guarded.get(STATUS, headers=ANN).status_code == 404
    with watch(guarded) as viewer:
        assert viewer.head().status == 401


def test_every_request_about_a_task_says_who_may() -> None:
    """The API's description has 401 exactly where credentials may be asked for, and how they are sent."""
    document: dict[str, Any] = json.loads((files("bridge.gateway") / "openapi.json").read_text())
    for path, item in document["paths"].items():
        for method, operation in item.items():
            about_a_task = path.startswith(("/tasks/", "/status"))
            assert ("401" in operation["responses"]) is about_a_task
            read = [["report"]] if "workers" in operation["tags"] else [["bearer"], ["ticket"], []]
            wanted = read if about_a_task else []
            assert [list(one) for one in operation.get("security", [])] == wanted
            assert ("403" in operation["responses"]) is (method == "post")
    assert set(document["components"]["securitySchemes"]) == {"bearer", "ticket", "report"}
