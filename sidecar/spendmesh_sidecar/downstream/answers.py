"""Our own answers in the client's own API error shape: an unmodified SDK raises its own exception (contract §2)."""

from __future__ import annotations

import msgspec

from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Refusal

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    504: "timeout_error",
}
"""Anthropic's own list (API reference, errors); everything else is its `api_error`."""

Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers, body."""


def refusal_answer(dialect: Dialect, refusal: Refusal, request_id: str, should_retry: bool = False) -> Answer:
    """
    A complete HTTP answer for a refusal. `request_id` is empty for what was no request yet.

    `x-should-retry: false` tells Stainless SDKs that the decision has been made: they retry 408, 409, 429 and 5xx
    on their own otherwise.
    """
    if dialect == "Anthropic":
        body: object = {
            "type": "error",
            "error": {
                "type": _ANTHROPIC_TYPES.get(refusal.status, "api_error"),
                "message": f"{refusal.code}: {refusal.message}",
            },
            "request_id": request_id,
        }
    else:
        body = {
            "error": {
                "message": refusal.message,
                "type": "spendmesh",
                "code": refusal.code,
                "param": refusal.param or None,
            }
        }
    headers = [("content-type", "application/json"), ("x-spendmesh-error", refusal.code)]
    if request_id:
        headers.append(("x-spendmesh-request-id", request_id))
    if not should_retry:
        headers.append(("x-should-retry", "false"))
    if refusal.retry_after_seconds is not None:
        headers.append(("retry-after", str(max(1, round(refusal.retry_after_seconds)))))
    return refusal.status, headers, msgspec.json.encode(body)
