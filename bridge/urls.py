"""URLs as they may be shown. Pure."""

from __future__ import annotations


def shown(url: str) -> str:
    """A URL without its password, which may also stand in its query, for messages and logs."""
    url, _, query = url.partition("?")
    scheme, separator, rest = url.partition("://")
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return scheme + separator + rest + ("?***" if query else "")
