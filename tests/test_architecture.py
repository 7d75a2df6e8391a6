"""Who may import whom. The layers are those of docs/architecture.md; `imports.py` reads the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import bridge
from tests.imports import Rules, circles, read_imports, violations

PACKAGE = Path(bridge.__file__).parent

PURE = frozenset({"checks", "codec", "entries", "errors", "events", "merge", "sse", "urls", "view"})
RULES = Rules(
    layers=[
        PURE,
        frozenset({"settings"}),
        frozenset({"store"}),
        frozenset({"worker", "sources", "sinks", "client"}),
        frozenset({"tickets"}),
        # What `import bridge` gives to an app: a worker's few names.
        frozenset({"__init__"}),
        frozenset({"gateway"}),
        frozenset({"cli"}),
        frozenset({"__main__"}),
    ],
    mixed=PURE,
    forbidden={
        ("sources", "store"): "sources yield events and know no Redis",
        ("client", "store"): "the client speaks HTTP to a gateway and knows no Redis",
        ("__init__", "client"): "`import bridge` must not load httpx",
        ("__init__", "sources"): "`import bridge` must not load httpx",
        ("__init__", "sinks"): "`import bridge` must not load httpx",
    },
    external={
        "redis": ["bridge.store"],
        "hiredis": ["bridge.store"],
        "httpx": [
            "bridge.client",
            "bridge.sources",
            "bridge.sinks",
            "bridge.gateway.auth",
            "bridge.gateway.upstream",
        ],
        "starlette": ["bridge.gateway", "bridge.cli"],
        "uvicorn": ["bridge.gateway.server"],
        "httptools": ["bridge.gateway.server"],
        "limits": ["bridge.gateway"],
        "prometheus_client": ["bridge.gateway"],
        "click": ["bridge.cli"],
        "jwt": ["bridge.tickets", "bridge.gateway.auth"],
        "celery": ["bridge.worker.adapters.celery"],
        "rq": ["bridge.worker.adapters.rq"],
    },
    # One file per task queue, per provider, per target: each may import the library it is for.
    integrations=["bridge.worker.adapters", "bridge.sources", "bridge.sinks"],
)
# Wire formats and folds take values and return values; they neither wait nor look at a clock.
IMPURE = {"asyncio", "http", "logging", "os", "random", "socket", "ssl", "subprocess", "threading", "time"}
SHELLS = {"bridge.sources.llm", *(f"bridge.sources.llm.{name}" for name in ("chain", "http", "providers"))}
"""What of the language models does I/O: the formats of the providers don't."""


def is_pure(module: str) -> bool:
    """Whether it does no I/O."""
    return module.removeprefix("bridge.") in PURE or (
        module.startswith("bridge.sources.llm") and module not in SHELLS
    )


def write_package(folder: Path, **sources: str) -> Path:
    """A package named bridge with these modules; a dot in a module's name is written `__`."""
    root = folder / "bridge"
    for name, source in {"__init__": "", **sources}.items():
        path = root / (name if name == "__init__" else name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(source)
    return root


def test_imports_point_down_only() -> None:
    """No module imports from a layer above, from a sibling, in a circle, or a library it may not have."""
    wrong = violations(read_imports(PACKAGE), RULES)
    assert not wrong, "\n" + "\n".join(wrong)


def test_pure_modules_do_no_io() -> None:
    """Events, view, frames and providers' formats import nothing that waits, sends or looks at a clock."""
    wrong = [
        str(each)
        for each in read_imports(PACKAGE)
        if is_pure(each.importer) and each.imported.partition(".")[0] in IMPURE | {"httpx"}
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("events", "from bridge.store import keys", "store stands above events"),
        ("events", "def f():\n    import bridge.store.keys", "store stands above events"),
        ("store__log", "if TYPE_CHECKING:\n    from ..worker import hook", "worker stands above store"),
        ("worker__task", "from bridge.client import Client", "stand beside each other"),
        ("worker__task", "from bridge import task", "__init__ stands above worker"),
        ("__init__", "from .gateway import app", "gateway stands above __init__"),
        ("sources__llm", "from bridge.store import keys", "know no Redis"),
        ("worker__pump", "import redis.exceptions", "redis is for bridge.store only"),
        ("client", "try:\n    import starlette\nexcept ImportError: pass", "starlette is for"),
        ("gateway__app", "import httpx", "httpx is for"),
        ("gateway__app", "import uvicorn", "uvicorn is for bridge.gateway.server only"),
        ("gateway__app", "import requests", "requests is no dependency"),
        ("worker__adapters__rq", "import celery", "celery is for bridge.worker.adapters.celery only"),
        ("worker__task", "import rq.job", "rq is for bridge.worker.adapters.rq only"),
        ("extra", "from bridge import events", "extra stands in no layer"),
    ],
)
def test_the_checker_catches(tmp_path: Path, module: str, source: str, complaint: str) -> None:
    """Each kind of wrong import is named with its file and line."""
    known = {"events": "", "store__keys": "", "worker__hook": "", "client": "", "gateway__app": ""}
    root = write_package(tmp_path, **{**known, module: source})
    line = len(source.split("import")[0].splitlines()) or 1
    (wrong,) = violations(read_imports(root), RULES)
    assert complaint in wrong
    file = root / module.replace("__init__", "INIT").replace("__", "/").replace("INIT", "__init__")
    assert wrong.startswith(f"{file}.py:{line}: ")


def test_the_checker_lets_good_imports_pass(tmp_path: Path) -> None:
    """Downwards, within a part, the standard library and the libraries of the module's own."""
    root = write_package(
        tmp_path,
        __init__="from bridge.worker.hook import report_progress",
        events="import json\nfrom .errors import BridgeError",
        errors="",
        store__keys="import redis.asyncio\nfrom bridge import events",
        worker__hook="from bridge.store.keys import Keys\nfrom . import pump",
        worker__pump="",
        worker__adapters__celery="import celery\nfrom bridge.worker.hook import report_progress",
        gateway__app="import bridge\nfrom starlette.applications import Starlette",
        cli__main="import click\nfrom bridge.gateway import app",
    )
    assert violations(read_imports(root), RULES) == []


def test_the_checker_finds_circles(tmp_path: Path) -> None:
    """Two modules of one package that import each other are a circle, even for types only."""
    root = write_package(
        tmp_path,
        store__log="from bridge.store.link import Link",
        store__link="if TYPE_CHECKING:\n    from .keys import Keys",
        store__keys="def f():\n    from bridge.store import log",
    )
    (circle,) = circles(read_imports(root))
    assert [each.line for each in circle] == [2, 1, 2]
    assert {each.importer for each in circle} == {
        "bridge.store.log",
        "bridge.store.link",
        "bridge.store.keys",
    }


def test_importing_the_package_loads_no_extra() -> None:
    """A worker that installed only the core can `import bridge`, and pays for nothing else."""
    heavy = [
        "starlette",
        "uvicorn",
        "httpx",
        "click",
        "fakeredis",
        "jwt",
        "cryptography",
        "limits",
        "celery",
        "rq",
    ]
    code = f"import sys, bridge; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_all_is_what_the_package_exports() -> None:
    """Every name of `bridge.__all__` exists, and no other public name is there by accident."""
    exported = set(getattr(bridge, "__all__", []))
    assert [name for name in sorted(exported) if not hasattr(bridge, name)] == []
    public = {
        name
        for name, value in vars(bridge).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert public <= exported
