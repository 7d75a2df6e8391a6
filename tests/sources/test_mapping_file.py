"""Mapping files: what they say, and what is refused with the place of the mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.sources.mapping import Request
from bridge.sources.mapping_file import load_mapping, presets

WHOLE = """
status = "/api/jobs/{task_id}"
cancel = "DELETE /api/jobs/{task_id}"
pass = ["/api/jobs", "/api/**"]
[headers]
X-Kind = "poller"
[codes]
417 = "running"
404 = "failed"
5xx = "queued"
[state]
place = ["a.state", "/b/state"]
words = { BUSY = "running", "*" = "queued" }
[places]
text = "a.text"
progress = { part = "done", of = "all" }
fields = { reasoning = "why" }
data = { sources = "src" }
[places.failed]
error = "oops"
"""


def write(folder: Path, text: str, name: str = "map.toml") -> str:
    """A file with that text; its path."""
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_file_says_everything(tmp_path: Path) -> None:
    """Each part of it is found again in the mapping."""
    read = load_mapping(write(tmp_path, WHOLE))
    assert (read.status, read.cancel) == ("/api/jobs/{task_id}", Request("DELETE", "/api/jobs/{task_id}"))
    assert read.passed == ("/api/jobs", "/api/**")
    assert read.headers == (("X-Kind", "poller"),)
    assert [read.meaning(code) for code in (200, 204, 404, 410, 417, 503, 302)] == [
        "body", "body", "failed", "unknown", "running", "queued", None,
    ]  # fmt: skip
    assert [read.state_of(word) for word in ("busy", "done", "whatever")] == [
        "running",
        "succeeded",
        "queued",
    ]
    assert set(read.where["running"].texts) == {"text", "reasoning"}
    assert not read.where["running"].error
    assert read.where["failed"].error[0].spelling == "oops"


def test_json_says_the_same(tmp_path: Path) -> None:
    """For those who would rather write that."""
    table = {"state": {"place": "s"}, "codes": {"417": "running"}, "places": {"text": ["t"]}}
    read = load_mapping(write(tmp_path, json.dumps(table), "map.json"))
    assert read.meaning(417) == "running"
    assert read.where["running"].texts["text"][0].spelling == "t"


def test_a_preset_can_be_changed(tmp_path: Path) -> None:
    """What the file says goes before what the preset says; the rest stays."""
    read = load_mapping(
        write(tmp_path, 'preset = "celery"\n[places]\ntext = "mine"\n[codes]\n418 = "running"')
    )
    assert [place.spelling for place in read.where["running"].texts["text"]] == ["mine"]
    assert read.state_of("REVOKED") == "cancelled"
    assert read.meaning(418) == "running"


@pytest.mark.parametrize("name", presets())
def test_presets_are_sound(name: str) -> None:
    """Each can be loaded, and knows all states."""
    read = load_mapping(name)
    assert read.state
    assert set(read.where) == {"queued", "running", "succeeded", "failed", "cancelled"}


def test_which_presets_there_are() -> None:
    """Those that the documentation names."""
    assert presets() == ("celery", "nextcloud", "plain", "replicate")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("txet = 1", "txet is not known here"),
        ("[places]\ntxet = 'a'", "places.txet is not known here"),
        ("[places.failed]\nerorr = 'a'", "places.failed.erorr is not known here"),
        ("[state]\nplace = 's'\nword = 1", "state.word is not known here"),
        ("status = 'api'", "status must be a path"),
        ("status = '/api'", "status must hold {task_id}"),
        ("status = 1", "status must be a path"),
        ("cancel = '/api/{task_id}'", "cancel must be a method and a path"),
        ("cancel = 'GET /api/{task_id}'", "cancel must be a method and a path"),
        ("cancel = 'POST /api'", "cancel must hold {task_id}"),
        ("pass = '/api'", "pass must be a list"),
        ("pass = ['api']", "pass: a path pattern looks like"),
        ("[headers]\nX = 1", "headers.X must be a text"),
        ("[codes]\n99 = 'running'", "codes.99 must be a status"),
        ("[codes]\n4x = 'running'", "codes.4x must be a status"),
        ("[codes]\n304 = 'running'", "codes.304 must not be"),
        ("[codes]\n417 = 'busy'", "codes.417 must be one of"),
        ("[state]\nplace = 's'\nwords = { A = 'busy' }", "state.words.A must be one of"),
        ("[state]\nplace = 's'\nwords = { '*' = 'succeeded' }", "must be queued or running"),
        ("[state]\nplace = 'a..b'", "state.place: a path looks like"),
        ("[state]\nplace = [1]", "state.place must be a path"),
        ("[places]\ntext = 'a'", "state.place must say where"),
        ("[places]\nprogress = { part = 'a', of = 0 }", "progress.of must be greater than 0"),
        ("[places]\nprogress = { of = 'a' }", "progress.part must be a path"),
        ("[places]\nprogress = 1", "places.progress must be a table"),
        ("[places.fields]\ntext = 'a'", "places.fields.text must be places.text"),
        ("[places.data]\nupstream = 'a'", "places.data.upstream must have another name"),
        ("places = 1", "places must be a table"),
        ("preset = 'mine'", "preset must be one of"),
        ("a = ", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    """Also a misspelt name, which would silently say nothing."""
    with pytest.raises(SettingsError, match=r"map\.toml") as caught:
        load_mapping(write(tmp_path, text))
    assert complaint in str(caught.value)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    """The presets are named, because that may have been meant."""
    with pytest.raises(SettingsError, match="celery, nextcloud"):
        load_mapping(str(tmp_path / "nothing.toml"))
    with pytest.raises(SettingsError, match="is not JSON"):
        load_mapping(write(tmp_path, "{", "map.json"))
    with pytest.raises(SettingsError, match="not a table"):
        load_mapping(write(tmp_path, "[]", "map.json"))
    with pytest.raises(SettingsError, match="larger than"):
        load_mapping(write(tmp_path, "#" * 300_000))


def test_the_mapping_in_the_documentation_is_one(tmp_path: Path) -> None:
    """It can be copied."""
    page = (Path(__file__).parents[2] / "docs" / "legacy.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    read = load_mapping(write(tmp_path, text))
    assert read.cancel == Request("POST", "/api/jobs/{task_id}/stop")
    assert read.where["failed"].error[0].spelling == "job.error"
    for name in presets():
        assert f"| `{name}`" in page
