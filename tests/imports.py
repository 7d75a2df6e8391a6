"""Reads what the modules of a package import, and says which import breaks the rules.

All imports count: also those under TYPE_CHECKING, inside functions and in `try` blocks. A module
that needs another one only for a name in an annotation depends on it all the same.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and where it stands."""

    importer: str
    imported: str
    path: Path
    line: int

    @property
    def external(self) -> bool:
        """Neither of the same package nor of the standard library."""
        top = self.imported.partition(".")[0]
        return top != self.importer.partition(".")[0] and top not in sys.stdlib_module_names

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.importer} imports {self.imported}"


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may import whom. A part is a module or package right below the root package."""

    layers: Sequence[frozenset[str]]
    """From the lowest up. A part imports from lower layers, and from itself."""
    mixed: frozenset[str]
    """Parts of one layer that may also import each other."""
    forbidden: Mapping[tuple[str, str], str]
    """(part, lower part): an import that the layers allow and the design doesn't, and why."""
    external: Mapping[str, Sequence[str]]
    """Library → the modules that may import it, each with all that is below it."""
    integrations: Sequence[str]
    """Packages whose modules may each import the one library they are written for."""


def read_imports(root: Path) -> list[Import]:
    """All imports of the package in the directory `root`, by file and line."""
    modules = dict(_modules(root))
    found: list[Import] = []
    for name, path in sorted(modules.items()):
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
            for imported in _targets(node, package, modules):
                found.append(Import(name, imported, path, node.lineno))  # type: ignore[attr-defined]  # only import statements have targets
    return sorted(found, key=lambda each: (each.importer, each.line, each.imported))


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _targets(node: ast.AST, package: str, modules: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        # One dot is the module's own package, each further one a step up.
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            # `from bridge.store import keys` is about the module, `… import Keys` about a name.
            module = f"{source}.{alias.name}"
            yield module if module in modules else source


def violations(imports: Iterable[Import], rules: Rules) -> list[str]:
    """What is wrong, one line each, with the file and line of the import."""
    imports = list(imports)
    wrong = [f"{each}: {why}" for each in imports if (why := _why_wrong(each, rules))]
    return wrong + [
        "import circle:\n" + "\n".join(f"    {each}" for each in circle) for circle in circles(imports)
    ]


def _why_wrong(each: Import, rules: Rules) -> str | None:
    if each.external:
        return _why_wrong_library(each, rules)
    if each.imported.partition(".")[0] in sys.stdlib_module_names:
        return None
    importer, imported = _part(each.importer), _part(each.imported)
    if importer == imported:
        return None
    above, below = _layer(importer, rules), _layer(imported, rules)
    if above is None or below is None:
        unknown = importer if above is None else imported
        return f"{unknown} stands in no layer; give it one in tests/test_architecture.py"
    if above < below:
        return f"imports point down only, and {imported} stands above {importer}"
    if above == below and not {importer, imported} <= rules.mixed:
        return f"{importer} and {imported} stand beside each other"
    return rules.forbidden.get((importer, imported))


def _why_wrong_library(each: Import, rules: Rules) -> str | None:
    library = each.imported.partition(".")[0]
    allowed = rules.external.get(library)
    if allowed is None:
        if any(each.importer.startswith(f"{package}.") for package in rules.integrations):
            return None
        return f"{library} is no dependency that this module may have"
    if any(each.importer == place or each.importer.startswith(f"{place}.") for place in allowed):
        return None
    return f"{library} is for {', '.join(allowed)} only"


def _part(module: str) -> str:
    """`store` for bridge.store.keys; the root package itself is the part `__init__`."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def _layer(part: str, rules: Rules) -> int | None:
    return next((index for index, layer in enumerate(rules.layers) if part in layer), None)


def circles(imports: Iterable[Import]) -> list[list[Import]]:
    """Each circle of modules once, as the imports that close it."""
    edges: dict[str, dict[str, Import]] = {}
    for each in imports:
        if not each.external and each.importer != each.imported:
            edges.setdefault(each.importer, {}).setdefault(each.imported, each)
    found: list[list[Import]] = []
    done: set[str] = set()
    for start in sorted(edges):
        _walk(start, [], [], edges, done, found)
    return found


def _walk(
    module: str,
    trail: list[str],
    steps: list[Import],
    edges: Mapping[str, Mapping[str, Import]],
    done: set[str],
    found: list[list[Import]],
) -> None:
    """Depth first; an import of a module that is on the trail closes a circle."""
    if module in trail:
        found.append(steps[trail.index(module) :])
        return
    if module in done:
        return
    for imported, each in sorted(edges.get(module, {}).items()):
        _walk(imported, [*trail, module], [*steps, each], edges, done, found)
    done.add(module)
