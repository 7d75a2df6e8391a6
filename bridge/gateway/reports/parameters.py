"""What a worker's request says beside its events: whose it is, and how the task ends. Pure.

All raise `InvalidInput` (or one of its kinds) for what can't be meant.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from bridge.codec import dumps, utf8
from bridge.errors import InvalidEvent, InvalidInput, UnsupportedBody
from bridge.events import RESERVED_CODES, TERMINAL_STATES
from bridge.store.piece import Ending, Piece
from bridge.worker.create import MAX_OWNER_BYTES
from bridge.worker.outcome import failure
from bridge.worker.report import check_name

_TOKEN: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}", re.ASCII)
_OWN: Final = "http:"
"""What all tokens of attempts over HTTP begin with: so they are never that of anybody else."""
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,253}[\x21-\x7e]|[\x21-\x7e]", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?", re.ASCII)
_LEASE_SECONDS: Final = (0.5, 86_400.0)
_NO_CODE: Final = ("failed", "The worker reported a failure.")


def piece_of(query: Mapping[str, str], key: str | None, purpose: str) -> Piece:
    """The request as an empty piece: attempt, number or name, lease. `key` is its Idempotency-Key; it names a
    request of one purpose only. One without any name gets one that is nobody else's.
    """
    token, number = query.get("attempt", ""), query.get("batch", "")
    if token and not _TOKEN.fullmatch(token):
        raise InvalidInput("attempt is 1-100 characters of A-Z a-z 0-9 . _ : -")
    if number and not _NUMBER.fullmatch(number):
        raise InvalidInput("batch is a whole number: 1, 2, 3 …")
    if number and not token:
        # Else another worker's first batch, after this one died, would be taken for this one's.
        raise InvalidInput("batch counts the requests of one attempt: name it with attempt=")
    named = name_of(key, purpose)
    return Piece(
        token=_OWN + token if token else "",
        own_token="~" + secrets.token_hex(8),
        number=int(number or 0),
        name="" if number else named,
        start=0,
        stop=0,
        whole=False,
        lease_ms=_lease_ms(query.get("lease", "")),
    )


def check_names(query: Mapping[str, str], *known: str) -> None:
    """Raise `InvalidInput` for a parameter that nobody knows: who misspells `batch` would count on it."""
    if unknown := query.keys() - set(known):
        raise InvalidInput(f"there is no parameter {min(unknown)[:60]!r} here")


def name_of(key: str | None, purpose: str) -> str:
    """A short word for an Idempotency-Key; without one a word that is nobody else's."""
    if key is None:
        return "r" + secrets.token_hex(8)
    if not _KEY.fullmatch(key):
        raise InvalidInput("Idempotency-Key is 1-255 printable characters")
    return "k" + blake2b(f"{purpose} {key}".encode(), digest_size=8).hexdigest()


def _lease_ms(text: str) -> int | None:
    if not text:
        return None
    least, most = _LEASE_SECONDS
    seconds = float(text) if _SECONDS.fullmatch(text) else -1.0
    if seconds and not least <= seconds <= most:
        raise InvalidInput(f"lease is a number of seconds from {least:g} to {most:.0f}, or 0 for none")
    return int(seconds * 1000)


def refuse_encoding(encoding: str | None) -> None:
    """Raise `UnsupportedBody` for a body that is compressed."""
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedBody("Bodies are read as they are, not compressed: leave Content-Encoding out.")


@dataclass(frozen=True, slots=True)
class Said:
    """How a task ends. truncated: its result is left out, being larger than a task may be."""

    ending: Ending
    truncated: bool


def ending_of(value: Any, most: int) -> Said:
    """The end that `{"state","result","error","usage"}` says; None is a success.

    most: so many bytes a result may have.
    """
    members = _members(value, {"state", "result", "error", "usage"})
    state = members.get("state", "succeeded")
    if not isinstance(state, str) or state not in TERMINAL_STATES:
        raise InvalidEvent(f'"state" must be one of {", ".join(sorted(TERMINAL_STATES))}')
    error = _error(members.get("error"), state)
    usage = members.get("usage")
    if usage is not None and not isinstance(usage, dict):
        raise InvalidEvent('"usage" must be an object or null')
    kept = {"result": members.get("result"), "usage": usage}
    truncated = len(dumps(kept)) > most
    if truncated:
        kept = dict.fromkeys(kept)
    data = dumps({"state": state, "error": error, **kept})
    return Said(Ending(state, error["code"] if error else "", data), truncated)


def _error(value: Any, state: str) -> dict[str, str] | None:
    if state != "failed":
        if value is not None:
            raise InvalidEvent('"error" goes with the state failed')
        return None
    if value is None:
        return failure(*_NO_CODE)
    members = _members(value, {"code", "message"})
    code, message = members.get("code", _NO_CODE[0]), members.get("message", _NO_CODE[1])
    if not isinstance(code, str) or not isinstance(message, str):
        raise InvalidEvent('"error" must be an object with the strings "code" and "message"')
    if check_name(code, "code") in RESERVED_CODES:
        raise InvalidEvent(f"the code {code} is the bridge's own; choose another")
    return failure(code, message)


def owner_of(value: Any) -> str:
    """Whose the task is that `{"owner"}` announces; empty for nobody's."""
    owner = _members(value, {"owner"}).get("owner")
    if owner is None:
        return ""
    if not isinstance(owner, str) or len(utf8(owner)) > MAX_OWNER_BYTES:
        raise InvalidInput(f'"owner" is a string of at most {MAX_OWNER_BYTES} bytes')
    return owner


def _members(value: Any, known: set[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidEvent("the body must be a JSON object")
    if unknown := value.keys() - known:
        raise InvalidEvent(f"there is no member {min(unknown)[:60]!r} here")
    return value
