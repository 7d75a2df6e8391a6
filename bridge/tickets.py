"""Tickets: short-lived tokens for one task, for clients that can't send your app's own credentials.

EventSource can't send headers, and another site's cookies it mustn't have. So the app, which knows its user,
gives the page a ticket, and the page gives it to the gateway. It is a JSON Web Token (RFC 7519) of HS256:

    {"aud": "bridge-ticket", "iat": …, "exp": …, "bridge": {"tasks": ["job-42"], "actions": ["read"]}}

The audience keeps a ticket from counting as a token of the app's own, and the other way round, should both
have the same key. PyJWT is imported when the first ticket is made: `import bridge` works without it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import Any, Final

from bridge.errors import InvalidInput, SettingsError
from bridge.events import check_task_id
from bridge.settings import Settings
from bridge.worker.process import current_settings

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "bridge-ticket"
CLAIM: Final = "bridge"
ACTIONS: Final = ("read", "cancel")
_LONGEST_SECONDS: Final = 30 * 86400


def ticket(
    task_id: str,
    *,
    ttl: float = 300,
    actions: Collection[str] = ("read",),
    owner: str | None = None,
    settings: Settings | None = None,
) -> str:
    """A ticket for one task: text for a URL, `?ticket=…`, or for `Authorization: Bearer …`.

    ttl: for so many seconds it is valid, rounded up to whole seconds, at most 30 days; a stream that has
    begun goes on. actions: of "read" and "cancel". owner: it then counts only as long as the task is this
    owner's, so that an app need not look up whose an id is that a client has named.

    Signed with the first of the setting `ticket_keys`. Raises `InvalidInput`, `SettingsError` without a key,
    and ModuleNotFoundError where PyJWT isn't installed (``pip install 'bridge[tickets]'``).
    """
    check_task_id(task_id)
    if not 0 < ttl <= _LONGEST_SECONDS:  # so written, it refuses NaN too
        raise InvalidInput(f"ttl must be more than 0 and at most 30 days (got {ttl!r})")
    if isinstance(actions, str) or not actions or any(action not in ACTIONS for action in actions):
        raise InvalidInput(f"actions must be some of {', '.join(ACTIONS)} (got {actions!r})")
    if owner == "":
        raise InvalidInput("owner must not be empty: a task without an owner is nobody's")
    keys = (current_settings() if settings is None else settings).ticket_keys.split()
    if not keys:
        raise SettingsError("tickets need BRIDGE_TICKET_KEYS, the same as the gateway's")

    import jwt

    now = int(time.time())
    grant: dict[str, Any] = {"tasks": [task_id], "actions": [one for one in ACTIONS if one in actions]}
    claims: dict[str, Any] = {"aud": AUDIENCE, "iat": now, "exp": now + math.ceil(ttl), CLAIM: grant}
    if owner is not None:
        grant["owner"] = claims["sub"] = owner
    return jwt.encode(claims, keys[0], ALGORITHM)
