"""The page's files, and what a browser may do with them.

What a model says is shown as text. Should it become more by a mistake of ours, the policy still lets no
script run but these files and the gateway's bridge.js, nothing load and nothing be sent but from and to this
application and the gateway, no text become HTML, and nobody frame the page.
"""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parents[1] / "page"


class Page(StaticFiles):
    """The folder `page/`, for people who find the gateway at this URL."""

    def __init__(self, gateway_url: str) -> None:
        super().__init__(directory=FOLDER, html=True)
        self._headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'self' {gateway_url}/bridge.js; style-src 'self';"
                f" img-src 'self'; connect-src 'self' {gateway_url}/tasks/; form-action 'self';"
                " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script';"
                " trusted-types 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",  # what older browsers know of frame-ancestors
            "Referrer-Policy": "same-origin",
            # Kept, but asked for each time: so nobody runs modules of different versions.
            "Cache-Control": "no-cache",
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or that it hasn't changed."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response
