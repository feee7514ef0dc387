"""What a stand-in provider answers instead of a completion; how it looks on the wire is each dialect's business."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ApiError(Exception):
    """A refusal with an HTTP status.

    `type` and `code` override what the dialect would choose for the status; `param` names the request field.
    """

    status: int
    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400 for a field of the request; `param` is its path, as `messages[0].role`."""
    return ApiError(400, message, param=param, code=code)
