"""What one outcome says by itself, about its target and about another try; `attempts` has all tries in view."""

from __future__ import annotations

from typing import Literal

from spendmesh_sidecar.core.failures.breaker import Verdict
from spendmesh_sidecar.core.failures.error_classes import TREATMENTS, Weight
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.core.types import Kind, Outcome

Denied = Literal["", "budget", "cost", "attempts", "ambiguous", "deadline", "retry_after", "concurrency", "no_target"]
UNPAID_FOR: frozenset[Denied] = frozenset({"budget", "cost"})
"""Another try might have helped, but the RetryBudget does not pay for it."""


def verdict(outcome: Outcome) -> Verdict:
    """What an outcome says about its target: server errors and broken connections fail, throttling fails softly."""
    if outcome.kind is Kind.SUCCESS:
        return Verdict.SUCCESS
    if outcome.kind is Kind.THROTTLED:
        return Verdict.SOFT_FAILURE
    if outcome.kind in (Kind.CONNECT, Kind.CUT):
        return Verdict.FAILURE
    if outcome.kind in (Kind.CLIENT_GONE, Kind.KEY_MISSING, Kind.UNWRITTEN):
        return Verdict.NEUTRAL
    broke = outcome.kind in (Kind.TIMEOUT, Kind.TRANSIENT, Kind.AMBIGUOUS)
    if outcome.status is None or outcome.status < 400:  # no answer in time, or an error inside a 200
        return Verdict.FAILURE if broke else Verdict.NEUTRAL
    return Verdict.FAILURE if outcome.status >= 500 else Verdict.NEUTRAL


def throttling(outcome: Outcome) -> bool:
    """Whether the target asks for less: also by OpenAI's token limit, though one request alone can be above that."""
    return outcome.kind is Kind.THROTTLED or (outcome.kind is Kind.AMBIGUOUS and outcome.status == 429)


def retryable(outcome: Outcome, spec: RetrySpec) -> bool:
    """
    Whether another try may help: nothing went downstream yet, and the policy lists the status, or nothing was sent, or
    another account may be better off.
    """
    if outcome.committed:
        return False
    again = TREATMENTS[outcome.kind].again
    if again in ("Listed", "Ambiguous"):
        return (outcome.like_status or outcome.status) in spec.codes
    return again in ("Unsent", "Elsewhere")


def final(outcome: Outcome) -> bool:
    """Another try would bring no other answer: it was served, if only to nobody, or fails for the request's fault."""
    if outcome.kind is Kind.CLIENT_GONE:
        return not outcome.error_code
    return outcome.kind in (Kind.SUCCESS, Kind.NON_RETRYABLE)


def weight_of(weight: Weight, spec: RetrySpec) -> int:
    """How much a retry takes out of the share of calls."""
    if weight == "Throttled":
        return spec.weights.throttled
    return spec.weights.timeout if weight == "Timeout" else spec.weights.transient


def hint_of(outcome: Outcome) -> float:
    """How long the provider asks to wait; nonsense (negative, NaN) counts as none."""
    asked = outcome.retry_after_seconds
    return asked if asked is not None and asked > 0 else 0.0
