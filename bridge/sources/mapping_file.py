"""Mapping files: TOML, or JSON of the same shape. `docs/legacy.md` explains them; here is what may stand in
one.

    preset = "celery"                        another mapping, which this one changes
    status = "/api/jobs/{task_id}"           the app's status endpoint
    cancel = "POST /api/jobs/{task_id}/stop" what asks it to stop a task
    pass = ["/api/**"]                       further paths that are passed through
    [headers]                                what every question needs, such as OCS-APIRequest = "true"
    [codes]                                  417 = "running": what an HTTP status means
    [state]                                  place = "status", words = { BUSY = "running" }
    [places]                                 text, progress, message, result, error, error_code, usage
    [places.fields], [places.data]           further texts, and JSON values, by name
    [places.failed], …                       the same for one state; these are looked at first

A place is a path (`places.py`), or a list of them. A progress may also be `{ part = …, of = … }`. What isn't
known here is refused: a misspelt name would be a mapping that silently says nothing.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, cast

from bridge.errors import SettingsError
from bridge.events import MAIN_FIELD, STATES
from bridge.sources.mapping import MEANINGS, OTHERS, Fraction, Meaning, Places, Request, StatusMapping, Where
from bridge.sources.paths import Pattern, wrong_path
from bridge.sources.places import Place

T = TypeVar("T")

UPSTREAM: Final = "upstream"
"""The name of the data by which followers are told that the app doesn't answer; no mapping may use it."""

_MAX_BYTES: Final = 256 * 1024
_TOP: Final = {"preset", "status", "cancel", "pass", "headers", "codes", "state", "places"}
_PLACES: Final = {"text", "progress", "message", "result", "error", "error_code", "usage", "fields", "data"}


def presets() -> tuple[str, ...]:
    """The names of the mappings that come with the bridge."""
    return tuple(sorted(Path(one.name).stem for one in (files("bridge.sources") / "presets").iterdir()))


def load_mapping(source: str) -> StatusMapping:
    """The preset of that name, or what is in that file. Raises `SettingsError` that names the mistake."""
    table = _preset(source) if source in presets() else _with_preset(source, _read(Path(source)))
    return _Reader(source).mapping(table)


@cache
def _preset(name: str) -> Mapping[str, Any]:
    return tomllib.loads((files("bridge.sources") / "presets" / f"{name}.toml").read_text())


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        known = ", ".join(presets())
        raise SettingsError(
            f"the mapping {str(path)[:200]!r} can't be read ({error.strerror});"
            f" it is a file, or one of {known}"
        ) from None
    if len(data) > _MAX_BYTES:
        raise SettingsError(f"the mapping {path} is larger than {_MAX_BYTES} bytes")
    try:
        text = data.decode()
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise SettingsError(f"the mapping {path} is not {kind}: {str(error)[:200]}") from None
    if not isinstance(table, dict):
        raise SettingsError(f"the mapping {path} is not a table")
    return table


def _with_preset(source: str, table: dict[str, Any]) -> dict[str, Any]:
    """The file's table over that of the preset it names. A list or a text replaces the preset's."""
    name = table.get("preset")
    if name is None:
        return table
    if name not in presets():
        raise SettingsError(
            f"{source}: preset must be one of {', '.join(presets())} (got {str(name)[:60]!r})"
        )
    return _merged(_preset(name), table)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            merged[name] = _merged(below[name], value)
    return merged


