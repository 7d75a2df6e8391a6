"""Open files: each connection is one, and without any left nobody is let in, within the limits or not.

Systems begin with few (1024), and let a process ask for more, up to what the administrator allows.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from bridge.settings import Settings

try:
    import resource
except ImportError:  # Windows counts other things
    resource = None  # type: ignore[assignment] # so it says that it isn't there

log = logging.getLogger("bridge.gateway")

_OTHERS: Final = 200
"""What a gateway opens besides: Redis, the app that is asked, logs, libraries."""


def make_room(settings: Settings) -> Settings:
    """Let this process have as many connections as the settings want; the settings with as many as it has."""
    if resource is None:
        return settings
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = settings.max_connections + _OTHERS if settings.max_connections else hard
    if soft != unlimited and (wanted == unlimited or soft < wanted):
        wanted = wanted if hard == unlimited else min(wanted, hard)
        with suppress(OSError, ValueError):  # some systems have more limits than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return settings if soft == unlimited else within(settings, soft)


def within(settings: Settings, files: int) -> Settings:
    """The settings, with no more connections than so many files allow; and one address never has them all."""
    most = max(files - _OTHERS, files // 2)
    if 0 < settings.max_connections <= most:
        return settings
    if settings.max_connections:
        log.info("this process may open %d files, so at most %d connections", files, most)
    each = settings.max_connections_per_address
    return settings.with_(
        max_connections=most, max_connections_per_address=each and min(each, max(most // 2, 1))
    )
