"""What the text of a setting may be. Each function says what is wrong with it, so that "… must" can stand in
front, or nothing. None repeats a value that may be secret.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

# https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin; other schemes than
# http are those of apps: capacitor://localhost, chrome-extension://…
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_USUAL_PORT: Final = re.compile(r"^http:.*:80$|^https:.*:443$")

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2. The names of headers, and of cookies (RFC 6265, 4.1.1), are such."""
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]+")
_NOT_FOR_ALL: Final = {"connection", "content-length", "host", "if-none-match", "transfer-encoding"}

# RFC 6750, 2.1: what may follow `Bearer` in a header.
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

AUTH: Final = ("none", "jwt", "forward")
LOG_FORMATS: Final = ("console", "json")
HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms with a shared secret, and how many bytes it must have at least (RFC 7518, 3.2)."""
ASYMMETRIC: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_PRIVATE: Final = "private"
_PRIVATE_NETWORKS: Final = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""What the internet doesn't reach: loopback, RFC 1918, RFC 3927; RFC 4291, RFC 4193."""

MIN_KEY_BYTES: Final = 32
_MAX_KEYS: Final = 2


def words(text: str) -> tuple[str, ...]:
    """The items of a list that is written with commas or spaces."""
    return tuple(text.replace(",", " ").split())


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone. A name other than `localhost` could be any."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a list such as `10.0.0.0/8 2001:db8::1 private`. Raises ValueError for what is none."""
    found: list[IPv4Network | IPv6Network] = []
    for word in words(text):
        found += [ip_network(one) for one in (_PRIVATE_NETWORKS if word == _PRIVATE else (word,))]
    return tuple(found)


def wrong_networks(text: str) -> str:
    """Addresses and networks."""
    try:
        networks(text)
    except ValueError as error:
        return f"hold addresses, networks such as 10.0.0.0/8, or the word {_PRIVATE}: {str(error)[:120]}"
    return ""


def wrong_base_path(text: str) -> str:
    """It stands in front of paths."""
    return f"begin with / (got {text!r})" if text and not text.startswith("/") else ""


def wrong_prefix(text: str) -> str:
    """It becomes part of key names, where braces mark what belongs together."""
    if any(c in text for c in "{}\r\n\0 "):
        return f"hold no braces, spaces or line ends: they would break key names (got {text!r})"
    return ""


def wrong_origins(text: str) -> str:
    """They are compared with what browsers send, letter by letter, so one that no browser ever sends would be
    a setting without an effect.
    """
    origins = words(text)
    if "*" in origins and len(origins) > 1:
        return "be either * or a list of origins, not both"
    for origin in origins:
        if origin == "null":
            # Sandboxed frames of any site, and files, have this origin: it would let in everybody.
            return "not hold null, which pages of any site can be; name origins, or * for all"
        if origin != "*" and not (_ORIGIN.fullmatch(origin) and not _USUAL_PORT.search(origin)):
            return (
                "hold origins as browsers send them, scheme://host or scheme://host:port: in lower case,"
                f" without a path, the scheme's usual port or a closing slash (got {origin[:60]!r})"
            )
    return ""


def wrong_auth(text: str) -> str:
    """Ways to decide, in order. `none` beside another would make that one vain."""
    named = words(text)
    if not named or any(name not in AUTH for name in named):
        return f"be none, jwt, forward, or several of them (got {text[:60]!r})"
    if "none" in named and len(named) > 1:
        return "be none alone, or without none"
    return "" if len(set(named)) == len(named) else "name each way once"


def wrong_log_format(text: str) -> str:
    """One of two."""
    return "" if text in LOG_FORMATS else f"be {' or '.join(LOG_FORMATS)} (got {text[:60]!r})"


def wrong_algorithms(text: str) -> str:
    """A public key must never be taken for a secret, so only one of the two kinds can be allowed."""
    named = words(text)
    if not named or any(name not in HMAC and name not in ASYMMETRIC for name in named):
        return f"be of {' '.join((*HMAC, *ASYMMETRIC))} (got {text[:60]!r})"
    if len({name in HMAC for name in named}) > 1:
        return "be either HS algorithms, which share a secret, or the others, but not both"
    return ""


def wrong_cookie(text: str) -> str:
    """The name of a cookie, or nothing."""
    return "be the name of a cookie" if text and not _TOKEN.fullmatch(text) else ""


def wrong_keys(text: str) -> str:
    """Both are valid, and where something is signed the first signs. Short ones can be guessed, and offline
    from a single ticket.
    """
    keys = text.split()
    if len(keys) > _MAX_KEYS:
        return "be one key, or two with a space between them: the new one, and the old one"
    if any(len(key.encode()) < MIN_KEY_BYTES for key in keys):
        return f"have at least {MIN_KEY_BYTES} bytes each; `openssl rand -base64 48` makes a good one"
    return ""


def wrong_ticket(text: str) -> str:
    """It goes into a header, which nothing in it may end."""
    if text and not _BEARER.fullmatch(text):
        return "be one word of letters, digits and - . _ ~ + / =, as `bridge ticket` prints it"
    return ""


def wrong_jwks_url(text: str) -> str:
    """Who can change what comes from there can sign for everybody."""
    if not text:
        return ""
    scheme, host = _scheme_and_host(text)
    if host and (scheme == "https" or (scheme == "http" and is_loopback(host))):
        return ""
    return "be an https:// URL; http:// is for this machine only"


def wrong_forward_url(text: str) -> str:
    """A URL; `{task_id}` and `{action}` in it are filled in, anything else in braces would be a mistake."""
    if not text:
        return ""
    plain = text.replace("{task_id}", "").replace("{action}", "")
    scheme, host = _scheme_and_host(plain)
    if not host or scheme not in ("http", "https"):
        return "be an http:// or https:// URL"
    if "{" in plain or "}" in plain:
        return "hold no braces but those of {task_id} and {action}"
    if text.partition("?")[0].split("/")[:3] != plain.partition("?")[0].split("/")[:3]:
        return "hold {task_id} and {action} in its path or query only"
    return ""


def wrong_upstream(text: str) -> str:
    """Where an app is. Credentials have a place of their own, which is never printed."""
    if not text:
        return ""
    scheme, host = _scheme_and_host(text)
    if not host or scheme not in ("http", "https") or any(c in text for c in "?#{}"):
        return "be an http:// or https:// URL without a query"
    return "hold no credentials: upstream_headers is for those" if "@" in text else ""


def wrong_headers(text: str) -> str:
    """Lines such as `Authorization: Bearer …`, without what belongs to the connection or the question."""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if line.strip() and not (colon and _TOKEN.fullmatch(name) and _HEADER_VALUE.fullmatch(value.strip())):
            return "be headers, one a line, such as Authorization: Bearer …"
        if name.lower() in _NOT_FOR_ALL:
            return f"not hold {name.lower()}, which is the connection's"
    return ""


def headers(text: str) -> tuple[tuple[str, str], ...]:
    """The names and values in such lines."""
    lines = (line.partition(":") for line in text.splitlines() if line.strip())
    return tuple((name, value.strip()) for name, _, value in lines)


def _scheme_and_host(url: str) -> tuple[str, str]:
    """Both empty for what is no URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # that a port is a number is found out here
        return ("", "") if any(c <= " " for c in url) else (parts.scheme, parts.hostname or "")
    except ValueError:
        return "", ""
