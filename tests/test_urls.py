from __future__ import annotations

import pytest

from bridge.urls import shown


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://user:secret@host:1/2", "redis://***@host:1/2"),
        ("redis://:se@cret@host", "redis://***@host"),
        ("rediss://host?password=secret", "rediss://host?***"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix://u:secret@/run/redis.sock?db=1", "unix://***@/run/redis.sock?***"),
        ("redis+sentinel://u:secret@h:1,i:2/main/0?sentinel_password=x", "redis+sentinel://***@h:1,i:2/main/0?***"),
        ("redis://[::1", "redis://[::1"),
        ("http://127.0.0.1:8620", "http://127.0.0.1:8620"),
    ],
)  # fmt: skip
def test_shown_url_has_no_password(url: str, public: str) -> None:
    """What is shown tells where, and never how to get in."""
    assert shown(url) == public
