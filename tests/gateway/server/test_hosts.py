"""Which names in `Host` can only be this machine's."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.gateway.server.hosts import may_be_strange
from tests.gateway.running import running
from tests.gateway.test_mount import get, parent

OWN = "Box.lan.example"


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "localhost:8620", "LocalHost.", "127.0.0.1", "127.0.0.1:8620", "[::1]", "[::1]:8620",
     "192.0.2.7:80", "app.localhost", "app.localhost:8620", "bridge", "bridge:8620", "box.LAN.example:8620"],
)  # fmt: skip
def test_names_of_this_machine(host: str) -> None:
    """Addresses, `localhost` and below, names without a dot, the machine's own, and none at all."""
    assert not may_be_strange(host, OWN)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8620", "EVIL.example.", "localhost.evil.example", "127.0.0.1.evil.example",
     "evil.example:127.0.0.1", "127.0.0.1@evil.example", "[::1].evil.example", "evil.notlocalhost",
     "127.0.0.1.", "lan.example", "x.box.lan.example", "evil.example:80:80", "évil.example", "a.b",
     "\x00.\x00"],
)  # fmt: skip
def test_names_that_may_be_a_strangers(host: str) -> None:
    """Everything else, also what only looks like one of ours."""
    assert may_be_strange(host, OWN)


@pytest.mark.parametrize(
    "path", ["/healthz", "/status/nobody", "/tasks/nobody/events", "/bridge.js", "/nothing"]
)
def test_a_strangers_name_is_refused_on_every_path(redis_url: str, path: str) -> None:
    """In the shape of all errors; the message says what to do about it."""
    with running(redis_url, ready=False) as gateway:
        answer = gateway.get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")
        assert "BRIDGE_AUTH" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "settings",
    [{"insecure": True}, {"auth": "jwt", "ticket_keys": "k" * 32}, {"host": "0.0.0.0", "insecure": True}],
)
def test_who_says_who_may_needs_no_names(redis_url: str, settings: dict[str, Any]) -> None:
    """Where credentials decide, or whoever gets there may, any name will do: that of a proxy's site."""
    with running(redis_url, ready=False, **settings) as gateway:
        assert gateway.get("/healthz", headers={"Host": "app.example"}).status_code == 200


def test_a_mounted_gateway_leaves_it_to_its_app(redis_url: str) -> None:
    """It can't see where the app listens, nor by which names it is known."""
    with parent(redis_url) as app:
        answer = get(f"{app.url}/bridge/healthz", headers={"Host": "app.example"})
    assert answer.status_code == 200
