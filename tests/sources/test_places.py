"""Paths into a JSON document."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sources.places import Place
from tests.strategies import json_values

# RFC 6901, 5: the document and the pointers of the specification's own example.
DOCUMENT = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3),
     ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8)],
)  # fmt: skip
def test_pointers_of_the_specification(path: str, value: Any) -> None:
    """Each gives what RFC 6901 says."""
    assert Place.parse(path).find(DOCUMENT) == value


@pytest.mark.parametrize(
    ("path", "value"),
    [("foo", ["bar", "baz"]), ("foo.1", "baz"), ("foo.2", None), ("foo.01", None), ("foo.-1", None),
     ("foo.x", None), ("foo.0.0", None), ("nothing", None), ("nothing.at.all", None), (".", DOCUMENT)],
)  # fmt: skip
def test_dotted_paths(path: str, value: Any) -> None:
    """Names and numbers with dots between them; what isn't there says nothing."""
    assert Place.parse(path).find(DOCUMENT) == value


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "/a~2b", "/a~"])
def test_what_is_no_path_is_refused(path: str) -> None:
    """It would never find anything."""
    with pytest.raises(ValueError, match=r"path looks like|JSON Pointer"):
        Place.parse(path)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), json_values)
def test_every_member_can_be_named(names: list[str], value: Any) -> None:
    """Whatever its name holds, a pointer leads there."""
    document: Any = value
    for name in reversed(names):
        document = {name: document}
    pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
    assert Place.parse(pointer).find(document) == value
