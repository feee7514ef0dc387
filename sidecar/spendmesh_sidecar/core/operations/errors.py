"""The one error of reading a request: what is wrong with it, never what is in it."""

from __future__ import annotations

import re

_SAFE = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")


class RequestError(Exception):
    """
    A request that is refused before anything is reserved (contract §2 table).

    `param` is the path of the field or the name of the header. `message` names the field and the fix and holds no
    value of the body: prompts must not reach logs through errors.
    """

    def __init__(self, code: str, status: int, message: str, param: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        self.param = param


def invalid(message: str, param: str = "") -> RequestError:
    """400 `request_invalid`."""
    return RequestError("request_invalid", 400, message, param)


def unsupported(message: str) -> RequestError:
    """404 `operation_unsupported`."""
    return RequestError("operation_unsupported", 404, message)


def shown(name: str) -> str:
    """A client's name or tag as it may stand in an error: plain identifiers only, anything else is `?`."""
    return name if _SAFE.fullmatch(name) else "?"
