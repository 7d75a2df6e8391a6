"""A page of a stranger's whose name was made to lead to this machine (DNS rebinding)."""

from __future__ import annotations

from tests.gateway.running import Running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer

REBOUND = {
    "Host": "evil.example:8620", "Origin": "http://evil.example:8620", "Sec-Fetch-Site": "same-origin",
}  # fmt: skip
"""To the browser page and gateway are one origin, so nothing but the name gives it away."""


def test_dns_rebinding(gateway: Running, writer: Writer) -> None:
    """It reads no task by poll or stream, cancels none, and doesn't even learn which version this is."""
    writer.open().text("private")
    position = writer.text("").position
    for path in ("/tasks/job-1/status", "/status/job-1", "/tasks/job-1/events", "/healthz", "/bridge.js"):
        answer = gateway.get(path, headers=REBOUND)
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")
        assert "private" not in answer.text
        assert str(position) not in f"{answer.headers}"
    assert gateway.post("/tasks/job-1/cancel", headers=REBOUND).status_code == 421
    assert writer.renew().cancel_requested is False


def test_dns_rebinding_by_the_request_s_first_line(gateway: Running, writer: Writer) -> None:
    """RFC 9112, 3.2.2 lets a request name its host there; no browser does it, and `Host` is what counts."""
    writer.open().text("private")
    raw = b"GET http://localhost/tasks/job-1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    with Viewer(gateway, "", raw=raw) as viewer:
        viewer.to_end()
    assert viewer.status in (400, 404, 421)
    assert b"private" not in viewer.received
