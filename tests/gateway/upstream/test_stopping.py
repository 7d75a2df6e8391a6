"""Cancelling a task that is the app's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.upstream.conftest import Behind
from tests.gateway.upstream.legacy import Asked, Legacy, Reply, reply
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer


@pytest.fixture
def mapping(tmp_path: Path) -> str:
    """A mapping that says how to stop a task."""
    path = tmp_path / "map.toml"
    path.write_text('preset = "plain"\ncancel = "POST /api/jobs/{task_id}/stop"')
    return str(path)


def stoppable(app: Legacy, status: int = 202) -> None:
    """Let the app stop its tasks when it is asked to."""

    def answer(asked: Asked) -> Reply:
        if not asked.target.endswith("/stop"):
            return app.said(asked)
        task = asked.target.split("/")[3]
        if task not in app.tasks:
            return reply({}, 404)
        if status == 202:
            app.tasks[task] = {**app.tasks[task], "status": "cancelled"}
        return reply({}, status)

    app.answer = answer


def test_the_app_is_asked_to_stop(app: Legacy, in_front: Behind, mapping: str) -> None:
    """With the poller's credentials; followers see the request, and then the end that the app tells."""
    app.tasks["job-1"] = {"status": "running", "text": "Hel"}
    stoppable(app)
    settings = {"upstream_mapping": mapping, "upstream_headers": "Authorization: Bearer s3cret"}
    with in_front(**settings) as gateway, watch(gateway) as viewer:
        viewer.text_is("Hel")
        answer = gateway.post(
            "/tasks/job-1/cancel", headers={"authorization": "Basic YW5uOnB3", "cookie": "a=b"}
        )
        assert answer.status_code == 200
        assert answer.json()["cancel_requested"] is True
        viewer.to_end()
        assert (viewer.view.state, viewer.view.text) == ("cancelled", "Hel")
        assert any(getattr(event, "cancel_requested", False) for event in viewer.events)
        (asked,) = [one for one in app.asked if one.method == "POST"]
        assert (asked.target, asked.header("authorization")) == ("/api/jobs/job-1/stop", "Bearer s3cret")
        assert asked.header("cookie") is None
        assert gateway.post("/tasks/job-1/cancel").json()["state"] == "cancelled"


def test_a_task_that_nobody_follows_can_be_stopped(app: Legacy, in_front: Behind, mapping: str) -> None:
    """The log doesn't know it, but the app does; what neither knows is 404."""
    app.tasks["job-1"] = {"status": "running"}
    stoppable(app)
    with in_front(upstream_mapping=mapping) as gateway:
        assert gateway.post("/tasks/job-1/cancel").status_code == 202
        assert app.tasks["job-1"]["status"] == "cancelled"
        assert gateway.post("/tasks/job-2/cancel").status_code == 404


@pytest.mark.parametrize(("status", "code"), [(409, "cannot_cancel"), (500, "upstream_unreachable")])
def test_an_app_that_does_not_stop(
    app: Legacy, in_front: Behind, mapping: str, status: int, code: str
) -> None:
    """Its no is a 409, and its failure a 502; the task goes on without a flag."""
    app.tasks["job-1"] = {"status": "running", "text": "Hel"}
    stoppable(app, status)
    with in_front(upstream_mapping=mapping) as gateway, watch(gateway) as viewer:
        viewer.text_is("Hel")
        answer = gateway.post("/tasks/job-1/cancel")
        assert (answer.status_code, answer.json()["error"]["code"]) == ({409: 409, 500: 502}[status], code)
        assert gateway.get("/tasks/job-1/status").json()["cancel_requested"] is False


def test_a_mapping_that_names_no_way(app: Legacy, in_front: Behind) -> None:
    """Says so; a task that isn't in the log is 404 as ever."""
    app.tasks["job-1"] = {"status": "running", "text": "Hel"}
    with in_front() as gateway, watch(gateway) as viewer:
        viewer.text_is("Hel")
        answer = gateway.post("/tasks/job-1/cancel")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cannot_cancel")
        assert gateway.post("/tasks/job-2/cancel").status_code == 404
        assert {one.method for one in app.asked} == {"GET"}


def test_a_worker_s_task_is_cancelled_as_ever(
    app: Legacy, in_front: Behind, mapping: str, writer: Writer
) -> None:
    """The app isn't asked."""
    writer.open()
    with in_front(upstream_mapping=mapping) as gateway:
        assert gateway.post("/tasks/job-1/cancel").json()["cancel_requested"] is True
        assert writer.renew().cancel_requested
        assert app.asked == []


def test_a_page_of_another_site_stops_nothing(app: Legacy, in_front: Behind, mapping: str) -> None:
    """Not even what the app would stop."""
    app.tasks["job-1"] = {"status": "running"}
    stoppable(app)
    with in_front(upstream_mapping=mapping) as gateway:
        answer = gateway.post("/tasks/job-1/cancel", headers={"origin": "https://evil.example"})
        assert answer.json()["error"]["code"] == "cross_site"
        assert app.asked == []
