"""Whose request it is: what proxies say, who is believed, and what counts as one machine."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.checks import wrong_networks
from bridge.gateway.addresses import Networks, Proxies, machine, parse_address

PROXIES = Proxies("10.0.0.0/8, 2001:db8:ffff::/48 192.0.2.1")
ADDRESSES = st.ip_addresses().map(str)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7\t", "192.0.2.7"),
        ("192.0.2.7:51234", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
    ],
)
def test_addresses_as_proxies_write_them(text: str, address: str) -> None:
    """With and without ports and brackets; IPv4 within IPv6 is IPv4."""
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "unknown", "_hidden", "localhost", "example.org", "192.0.2", "192.0.2.7.8", "192.0.2.256",
        "0300.0.2.7", "192.0.2.7:", "192.0.2.7:x", "192.0.2.7:123456", "3221225991", "0xc0000207",
        "[192.0.2.7", "[2001:db8::7]x", "[]", ":::", "2001:db8::7:443:1:2:3:4:5", '"192.0.2.7"',
        "for=192.0.2.7", "192.0.2.7\r\nX: y", "١٩٢.0.2.7", "192.0.2.7/8", "\0", "1" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    """Names, numbers in other bases, half addresses and junk are none."""
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody is believed who isn't trusted.
        ("198.51.100.9", ["203.0.113.5"], "198.51.100.9"),
        ("198.51.100.9", ["10.0.0.1"], "198.51.100.9"),
        # The right-most that isn't a proxy, whatever the client wrote in front of it.
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["127.0.0.1, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["10.9.9.9, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.5, 10.0.0.2,192.0.2.1"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.5", "10.0.0.2"], "203.0.113.5"),
        ("::ffff:10.0.0.1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("2001:db8:ffff::1", ["2001:db8::7"], "2001:db8::7"),
        # All are proxies: the farthest that is known.
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        # What is no address ends the walk.
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, \r\n, 10.0.0.2"], "10.0.0.2"),
        # A server without addresses.
        ("", ["203.0.113.5"], ""),
        ("testclient", ["203.0.113.5"], "testclient"),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded: list[str], client: str) -> None:
    """The right-most address that isn't a trusted proxy's."""
    assert PROXIES.client(peer, forwarded) == client


@given(forged=st.lists(ADDRESSES | st.text(max_size=20), max_size=10), client=ADDRESSES)
def test_nothing_that_a_client_writes_hides_its_address(forged: list[str], client: str) -> None:
    """Whatever stands in the header when it reaches the first proxy: behind it, that proxy adds the truth."""
    if PROXIES.holds(parse_address(client)):
        return
    assert PROXIES.client("10.0.0.1", [*forged, client]) == str(parse_address(client))
    assert PROXIES.client("10.0.0.1", [", ".join([*forged, client, "10.0.0.2"])]) == str(
        parse_address(client)
    )


@given(st.text(), st.lists(st.text()))
def test_any_text_is_handled(peer: str, forwarded: list[str]) -> None:
    """Junk in, an answer out: never an error, and never anything but the peer or an address."""
    client = PROXIES.client(peer, forwarded)
    if client != peer:
        ip_address(client)


def test_a_header_of_commas_is_not_walked_through() -> None:
    """Only as many hops are looked at as a request could have come through."""
    hops = ["203.0.113.5"] + ["10.0.0.2"] * 10_000
    assert PROXIES.client("10.0.0.1", [",".join(hops)]) == "10.0.0.2"


def test_without_proxies_nobody_is_believed() -> None:
    """Which is what happens by default."""
    assert Proxies("").client("127.0.0.1", ["203.0.113.5"]) == "127.0.0.1"
    assert not Proxies("")


def test_a_machine_has_one_address_or_a_network() -> None:
    """All that one machine can take of IPv6 counts as one; its neighbour's counts on its own."""
    assert machine(ip_address("192.0.2.7")) == "192.0.2.7"
    for address in ("2001:db8:1:2::7", "2001:db8:1:2:ffff::8"):
        assert machine(ip_address(address)) == "2001:db8:1:2::/64"


def test_networks_of_the_settings() -> None:
    """`private` stands for what the internet doesn't reach; families don't mix."""
    private = Networks("private")
    inside = (
        "127.0.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.1.1",
        "::1",
        "fd00::1",
        "fe80::1",
    )
    assert all(private.holds(ip_address(one)) for one in inside)
    assert not any(private.holds(ip_address(one)) for one in ("8.8.8.8", "172.32.0.1", "2001:db8::1"))
    assert not Networks("0.0.0.0/0").holds(ip_address("2001:db8::1"))
    assert not Networks("0.0.0.0/0").holds(None)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy", "10.0.0.0/8;::1", "http://10.0.0.1"])
def test_networks_that_are_none(text: str) -> None:
    """The setting is refused, and says what is wrong."""
    assert wrong_networks(text).startswith("hold addresses")


@pytest.mark.parametrize("text", ["", "private", "10.0.0.0/8", "10.0.0.1 ::1,2001:db8::/32"])
def test_networks_that_are_some(text: str) -> None:
    """Single addresses and networks, with commas or spaces."""
    assert wrong_networks(text) == ""


def scope(peer: str, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """A request's ASGI scope, as far as it matters here."""
    return {"type": "http", "client": (peer, 1234), "headers": list(headers)}


FORWARDED = (b"x-forwarded-for", b"203.0.113.5\r\nERROR forged")


def test_a_proxy_that_nobody_told_us_of_is_hinted_at(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with its address alone: what the header says anybody may have written. It isn't believed."""
    proxies = Proxies("10.0.0.1", "127.0.0.0/8")
    for _ in range(3):
        request = scope("198.51.100.7", FORWARDED)
        proxies.reveal(request)
        assert request["client"] == ("198.51.100.7", 1234)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a request from 198.51.100.7 ")
    assert "BRIDGE_TRUSTED_PROXIES" in said
    assert "203.0.113.5" not in said


@pytest.mark.parametrize("peer", ["10.0.0.1", "127.0.0.1", "unix:/run/x"])
def test_who_is_trusted_or_has_no_limits_is_no_hint(peer: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is a request without that header."""
    proxies = Proxies("10.0.0.1", "127.0.0.0/8")
    proxies.reveal(scope(peer, FORWARDED))
    proxies.reveal(scope("198.51.100.7", (b"x-forwarded-host", b"203.0.113.5")))
    assert caplog.records == []
