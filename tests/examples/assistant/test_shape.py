"""The assistant is a template: it uses what everybody may use, and is read in one go."""

from __future__ import annotations

from tests.examples.assistant.stage import EXAMPLE
from tests.imports import Rules, read_imports, violations

PACKAGE = EXAMPLE / "assistant"
IMPORTS = read_imports(PACKAGE)

PUBLIC = {
    "bridge",
    "bridge.client",
    "bridge.errors",
    "bridge.events",
    "bridge.sources.llm",
    "bridge.sources.relay",
    "bridge.worker.adapters.celery",
}
"""What the documentation names."""

RULES = Rules(
    layers=[
        frozenset({"config", "database", "errors", "page", "sse"}),
        frozenset({"accounts", "conversations", "providers"}),
        frozenset({"gateway"}),
        frozenset({"keeping"}),
        frozenset({"answers", "asking"}),
        frozenset({"generation"}),
        frozenset({"services"}),
        frozenset({"routes"}),
        frozenset({"app"}),
        frozenset({"__main__"}),
    ],
    mixed=frozenset(),
    forbidden={
        ("app", "accounts"): "who comes in is the routes' business",
        ("services", "generation"): "routes put questions to the desk, which knows no queue",
        ("routes", "generation"): "routes put questions to the desk, which knows no queue",
    },
    external={
        "anyio": ["assistant.routes", "assistant.sse"],
        "bridge": ["assistant"],
        "celery": ["assistant.generation"],
        "fastapi": [
            *("assistant.app", "assistant.errors", "assistant.page"),
            *("assistant.routes", "assistant.services", "assistant.sse"),
        ],
        "httpx": ["assistant.app", "assistant.gateway"],
        "kombu": ["assistant.generation"],
        "pydantic": ["assistant.services", "assistant.routes"],
        "starlette": ["assistant"],
    },
    integrations=[],
)


def test_nothing_but_the_public_interface() -> None:
    """Who copies it needs nothing of the bridge that may change without notice."""
    used = {each.imported for each in IMPORTS if each.imported.partition(".")[0] == "bridge"}
    assert used == PUBLIC


def test_imports_point_down() -> None:
    """A part knows those below it, and no other."""
    assert violations(IMPORTS, RULES) == []


def test_every_module_is_short() -> None:
    """Two hundred lines are enough for an idea."""
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        assert len(file.read_text().splitlines()) <= 200, file
