"""A request that is refused, and OpenAI's object that says why."""

from __future__ import annotations

from typing import Any

from anystep.errors import AnystepError

INVALID, SERVER = "invalid_request_error", "server_error"


class Refused(AnystepError):
    """One request that gets no answer: an HTTP status, a line for the user, and the parameter it is about."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None, kind: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.kind = kind or (INVALID if status < 500 else SERVER)

    def body(self) -> dict[str, Any]:
        """The error object of OpenAI's API."""
        told = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}

    def headers(self) -> dict[str, str]:
        """What a client that tries again should know."""
        known = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}, 503: {"retry-after": "1"}}
        return known.get(self.status, {})


def unsupported(param: str, why: str) -> Refused:
    """A parameter that the API has and this server cannot honour."""
    return Refused(f"{param} is not supported here: {why}", param=param, code="unsupported_parameter")
