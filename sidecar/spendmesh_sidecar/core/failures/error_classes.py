"""
What a failure means: one table (dialect × status × code -> class), and what each class does to a retry.

Data only; looked at for failures alone, so that a good answer pays nothing for it. Left out: what a failure is billed
(`billing`), whether there is a retry to spare (`retry_budget`) and where it goes (`attempts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Kind

INSIDE = 200
"""The status of rows for an error inside a good answer: its head had promised a success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorClass:
    """One row. All that is set must fit; an empty member fits everything."""

    kind: Kind
    source: str
    """Who says so."""
    dialect: Dialect | None = None
    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()
    hinted: bool = False
    """Only where the answer says how long to wait."""
    like: int = 0
    """Inside a 200: the status that such an error comes with otherwise, by which a policy's `codes` know it."""

    def fits(self, dialect: Dialect, status: int, codes: tuple[str, ...], hinted: bool) -> bool:
        """Whether this row speaks about such an answer."""
        return (
            (self.dialect is None or self.dialect == dialect)
            and (not self.statuses or status in self.statuses)
            and (not self.codes or not self.codes.isdisjoint(codes))
            and (hinted or not self.hinted)
        )


def _row(kind: Kind, source: str, *statuses: int, hinted: bool = False) -> ErrorClass:
    return ErrorClass(kind=kind, source=source, statuses=frozenset(statuses), hinted=hinted)


def _inside(kind: Kind, like: int, source: str, *codes: str) -> ErrorClass:
    return ErrorClass(kind=kind, source=source, statuses=frozenset({INSIDE}), codes=frozenset(codes), like=like)


ERROR_CLASSES: tuple[ErrorClass, ...] = (
    # --- what a code says whatever the status -------------------------------------------------------------
    ErrorClass(
        kind=Kind.UNPAID,
        dialect="OpenAI",
        codes=frozenset(
            {
                "insufficient_quota",
                "credit_balance_exhausted",
                "organization_spend_limit_exceeded",
                "project_spend_limit_exceeded",
                "organization_usage_limit_exceeded",
                "billing_hard_limit_reached",
                "billing_not_active",
            }
        ),
        source="OpenAI help center 6614457: a spent quota is a 429 that no waiting mends",
    ),
    ErrorClass(
        kind=Kind.UNPAID,
        dialect="Anthropic",
        codes=frozenset({"enforced_spend_limit_reached", "billing_error"}),
        source="Anthropic API reference, errors",
    ),
    _row(Kind.UNPAID, "RFC 9110 §15.5.3; Anthropic's billing_error, and OpenAI's wire at resellers", 402),
    ErrorClass(
        kind=Kind.NON_RETRYABLE,
        dialect="OpenAI",
        codes=frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}),
        source="Azure OpenAI content filter: the same prompt is refused again",
    ),
    ErrorClass(
        kind=Kind.NON_RETRYABLE,
        dialect="OpenAI",
        codes=frozenset({"context_length_exceeded", "string_above_max_length"}),
        source="OpenAI error codes: the same prompt is too long again",
    ),
    ErrorClass(
        kind=Kind.AMBIGUOUS,
        dialect="OpenAI",
        statuses=frozenset({429}),
        codes=frozenset({"tokens"}),
        source="OpenAI and Groq name the token limit so: it passes, unless this one request is larger than the limit",
    ),
    # --- statuses -----------------------------------------------------------------------------------------
    _row(Kind.TIMEOUT, "RFC 9110 §15.5.9, §15.6.5", 408, 504),
    _row(Kind.TRANSIENT, "both SDKs retry a lock timeout", 409),
    _row(Kind.TRANSIENT, "RFC 8470 §5.2", 425),
    _row(Kind.THROTTLED, "RFC 6585 §4; Anthropic overloaded_error", 429, 529),
    _row(Kind.AMBIGUOUS, "the model may have run, and a poisoned request fails each time", 500),
    _row(Kind.NON_RETRYABLE, "RFC 9110 §15.6.2, §15.6.6", 501, 505),
    _row(Kind.THROTTLED, "RFC 9110 §15.6.4: it says when it can again", 503, hinted=True),
    _row(Kind.TRANSIENT, "RFC 9110 §15.6; 520 to 527 are Cloudflare's", 502, 503, *range(506, 529), *range(530, 600)),
    # --- inside a 200, as a body or as an event of a stream ---------------------------------------------------
    _inside(Kind.THROTTLED, 529, "Anthropic API reference, errors", "overloaded_error"),
    _inside(Kind.THROTTLED, 429, "both dialects' rate limits", "rate_limit_error", "rate_limit_exceeded"),
    _inside(Kind.THROTTLED, 503, "OpenAI error codes", "slow_down"),
    _inside(Kind.TRANSIENT, 503, "OpenAI error codes", "server_is_overloaded", "service_unavailable"),
    _inside(Kind.TIMEOUT, 504, "Anthropic API reference, errors", "timeout_error", "request_timeout"),
    _inside(
        Kind.NON_RETRYABLE,
        400,
        "both API references, errors: the request's own fault",
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
    ),
    _inside(Kind.AMBIGUOUS, 500, "any other: the model ran until it came"),
    # --- all that is left ---------------------------------------------------------------------------------
    _row(Kind.NON_RETRYABLE, "RFC 9110 §15.4, §15.5: the same request gets the same answer"),
)
"""The first row that fits speaks; the last one fits everything."""


def error_class(dialect: Dialect, status: int, codes: tuple[str, ...] = (), hinted: bool = False) -> ErrorClass:
    """The row for a failure; `status` INSIDE for an error inside a good answer."""
    return next(row for row in ERROR_CLASSES if row.fits(dialect, status, codes, hinted))


Again = Literal["Never", "Listed", "Ambiguous", "Elsewhere", "Unsent"]
Weight = Literal["Throttled", "Transient", "Timeout"]


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a class does to a retry."""

    again: Again
    """`Listed`: where the policy's `codes` have its status. `Ambiguous`: so too, as often as `ambiguous` says.
    `Elsewhere`: at once, at another account only. `Unsent`: always, since nothing was sent."""
    weight: Weight = "Transient"
    """What a retry after it takes out of the retry budget."""


TREATMENTS: Mapping[Kind, Treatment] = {
    Kind.SUCCESS: Treatment("Never"),
    Kind.THROTTLED: Treatment("Listed", "Throttled"),
    Kind.TRANSIENT: Treatment("Listed"),
    Kind.TIMEOUT: Treatment("Listed", "Timeout"),
    Kind.AMBIGUOUS: Treatment("Ambiguous"),
    Kind.NON_RETRYABLE: Treatment("Never"),
    Kind.UNPAID: Treatment("Elsewhere", "Throttled"),
    Kind.CONNECT: Treatment("Unsent"),
    Kind.KEY_MISSING: Treatment("Unsent"),
    Kind.UNWRITTEN: Treatment("Never"),  # our own disk: another target has the same one
    Kind.CUT: Treatment("Never"),  # it was sent, and nobody knows how far it came
    Kind.STOPPED: Treatment("Never"),  # part of the answer has been passed on
    Kind.CLIENT_GONE: Treatment("Never"),  # nobody is there to take an answer
}
