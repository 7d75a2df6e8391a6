"""Keys and tokens for tests: an issuer that signs what it is told, also what no honest one would."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

TICKET_KEY: Final = "the-key-of-tickets-in-tests-0123456789"
SECRET: Final = "the-secret-of-the-app-in-tests-0123456789"
OTHER: Final = "a-key-that-nobody-has-agreed-on-0123456789"


@cache
def private_key(kind: str, number: int = 1) -> Any:
    """The n-th key pair of a kind: RS, PS (both RSA), ES256, ES384, ES512, EdDSA. Made once."""
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 1024 if kind == "short" else 2048)


def pem(kind: str, number: int = 1) -> str:
    """The public key, as people keep it in files."""
    raw: bytes = (
        private_key(kind, number).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return raw.decode()


def jwk(algorithm: str, kid: str | None = None, *, number: int = 1, **more: Any) -> dict[str, Any]:
    """The public key, as publishers give it."""
    made: Any = get_default_algorithms()[algorithm]
    public = private_key(algorithm if algorithm[0] == "E" else "RS", number).public_key()
    entry = json.loads(made.to_jwk(public))
    entry.pop("key_ops", None)
    return {**entry, **({"kid": kid} if kid is not None else {}), "use": "sig", **more}


def claims(**more: Any) -> dict[str, Any]:
    """Those of a token that is valid for an hour. None takes one away."""
    now = int(time.time())
    all_claims = {"iat": now, "exp": now + 3600, **more}
    return {name: value for name, value in all_claims.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", *, headers: Any = None, **named: Any) -> str:
    """A token with these claims."""
    return jwt.encode(claims(**named), key, algorithm, headers=headers)


def signed(algorithm: str, kid: str | None = None, *, number: int = 1, **named: Any) -> str:
    """A token that is signed with a private key."""
    key = private_key(algorithm if algorithm[0] == "E" else "RS", number)
    return token(key, algorithm, headers={"kid": kid} if kid is not None else None, **named)


def bearer(text: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {text}"}
