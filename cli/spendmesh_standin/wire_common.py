"""Errors, headers and model lists of both dialects, as the real hosts send them. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from spendmesh_standin.errors import ApiError
from spendmesh_standin.prices import CATALOG, Dialect, Model

_RELEASED = 1_735_689_600  # one date for every model: 2025-01-01
_OPENAI_ERRORS: Mapping[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", None),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", None),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    502: ("server_error", None),
    503: ("server_error", "slow_down"),
    504: ("server_error", None),
    529: ("server_error", None),
}
_ANTHROPIC_ERRORS: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_MESSAGES: Mapping[int, str] = {
    402: "Your credit balance is too low to access the API.",
    403: "Your key does not have permission to use this resource.",
    404: "The resource was not found.",
    408: "The request timed out.",
    409: "The resource is being changed by another request.",
    413: "The request is larger than the maximum allowed size.",
    422: "The request was well-formed but could not be processed.",
    429: "Rate limit reached for requests. Please try again later.",
    500: "The server had an error while processing your request.",
    502: "Bad gateway.",
    503: "The server is overloaded. Please try again later.",
    504: "The request was not answered in time.",
    529: "Overloaded",
}


def fault_error(
    status: int, *, type: str | None = None, code: str | None = None, message: str | None = None
) -> ApiError:
    """The error that a fault switch asks for; what it leaves open is what the status usually comes with."""
    return ApiError(status, message or _MESSAGES.get(status, "The request could not be served."), type, code)


def error_json(dialect: Dialect, error: ApiError, request_id: str) -> dict[str, Any]:
    """The body of an error answer."""
    if dialect == "anthropic":
        kind = error.type or _ANTHROPIC_ERRORS.get(error.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}
    kind, code = _OPENAI_ERRORS.get(error.status, ("invalid_request_error", None))
    body = {
        "message": error.message,
        "type": error.type or kind,
        "param": error.param,
        "code": error.code if error.code is not None else code,
    }
    return {"error": body}


def headers(dialect: Dialect, request_id: str, elapsed_seconds: float, now: float) -> dict[str, str]:
    """What every answer of the real host carries; the rate limits are never near."""
    if dialect == "anthropic":
        reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 1))
        limits = {"requests": 4_000, "tokens": 500_000, "input-tokens": 400_000, "output-tokens": 80_000}
        sent = {"request-id": request_id, "anthropic-organization-id": "org-stand-in"}
        for name, limit in limits.items():
            sent[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            sent[f"anthropic-ratelimit-{name}-remaining"] = str(limit - 1)
            sent[f"anthropic-ratelimit-{name}-reset"] = reset
        return sent
    return {
        "x-request-id": request_id,
        "openai-processing-ms": str(round(elapsed_seconds * 1000)),
        "openai-version": "2020-10-01",
        "openai-organization": "org-stand-in",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-tokens": "1999999",
        "x-ratelimit-reset-tokens": "0s",
    }


def models_json(dialect: Dialect) -> dict[str, Any]:
    """The list of models sold in this dialect."""
    data = [model_json(dialect, model) for model in CATALOG.values() if dialect in model.dialects]
    if dialect == "anthropic":
        return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
    return {"object": "list", "data": data}


def model_json(dialect: Dialect, model: Model) -> dict[str, Any]:
    """One model as its list shows it."""
    if dialect == "anthropic":
        released = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_RELEASED))
        return {
            "type": "model",
            "id": model.name,
            "display_name": model.name,
            "created_at": released,
            "max_input_tokens": model.context_tokens,
            "max_tokens": model.max_output_tokens,
        }
    return {"id": model.name, "object": "model", "created": _RELEASED, "owned_by": "system"}
