"""The key with which workers report over HTTP. It lets nobody read, and nothing that lets read lets report.

Without a key nobody reports, on whatever address: a page in a browser on the same machine can send requests
to loopback, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from hmac import compare_digest

from bridge.settings import Settings


class ReportKeys:
    """The keys of the setting `report_keys`: two while they are exchanged, none where reporting is off."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [key.encode() for key in settings.report_keys.split()]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers, whose names are in lower case, has one of the keys. How long
        that takes says nothing about them.
        """
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return False  # of several, others on the way may have looked at another
        scheme, _, key = given[0].partition(b" ")
        right = [compare_digest(key.strip(), one) for one in self._keys]
        return scheme.lower() == b"bearer" and any(right)
