"""The API attacked by its own description: requests that fit it, and requests that just don't.

schemathesis reads the document that the gateway serves, makes requests of it, and holds every answer to it:
nothing undocumented (status, type, headers, shape), and no error of ours. But for the tasks' positions they
are the same requests in each run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.codec import dumps
from bridge.events import Chunk, Data, Progress
from tests.credentials import SECRET, bearer, token
from tests.gateway.reports.reporter import ALLOWED, KEY
from tests.gateway.running import Running, running
from tests.gateway.writer import Writer
from tests.waiting import DEADLINE_SECONDS

ENDED = ("succeeded", "failed", "cancelled")
EXAMPLES = 15
"""Requests that are made up for each operation, besides those that the limits of its parameters suggest."""


@pytest.fixture(autouse=True)
def positions(redis_url: str) -> list[str]:
    """A task of ann's in each state, with all that a view can show; they go by their state's name. The
    positions that they have come to.
    """
    found = []
    for state in ("queued", "running", *ENDED):
        with Writer(redis_url, state, lease_ms=0) as writer:
            writer.create("ann")
            if state != "queued":
                texts = Chunk("text"), Chunk("hm", "reasoning")
                writer.open().append(*texts, Progress(0.5, "half"), Data("n", [{"a": None}]))
            if state == "failed":
                writer.end(state, error={"code": "broken", "message": "It broke."}, usage={"tokens": 1})
            elif state in ENDED:
                writer.end(state, result={"pages": [1, 2.5]})
            found.append(str(writer.view().position))
    return found


@dataclass
class Findings:
    """What was attacked, what came back, and what was wrong."""

    operations: set[str] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def attack(gateway: Running, headers: dict[str, str], positions: list[str]) -> Findings:
    """Let it loose."""
    # To import it takes a while, so who runs no such test doesn't.
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import Status, events, from_schema

    schemathesis.serializer("application/x-ndjson")(as_it_is)
    document = with_events(gateway.get("/openapi.json").json())
    config = SchemathesisConfig.from_dict({"base-url": gateway.url, **settings(headers, positions)})
    schema = schemathesis.openapi.from_dict(document, config=config)
    found = Findings()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.wrong.append(repr(event))
        if not isinstance(event, events.ScenarioFinished):
            continue
        recorder = event.recorder
        found.operations.add(recorder.label)
        answers = [one.response for one in recorder.interactions.values()]
        found.statuses |= {answer.status_code for answer in answers if answer is not None}
        for case, checks in recorder.checks.items():
            for check in checks:
                if check.status is not Status.SUCCESS:
                    info = check.failure_info
                    said = f"{info.failure}: {info.code_sample}" if info else case
                    found.wrong.append(f"{recorder.label}: {check.name}: {said}")
    return found


def as_it_is(_: Any, value: Any) -> bytes:
    """The body that schemathesis sends of a type it doesn't know: text, where it is some."""
    return value.encode(errors="replace") if isinstance(value, str) else dumps(value)


def with_events(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what OpenAPI 3.1 has no word for: what each event of a stream is. To schemathesis the
    schema of a stream is that of its events.
    """
    content = document["paths"]["/tasks/{task_id}/events"]["get"]["responses"]["200"]["content"]
    content["text/event-stream"]["schema"] = {
        "type": "object",
        "required": ["data", "event", "id"],
        "properties": {
            "event": {"enum": ["state", "chunk", "progress", "data", "reset", "end"]},
            "id": {"$ref": "#/components/schemas/Position"},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/components/schemas/Event"},
            },
        },
    }
    return document


def settings(headers: dict[str, str], positions: list[str]) -> dict[str, Any]:
    """Of schemathesis, as they would stand in its file."""

    def known(dictionary: str) -> dict[str, Any]:
        return {"dictionary": dictionary, "probability": 0.7}

    # What it would learn from one answer for the next request is a running task: its stream has no end.
    learn_nothing = {"extra-data-sources": {"responses": False}}
    return {
        "seed": 1,
        "cache": {"enabled": False},
        "dictionaries": {
            "all": {"values": ["queued", "running", *ENDED]},
            "ended": {"values": list(ENDED)},
            "positions": {"values": positions},
            "ends": {"values": positions[-len(ENDED) :][:1]},
            "tags": {"values": [f'"{position}"' for position in positions]},
        },
        "parameters": {
            "path.task_id": known("all"),
            "query.task_id": known("all"),
            "query.after": known("positions"),
            "header.If-None-Match": known("tags"),
        },
        "operations": [
            {
                # What goes with what, and what stands in a text, has no word in the description.
                "include-operation-id": ["reportEvents", "reportEnd", "announceTask"],
                "checks": {"positive_data_acceptance": {"enabled": False}},
            },
            {
                "include-operation-id": "streamTask",
                "parameters": {
                    "path.task_id": known("ended"),
                    "query.after": known("ends"),
                    "header.Last-Event-ID": known("ends"),
                },
            },
        ],
        "headers": headers,
        "request-timeout": DEADLINE_SECONDS,
        "workers": 1,
        "generation": {
            "deterministic": True,
            "max-examples": EXAMPLES,
            "no-shrink": True,
            "database": "none",
        },
        "phases": {
            "examples": learn_nothing,
            "coverage": learn_nothing,
            "fuzzing": learn_nothing,
            "stateful": {"enabled": False},
        },
    }


@pytest.mark.parametrize(
    ("auth", "user", "answers"),
    [
        ("none", "", {200, 204, 304, 400, 404, 405}),
        ("jwt", "ann", {200, 204, 304, 400, 404, 405}),
        ("jwt", "bob", {200, 400, 404, 405}),
        ("jwt", "", {200, 400, 401, 405}),
        ("none", "worker", {200, 400, 405, 409, 415}),
    ],
    ids=["by anybody", "by the owner", "by another user", "without credentials", "by a worker"],
)
def test_the_api_is_what_it_says(
    redis_url: str, positions: list[str], auth: str, user: str, answers: set[int]
) -> None:
    """Every operation that the document has, in every task's state; all kinds of answers come."""
    headers = ALLOWED if user == "worker" else bearer(token(sub=user)) if user else {}
    soon: dict[str, Any] = {"unknown_task_wait_seconds": 0.01, "longest_wait_seconds": 0.01}
    with running(redis_url, auth=auth, jwt_keys=SECRET, report_keys=KEY, **soon) as gateway:
        found = attack(gateway, headers, positions)
        document = gateway.get("/openapi.json").json()
    assert found.wrong == []
    assert answers <= found.statuses
    described = {f"{method.upper()} {path}" for path, one in document["paths"].items() for method in one}
    assert found.operations == described
