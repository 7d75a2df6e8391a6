"""The keys of the app's own tokens, out of settings and out of JSON Web Keys (RFC 7517), and which algorithms
each may be used with. No error repeats a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jwt
from jwt.algorithms import get_default_algorithms

from bridge import checks
from bridge.errors import SettingsError

Keys = Mapping[str, Sequence[Any]]
"""By algorithm: the keys that a token of it may be signed with."""

_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL)
_MIN_RSA_BITS: Final = 2048
_BY_CURVE: Final = {
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("EC", "P-521"): "ES512",
    ("OKP", "Ed25519"): "EdDSA",
    ("OKP", "Ed448"): "EdDSA",
}
_RSA: Final = tuple(name for name in checks.ASYMMETRIC if name[:2] in ("RS", "PS"))


def read_keys(text: str, algorithms: Sequence[str]) -> Keys:
    """The keys of the setting `jwt_keys`. Raises `SettingsError` for one that no algorithm fits."""
    if not text:
        return {}
    text = re.sub(r"(?<!\S)file:(\S+)", lambda match: _file(match[1]), text)
    pems, secrets = _PEM.findall(text), _PEM.sub(" ", text).split()
    if all(name in checks.HMAC for name in algorithms):
        if pems:
            raise SettingsError("jwt_keys holds a PEM key, but jwt_algorithms names algorithms with secrets")
        return {name: _secrets(secrets, name) for name in algorithms}
    if secrets:
        raise SettingsError("jwt_keys must hold public keys as PEM: so jwt_algorithms wants it")
    keys: dict[str, list[Any]] = {name: [] for name in algorithms}
    for number, pem in enumerate(pems, 1):
        for name, key in _public(pem, number, algorithms):
            keys[name].append(key)
    return keys


def _file(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"jwt_keys names a file that can't be read: {reason} ({path!r})") from None


def _secrets(secrets: Sequence[str], algorithm: str) -> list[bytes]:
    least = checks.HMAC[algorithm]
    keys = [secret.encode() for secret in secrets]
    if any(len(key) < least for key in keys):
        raise SettingsError(f"jwt_keys must have at least {least} bytes each for {algorithm}")
    return keys


def _public(pem: str, number: int, algorithms: Iterable[str]) -> list[tuple[str, Any]]:
    found = []
    for name in algorithms:
        try:
            key: Any = get_default_algorithms()[name].prepare_key(pem)
        except Exception:  # noqa: S112 (that it is no key is said below)
            # A key of another kind, or none at all: what was raised could repeat it.
            continue
        if hasattr(key, "private_bytes"):
            raise SettingsError(
                f"jwt_keys: key {number} is a private one, and a gateway needs the public one"
            )
        if is_strong(key):
            found.append((name, key))
    if not found:
        raise SettingsError(
            f"jwt_keys: key {number} is no public key that jwt_algorithms can use (RSA: {_MIN_RSA_BITS} bits)"
        )
    return found


def is_strong(key: Any) -> bool:
    """Whether it is of a size that counts as secure; curves have theirs in their name."""
    return name_of(key) != "RSAPublicKey" or key.key_size >= _MIN_RSA_BITS


def name_of(key: Any) -> str:
    """The kind of a key."""
    return type(key).__name__.lstrip("_")


def published_key(entry: Any) -> tuple[str | None, list[str], Any] | None:
    """A JSON Web Key: its id, the algorithms it is for, and the key. None for one that verifies no signature:
    for encryption, of a kind that isn't known, too short, or private, and above all for a shared secret.
    """
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    kid, kty, named = entry.get("kid"), entry.get("kty"), entry.get("alg")
    curve = _BY_CURVE.get((str(kty), str(entry.get("crv"))))
    fitting = _RSA if kty == "RSA" else (curve,) if curve else ()
    algorithms = [name for name in fitting if named in (None, name)]
    if not algorithms or not (kid is None or isinstance(kid, str)):
        return None
    try:
        key: Any = jwt.PyJWK.from_dict(entry, algorithms[0]).key
    except Exception:
        return None  # malformed; the others may be in order
    return (kid, algorithms, key) if is_strong(key) else None
