"""What the body of an error says, in whatever dialect: its codes, and how long to wait. Judges nothing."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from spendmesh_sidecar.core.failures.hints import retry_delay
from spendmesh_sidecar.core.usage.observation import error_code, plain


class ErrorBody(Struct, frozen=True, gc=False):
    """Empty members are what it does not say."""

    codes: tuple[str, ...] = ()
    """Identifiers, the most telling first."""
    retry_delay: str = ""
    """Google's `RetryInfo.retryDelay`, as it is written."""


def read_error(body: bytes) -> ErrorBody:
    """
    Read the body of an error answer, or what there is of it.

    OpenAI and Anthropic write {"error": {...}} and differ in its members; Google's OpenAI endpoint puts it into a list.
    """
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorBody()
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    members = [error.get(name) for name in ("code", "type", "status")] if isinstance(error, dict) else []
    codes = dict.fromkeys(code for code in (error_code(value), *map(plain, members)) if code)
    return ErrorBody(tuple(codes), retry_delay(error.get("details")) if isinstance(error, dict) else "")
