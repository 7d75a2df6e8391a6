"""Where a request comes from, for limits and logs.

Rules
-----
1. `X-Forwarded-For` counts only when it comes from one of `trusted_proxies`: anybody can send it. Each proxy
   adds, at the right, whom it got the request from. So it is read from the right, past the proxies that are
   trusted; the first address that isn't one of them is the client's. What stands left of it, the client may
   have written.
2. What isn't an address ends that walk: the client is then the last one that is known, whoever wrote it.
3. `Forwarded` (RFC 7239) isn't read: a proxy that sets one of the two headers may pass the other through as
   the client wrote it.
4. The header from somebody who isn't trusted, but whom limits count, is a hint: perhaps a proxy of yours that
   isn't in `trusted_proxies`, behind which all users share the limits of one address. It is said once, since
   anybody can send it.
5. One machine has one IPv4 address, but 2⁶⁴ of IPv6 (RFC 4291, 2.5.1): for limits those are one address.

Nothing here does I/O but say that hint; names are never looked up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from bridge.checks import networks

log = logging.getLogger("bridge.gateway")

Address = IPv4Address | IPv6Address

PEER: Final = "bridge.peer"
"""Where in the ASGI scope the address of a trusted proxy stands, from which a request came."""

_FORWARDED_FOR: Final = b"x-forwarded-for"
_WITH_PORT: Final = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
"""`[2001:db8::1]:443`, `[2001:db8::1]` and `192.0.2.1:443`; without brackets an IPv6 address has no port."""
_LONGEST_TEXT: Final = 80
_LONGEST_WALK: Final = 64
"""So many proxies no request has come through. It bounds what a header of commas costs."""
_V6_PREFIX: Final = 64
_REMEMBERED: Final = 4096
"""The same few addresses come with most requests, and reading one takes longer than looking it up."""


def parse_address(text: str) -> Address | None:
    """An address, with or without a port; None for what is none. IPv4 within IPv6 is IPv4; zones are dropped:
    they mean something to one machine only.
    """
    text = text.strip(" \t")
    return None if len(text) > _LONGEST_TEXT else _parsed(text)


@lru_cache(_REMEMBERED)
def _parsed(text: str) -> Address | None:
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def machine(address: Address) -> str:
    """What limits count as one: the address, or the network that one machine has of IPv6 (rule 5)."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _V6_PREFIX), strict=False))
    return str(address)


class Networks:
    """The addresses of a setting, such as `trusted_proxies`."""

    def __init__(self, text: str) -> None:
        self._networks = networks(text)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def holds(self, address: Address | None) -> bool:
        """Whether this is one of them. What is no address isn't."""
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


class Proxies(Networks):
    """The proxies that are trusted to say where a request comes from. `unlimited`: whom no limits count, so
    that nobody is hinted at among them; by itself that is everybody.
    """

    def __init__(self, text: str, unlimited: str = "0.0.0.0/0 ::/0") -> None:
        super().__init__(text)
        self._unlimited = Networks(unlimited)
        self._hinted = False

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The client's address, of a request that came from `peer` with these `X-Forwarded-For` headers."""
        if not self or not self.holds(client := parse_address(peer)):
            return peer
        # RFC 9110, 5.3: several headers of one name mean one, joined with commas, in their order.
        hops = ",".join(forwarded).rsplit(",", _LONGEST_WALK)[-_LONGEST_WALK:]
        for hop in reversed(hops):
            address = parse_address(hop)
            if address is None:
                break
            client = address
            if not self.holds(address):
                break
        return str(client)

    def reveal(self, scope: Scope) -> None:
        """Put the client's address into an ASGI scope, where all that follows looks for it."""
        peer = scope.get("client")
        if scope["type"] != "http" or not peer:
            return
        if self and self.holds(parse_address(peer[0])):
            scope[PEER] = peer[0]
        client = self.sender(peer[0], scope["headers"])
        if client != peer[0]:
            scope["client"] = (client, 0)

    def sender(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client's address, of a request that came from `peer` with all these headers."""
        if self._hinted and not self:
            return peer
        forwarded = [value.decode("latin-1") for name, value in headers if name == _FORWARDED_FOR]
        if forwarded and not self._hinted:
            self._hint(parse_address(peer))
        return self.client(peer, forwarded)

    def _hint(self, peer: Address | None) -> None:
        if peer is None or self.holds(peer) or self._unlimited.holds(peer):
            return
        self._hinted = True
        log.warning(
            "a request from %s says whom it was sent on for, but that address is not in trusted_proxies: if"
            " it is your proxy, all who come through it count as one (BRIDGE_TRUSTED_PROXIES)",
            peer,
        )