class _Reader:
    """Checks a table on the way to a `StatusMapping`; its errors name the file and the place in it."""

    def __init__(self, source: str) -> None:
        self._source = source

    def mapping(self, table: Mapping[str, Any]) -> StatusMapping:
        self._known(table, _TOP, "")
        state = self._table(table.get("state", {}), "state")
        self._known(state, {"place", "words"}, "state.")
        places = self._table(table.get("places", {}), "places")
        codes = self._codes(self._table(table.get("codes", {}), "codes"))
        read = StatusMapping(
            name=self._source,
            status=self._path(table.get("status", ""), "status"),
            cancel=self._cancel(table["cancel"]) if "cancel" in table else None,
            passed=self._passed(table.get("pass", [])),
            headers=tuple(self._texts(table.get("headers", {}), "headers").items()),
            codes=codes,
            state=self._places(state.get("place", []), "state.place"),
            words=self._words(self._texts(state.get("words", {}), "state.words")),
            where=self._by_state(places),
        )
        if not read.state and "body" in codes.values():
            self._wrong(
                "state.place", "say where the body tells the state, because [codes] leave it to the body"
            )
        return read

    # --- parts ----------------------------------------------------------------------------------------

    def _codes(self, table: Mapping[str, Any]) -> dict[str, Meaning]:
        given = {"2xx": "body", "404": "unknown", "410": "unknown", **table}
        for code, meaning in given.items():
            if not (len(code) == 3 and code[0] in "2345" and (code[1:].isdigit() or code[1:] == "xx")):
                self._wrong(f"codes.{code[:20]}", "be a status such as 417, or a class such as 2xx")
            if code in ("304", "3xx"):
                self._wrong(f"codes.{code}", "not be a redirect or 304, which the poller reads itself")
            self._one_of(meaning, MEANINGS, f"codes.{code}")
        return cast("dict[str, Meaning]", given)

    def _words(self, words: Mapping[str, str]) -> dict[str, str]:
        for word, state in words.items():
            self._one_of(state, STATES, f"state.words.{word[:20]}")
        if words.get(OTHERS, "running") not in ("queued", "running"):
            self._wrong(
                f'state.words."{OTHERS}"', "be queued or running: a word that nobody knows ends no task"
            )
        return {word.casefold(): state for word, state in words.items()}

    def _by_state(self, places: Mapping[str, Any]) -> dict[str, Where]:
        self._known(places, _PLACES | STATES, "places.")
        always = self._where({name: places[name] for name in places if name not in STATES}, "places.")
        return {
            state: self._where(
                self._table(places.get(state, {}), f"places.{state}"), f"places.{state}."
            ).before(always)
            for state in STATES
        }

    def _where(self, table: Mapping[str, Any], inside: str) -> Where:
        self._known(table, _PLACES, inside)
        fields = self._named_places(table.get("fields", {}), f"{inside}fields")
        data = self._named_places(table.get("data", {}), f"{inside}data")
        if MAIN_FIELD in fields:
            self._wrong(f"{inside}fields.{MAIN_FIELD}", f"be {inside}{MAIN_FIELD}")
        if UPSTREAM in data:
            self._wrong(f"{inside}data.{UPSTREAM}", "have another name: the bridge itself uses this one")
        if "text" in table:
            fields = {MAIN_FIELD: self._places(table["text"], f"{inside}text"), **fields}
        singles = {
            name: self._places(table.get(name, []), inside + name)
            for name in ("message", "result", "error", "error_code", "usage")
        }
        return Where(
            texts=fields, progress=self._progress(table.get("progress", []), inside), data=data, **singles
        )

    def _progress(self, value: Any, inside: str) -> tuple[Fraction, ...]:
        where = f"{inside}progress"
        return tuple(self._fraction(one, where) for one in (value if isinstance(value, list) else [value]))

    def _fraction(self, value: Any, where: str) -> Fraction:
        if isinstance(value, str):
            return Fraction(self._place(value, where))
        table = self._table(value, where)
        self._known(table, {"part", "of"}, f"{where}.")
        of = table.get("of", 1)
        if isinstance(of, int | float) and not isinstance(of, bool):
            if not 0 < of < float("inf"):
                self._wrong(f"{where}.of", "be greater than 0")
            return Fraction(self._place(table.get("part"), f"{where}.part"), float(of))
        return Fraction(self._place(table.get("part"), f"{where}.part"), self._place(of, f"{where}.of"))

    def _cancel(self, value: Any) -> Request:
        method, _, path = value.partition(" ") if isinstance(value, str) else ("", "", "")
        if method not in ("POST", "DELETE", "PUT", "PATCH"):
            self._wrong("cancel", "be a method and a path: POST /api/jobs/{task_id}/stop")
        return Request(method, self._path(path, "cancel"))

    def _passed(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self._wrong("pass", "be a list of path patterns")
        for one in value:
            self._parsed(Pattern.parse, one, "pass")
        return tuple(value)

    # --- kinds of values ------------------------------------------------------------------------------

    def _path(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            self._wrong(where, "be a path")
        if value and (wrong := wrong_path(value)):
            self._wrong(where, wrong)
        return value

    def _place(self, value: Any, where: str) -> Place:
        if not isinstance(value, str):
            self._wrong(where, "be a path such as result.text")
        return self._parsed(Place.parse, value, where)

    def _places(self, value: Any, where: str) -> Places:
        return tuple(self._place(one, where) for one in (value if isinstance(value, list) else [value]))

    def _named_places(self, value: Any, where: str) -> dict[str, Places]:
        return {name: self._places(one, f"{where}.{name}") for name, one in self._table(value, where).items()}

    def _texts(self, value: Any, where: str) -> dict[str, str]:
        table = self._table(value, where)
        for name, text in table.items():
            if not isinstance(text, str):
                self._wrong(f"{where}.{name[:20]}", "be a text")
        return cast("dict[str, str]", table)

    def _table(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._wrong(where, "be a table")
        return cast("dict[str, Any]", value)

    def _one_of(self, value: Any, allowed: frozenset[str], where: str) -> None:
        if not isinstance(value, str) or value not in allowed:
            self._wrong(where, f"be one of {', '.join(sorted(allowed))}")

    def _parsed(self, parse: Callable[[str], T], text: str, where: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{self._source}: {where}: {error}") from None

    def _known(self, table: Mapping[str, Any], names: frozenset[str] | set[str], inside: str) -> None:
        for name in table:
            if name not in names:
                known = ", ".join(sorted(names))
                raise SettingsError(
                    f"{self._source}: {inside}{name[:40]} is not known here; known are {known}"
                )

    def _wrong(self, where: str, wanted: str) -> NoReturn:
        raise SettingsError(f"{self._source}: {where} must {wanted}")
