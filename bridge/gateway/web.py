"""What browsers load: the module `bridge.js` with its types, and the page.

All URLs in these files are relative to their own, so they work below any path: `base_path`, a mount, a proxy
that takes a prefix away. That is also why who asks for the page without the closing slash is redirected, and
why the redirect is relative: the gateway can't know the path that the browser sees.

Files are read once, when the gateway is made. Browsers keep them but ask each time, mostly for a 304: so
after an update nobody runs a page and a script of different versions.

What a task says is shown as text. Should it become more by a mistake of ours, the page's policy still lets no
script run, nothing load and nothing be sent but from and to this gateway, and nobody frame the page to make
people press its buttons unawares.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bridge.gateway.answers import NOSNIFF
from bridge.gateway.hub import Hub

MODULE: Final = {"/bridge.js": "bridge.js", "/bridge.d.ts": "bridge.d.ts"}
"""Paths that every gateway serves, and the files in `bridge/web/`."""

PAGE: Final = {
    "/": "page.html",
    "/page.js": "page.js",
    "/page.css": "page.css",
    "/page.svg": "page.svg",
    "/page.json": "page.json",
}
"""Those with the setting `page`. What `page.json` says of this gateway a demonstration says otherwise."""

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    # There is no registered type for it; as text it can be read in a browser, too.
    "ts": "text/plain; charset=utf-8",
}


_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FOR_PAGES: Final = {
    "content-security-policy": _POLICY,
    "x-frame-options": "DENY",  # what older browsers know of frame-ancestors
    # Its address names a task, and perhaps a ticket.
    "referrer-policy": "no-referrer",
}


def web_file(name: str) -> Callable[[Hub, Request], Awaitable[Response]]:
    """A handler that serves a file of `bridge/web/`.

    One that is missing is a broken installation; who asks for it is told so, and everything else works.
    """
    try:
        content = (files("bridge") / "web" / name).read_bytes()
    except FileNotFoundError:
        content = None
    tag = f'"{sha256(content or b"").hexdigest()[:32]}"'
    ending = name.rpartition(".")[2]
    headers = {"cache-control": "no-cache", "etag": tag, **NOSNIFF}
    if ending == "html":
        headers |= _FOR_PAGES

    async def serve(_: Hub, request: Request) -> Response:
        if content is None:
            raise HTTPException(404, f"This installation lacks the file bridge/web/{name}: install it again.")
        if _matches(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers={**headers, "content-type": _TYPES[ending]})

    return serve


async def to_slash(request: Request) -> Response:
    """Redirect to the same path with a slash at the end, relative to where the browser thinks it is."""
    # "./" keeps a colon in the name from making a scheme of it.
    target = "./" + request.scope["path"].rpartition("/")[2] + "/"
    query = request.scope["query_string"].decode("latin-1")
    return RedirectResponse(f"{target}?{query}" if query else target, 307, NOSNIFF)


def _matches(if_none_match: str, tag: str) -> bool:
    """RFC 9110, 13.1.2: a list of tags, compared weakly, or `*` for any."""
    tags = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return tag in tags or "*" in tags
