"""Health, readiness, and the OpenAPI document, which must be true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from starlette.routing import Route

import bridge
from bridge.codec import encode
from bridge.events import RESET_REASONS, STATES, TASK_ID, Chunk, Data, End, Event, Progress, Reset, State
from bridge.gateway.app import Gateway
from bridge.gateway.web import PAGE
from bridge.settings import Settings
from bridge.view import View
from tests.gateway.running import Running
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture
def document() -> dict[str, Any]:
    """The document as it is packaged."""
    loaded: dict[str, Any] = json.loads((files("bridge.gateway") / "openapi.json").read_text())
    return loaded


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation, with its path and method."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def resolve(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """What a reference points to; anything else as it is."""
    while "$ref" in value:
        assert list(value) == ["$ref"]
        target: Any = document
        first, *names = value["$ref"].split("/")
        assert first == "#"
        for name in names:
            target = target[name]
        value = target
    return value


def references(value: Any) -> Iterator[dict[str, Any]]:
    """All references, wherever they stand."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    """One of its schemas."""
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def test_healthz_and_readyz(gateway: Running) -> None:
    """Both are JSON that nobody caches; health carries the version."""
    for path, body in (
        ("/healthz", {"status": "ok", "version": bridge.__version__}),
        ("/readyz", {"status": "ready"}),
    ):
        answer = gateway.get(path)
        assert (answer.status_code, answer.json()) == (200, body)
        assert answer.headers["cache-control"] == "no-store"


def test_the_document_is_served(gateway: Running, document: dict[str, Any]) -> None:
    """With the version that runs and the path below which it is served."""
    served = gateway.get("/openapi.json").json()
    assert served["openapi"] == "3.1.0"
    assert served["info"]["version"] == bridge.__version__
    assert served["servers"] == [{"url": "/"}]
    assert served["paths"] == document["paths"]


def test_every_route_is_in_the_document_and_the_reverse(document: dict[str, Any]) -> None:
    """No path or method is missing from it, and none is made up. HEAD goes with GET."""
    routes = {
        (route.path, method.lower())
        for route in Gateway(Settings()).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(path, method) for path, method, _ in operations(document)}


def test_the_page_is_no_part_of_the_api(document: dict[str, Any]) -> None:
    """What people look at is served beside what the document describes, and under no path of it."""
    routes = {route.path for route in Gateway(Settings(page=True)).routes if isinstance(route, Route)}
    assert routes - set(document["paths"]) == set(PAGE)


def test_the_document_is_well_formed(document: dict[str, Any]) -> None:
    """What the specification demands of each part, as far as our document uses it."""
    assert {"openapi", "info", "paths"} <= set(document)
    assert {"title", "version"} <= set(document["info"])
    for reference in references(document):
        assert resolve(document, reference)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in operations(document):
        assert method in METHODS
        assert path.startswith("/")
        parameters = [resolve(document, parameter) for parameter in operation.get("parameters", [])]
        for parameter in parameters:
            assert parameter["in"] in {"path", "query", "header"}
            assert "schema" in parameter
        in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert status.isdigit()
            assert resolve(document, response)["description"]


def test_all_components_are_used(document: dict[str, Any]) -> None:
    """Nothing is described that nobody refers to, but `Event`, which the stream's text names. Ways to send
    credentials are referred to by their names alone.
    """
    used = {reference["$ref"] for reference in references(document)}
    for _, _, operation in operations(document):
        used |= {
            f"#/components/securitySchemes/{name}" for one in operation.get("security", []) for name in one
        }
    defined = {
        f"#/components/{kind}/{name}" for kind, items in document["components"].items() for name in items
    }
    assert defined - used == {"#/components/schemas/Event"}


def test_the_schemas_are_those_of_the_vocabulary(document: dict[str, Any]) -> None:
    """The view, every event and every list of values say what the code says."""
    view = schema(document, "View")
    assert list(view["properties"]) == view["required"] == list(View("x").as_dict())
    assert set(view["properties"]["state"]["enum"]) == STATES
    assert schema(document, "TaskId")["pattern"] == rf"^(?!\.{{1,2}}$){TASK_ID.pattern}$"
    assert set(schema(document, "Reset")["properties"]["reason"]["enum"]) == RESET_REASONS
    events: list[Event] = [
        State("queued"),
        Chunk("x"),
        Progress(),
        Data("n", 1),
        Reset("retry"),
        End("failed"),
    ]
    for event in events:
        described = schema(document, type(event).__name__)
        assert set(json.loads(encode(event))) == set(described["required"])
        assert set(described["required"]) <= set(described["properties"])
        assert "at" in described["properties"]
    named = [one["$ref"].rpartition("/")[2] for one in schema(document, "Event")["oneOf"]]
    assert named == [type(event).__name__ for event in events]


def test_answers_are_described(gateway: Running, writer: Writer, document: dict[str, Any]) -> None:
    """The status, type and named headers of real answers stand in the document."""
    position = writer.open().text("a").position
    for path, query, headers in (
        ("/tasks/{task_id}/status", "", {}),
        ("/tasks/{task_id}/status", f"?after={position}", {}),
        ("/tasks/{task_id}/status", "", {"If-None-Match": f'"{position}"'}),
        ("/tasks/{task_id}/status", "?after=x", {}),
        ("/status/{task_id}", "", {}),
        ("/status", "?task_id=job-1", {}),
        ("/status", "?task_id=nobody", {}),
        ("/status", "", {}),
        ("/bridge.js", "", {}),
        ("/bridge.js", "", {"If-None-Match": "*"}),
        ("/bridge.d.ts", "", {}),
        ("/healthz", "", {}),
        ("/readyz", "", {}),
        ("/metrics", "", {}),
        ("/openapi.json", "", {}),
    ):
        answer = gateway.get(path.format(task_id="job-1") + query, headers=headers)
        described = resolve(document, document["paths"][path]["get"]["responses"][str(answer.status_code)])
        if answer.status_code != 304:
            assert answer.headers["content-type"] in described["content"]
        assert {name.lower() for name in described.get("headers", {})} <= set(answer.headers)
    end = writer.end().position
    responses = document["paths"]["/tasks/{task_id}/events"]["get"]["responses"]
    for after, status in ((None, "200"), (str(end), "204"), ("x", "400")):
        with watch(gateway, after=after) as viewer:
            viewer.to_end()
        described = resolve(document, responses[status])
        assert viewer.status == int(status)
        assert viewer.headers.get("content-type") in described.get("content", {None: None})
        assert {name.lower() for name in described.get("headers", {})} <= set(viewer.headers)
