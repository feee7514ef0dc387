"""What a RetryBudget says, as frozen data: how much is retried, when, how long all may take, and the breaker."""

from __future__ import annotations

from typing import Literal

from spendmesh_sidecar.core.spec_base import Mode, OperationName, Spec


class BreakerSpec(Spec, frozen=True, kw_only=True):
    """Ejection of one target (Envoy outlier detection names)."""

    mode: Literal["Enforce", "Observe", "ForcedOpen"] = "Enforce"
    """Observe: decides and counts, and every call goes through. ForcedOpen: no call goes through."""
    consecutive_5xx_errors: int = 5
    """0 switches ejection off, whatever the other fields say."""
    failure_percent: int = 50
    """Of the calls in `failure_interval_ms`; 0: the share ejects nothing."""
    failure_interval_ms: int = 30_000
    min_requests: int = 10
    """The share of fewer calls ejects nothing."""
    slow_first_byte_ms: int = 0
    """A streamed answer whose first byte takes longer counts as bad in the share; 0: none is slow."""
    base_ejection_ms: int = 5_000
    max_ejection_ms: int = 300_000
    on_all_ejected: Literal["Serve", "Deny"] = "Serve"
    """What becomes of a call whose every target is ejected: it goes to one of them all the same, or is refused."""


class ConcurrencySpec(Spec, frozen=True, kw_only=True):
    """Calls that one target gets at once, lowered by throttling and raised by success."""

    minimum: int = 1
    maximum: int = 100
    increase: int = 1
    """Added in each round trip of good calls."""
    decrease_percent: int = 10
    """Of what was in flight, taken off once in a round trip with throttling."""
    on_limit: Literal["Deny", "Serve"] = "Deny"
    """What becomes of a call that finds every target full: it is refused, or goes to one of them all the same."""


class WeightSpec(Spec, frozen=True, kw_only=True):
    """What a retry takes out of the share of calls, by the class of the failure before it; at least 1 each."""

    throttled: int = 1
    transient: int = 2
    timeout: int = 3


class RetryCostSpec(Spec, frozen=True, kw_only=True):
    """What the retries of one sidecar may cost in any stretch of `interval_ms`."""

    amount: int
    """Nano-units of `currency`."""
    currency: str
    interval_ms: int = 3_600_000


class ClusterShareSpec(Spec, frozen=True, kw_only=True):
    """How a share of a RetryBudget of scope Cluster is leased."""

    lease_ms: int = 15_000
    """How long a share lasts after it was asked for."""
    refresh_ms: int = 5_000
    """How often it is asked for anew."""
    on_lease_expired: Literal["Safe", "Deny"] = "Safe"
    """What a sidecar may retry whose share ran out: its part of the floor, or nothing."""


class TimeoutSpec(Spec, frozen=True, kw_only=True):
    """How long a call may take; 0: no such limit."""

    request_ms: int = 600_000
    """All tries and waits together, and the answer to its end."""
    attempt_ms: int = 0
    """One try: until its answer is whole, or for a stream until it begins."""
    first_byte_ms: int = 0
    """One try of a stream, until it begins."""
    stream_idle_ms: int = 0
    """Between two chunks of a stream."""


class OperationTimeouts(Spec, frozen=True, kw_only=True):
    """Limits of one operation, in place of the general ones."""

    operation: OperationName
    timeouts: TimeoutSpec


class DeduplicationSpec(Spec, frozen=True, kw_only=True):
    """Which calls get the answer of another one in place of an attempt of their own."""

    mode: Literal["Off", "ClientRetries", "IdempotencyKey", "All"] = "ClientRetries"
    """Retries that say they are (`x-stainless-retry-count`); those and calls with an equal `Idempotency-Key`; those and
    all equal calls."""
    window_ms: int = 600_000
    """How long an answer is kept after its end."""
    max_bytes: int = 4_194_304
    """Of all answers that one pod keeps, those in flight included."""


class RetrySpec(Spec, frozen=True, kw_only=True):
    """One RetryBudget, or the built-in defaults when none applies (`name` empty)."""

    name: str = ""
    mode: Mode = "Enforce"
    scope: Literal["Pod", "Cluster"] = "Pod"
    """Whether each sidecar has all of the budget, or all of them share it."""
    cluster: ClusterShareSpec = ClusterShareSpec()
    budget_percent: int = 10
    budget_interval_ms: int = 30_000
    min_retry_count: int = 1
    min_retry_interval_ms: int = 10_000
    max_retry_cost: RetryCostSpec | None = None
    """None: no bound in money beside the budgets."""
    deposit_on: Literal["Success", "Request"] = "Success"
    """What earns retries: calls that succeed, or all that are made."""
    weights: WeightSpec = WeightSpec()
    on_exhausted: Literal["PassThrough", "ServiceUnavailable"] = "PassThrough"
    """What the client gets where a retry is not paid for: the provider's last answer, or a 503 of ours."""
    codes: tuple[int, ...] = (408, 429, 500, 502, 503, 504, 529)
    attempts: int = 2
    """Retries after the first try (Gateway API meaning)."""
    ambiguous: Literal["Never", "Once", "AsRetryable"] = "Once"
    """How often a call is tried again that may have been served, or that fails for its own reasons."""
    backoff_ms: int = 500
    throttled_backoff_ms: int = 1_000
    """In place of `backoff_ms` where a provider throttles and does not say for how long."""
    max_backoff_ms: int = 20_000
    jitter: Literal["Full", "Equal", "Decorrelated", "None"] = "Full"
    max_wait_ms: int = 60_000
    """The longest that a provider's own hint is waited for."""
    unpaid_probe_ms: int = 300_000
    """How often one real call asks an account again that was out of money."""
    client_retries: Literal["Charge", "Count"] = "Charge"
    """Whether a retry that a client makes on its own is paid for like one of ours."""
    timeouts: TimeoutSpec = TimeoutSpec()
    operations: tuple[OperationTimeouts, ...] = ()
    breaker: BreakerSpec = BreakerSpec()
    concurrency: ConcurrencySpec | None = None
    """None: no bound."""
    deduplication: DeduplicationSpec = DeduplicationSpec()
