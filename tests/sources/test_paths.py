"""Paths of an app: filling them, and knowing them again."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import TASK_ID
from bridge.sources.paths import Pattern, fill, wrong_path

task_ids = st.from_regex(TASK_ID, fullmatch=True).filter(lambda text: text not in (".", ".."))


@pytest.mark.parametrize(
    ("path", "task_id", "filled"),
    [
        ("/api/jobs/{task_id}", "job-1", "/api/jobs/job-1"),
        ("/jobs?id={task_id}&again={task_id}", "a:b", "/jobs?id=a%3Ab&again=a%3Ab"),
        ("/check?taskId={1}&sessionId={2}", "12~34", "/check?taskId=12&sessionId=34"),
        ("/check?taskId={1}&sessionId={2}", "12", None),
        ("/check?taskId={1}&sessionId={2}", "1~2~3", None),
        ("/x/{2}/{1}/{task_id}", "a~b", "/x/b/a/a~b"),
        ("/x/{1}/{2}/stop", "..~..", None),
        ("/x/{1}/{2}/stop", "1~.", None),
        ("/x/{1}/{2}/stop", "~1", None),
    ],
)
def test_a_path_is_filled_with_the_id(path: str, task_id: str, filled: str | None) -> None:
    """Whole, or with its parts, where the app needs several; an id without these parts has no such path."""
    assert fill(path, task_id) == filled


@given(task_ids)
def test_an_id_can_not_leave_its_place(task_id: str) -> None:
    """It stays one segment of the path, and comes back out of it."""
    path = fill("/jobs/{task_id}/status", task_id)
    assert path is not None
    _, jobs, middle, status = path.split("/")
    assert (jobs, unquote(middle), status) == ("jobs", task_id, "status")
    assert not re.search(r"[?#%]", middle) or "%" in middle


@pytest.mark.parametrize(
    "path",
    ["api/{task_id}", "//host/{task_id}", "http://host/{task_id}", "/api/{id}", "/api", "/api/{task_id",
     "/a b/{1}", "/api/{task_id}#x", "/api/{}", "/api/{0}", "/api/{task_id}}", "/ü/{task_id}",
     "/api\n/{task_id}"],
)  # fmt: skip
def test_what_can_not_be_filled_is_refused(path: str) -> None:
    """A host, other names in braces, none at all."""
    assert wrong_path(path)
    assert not wrong_path("/api/jobs/{task_id}?full=1")
    assert not wrong_path("/check?taskId={1}&sessionId={2}")


@pytest.mark.parametrize(
    ("pattern", "path", "same"),
    [
        ("/api/jobs/{task_id}", b"/api/jobs/1", True),
        ("/api/jobs/{task_id}?x=1", b"/api/jobs/1", True),
        ("/api/jobs/*", b"/api/jobs/a%2Fb", True),
        ("/api/jobs/*", b"/api/jobs/a/b", False),
        ("/api/jobs/*", b"/api/jobs", False),
        ("/api/jobs/*", b"/api/jobs/", True),
        ("/api/*/status", b"/api/1/status", True),
        ("/api/*/status", b"/%61pi/1/status", True),
        ("/api/*/status", b"/API/1/status", False),
        ("/api/**", b"/api", True),
        ("/api/**", b"/api/", True),
        ("/api/**", b"/api/a/b/c", True),
        ("/api/**", b"/apix", False),
        ("/**", b"/", True),
        ("/**", b"/anything/at/all", True),
        ("/", b"/", True),
        ("/login", b"/login/", False),
        ("/api/**", b"/api/../admin", False),
        ("/api/**", b"/api/%2e%2E/admin", False),
        ("/api/**", b"/api/..%2fadmin", False),
        ("/api/**", b"/api/..%5cadmin", False),
        ("/api/**", b"/api/..\\admin", False),
        ("/api/**", b"/api/..;/admin", False),
        ("/api/**", b"/api/./x", False),
        ("/api/**", b"/api/..x/y..", True),
        ("/**", b"*", False),
    ],
)
def test_a_pattern_knows_its_paths(pattern: str, path: bytes, same: bool) -> None:
    """Segment by segment; a path that may lead elsewhere than it says is none of them."""
    assert Pattern.parse(pattern).matches(path) is same


@pytest.mark.parametrize("pattern", ["", "api", "/api/*x", "/**/x", "/a b", "/api/#x", "/ü"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """A star stands for a whole segment."""
    with pytest.raises(ValueError, match=r"pattern|stands for"):
        Pattern.parse(pattern)


@given(task_ids)
def test_the_status_path_of_any_task_is_known_again(task_id: str) -> None:
    """What the poller asks is what legacy clients ask."""
    path = fill("/api/jobs/{task_id}", task_id)
    assert path is not None
    assert Pattern.parse("/api/jobs/{task_id}").matches(path.encode())
