"""What is refused, and how clients are told: always ``{"error": {"code", "message"}}``."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import JSONResponse


class Refused(Exception):
    """A request that isn't done. The message is for people, the code for programs."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers

    def response(self) -> JSONResponse:
        """How it looks on the wire."""
        return error(self.status, self.code, str(self), self.headers)


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error's answer."""
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
