"""RetryBudget to RetrySpec: taken whole from the most specific object, durations in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from spendmesh_operator.compile.attachment import Contest, Placed
from spendmesh_operator.manifests import RetryBudget, nanos
from spendmesh_operator.manifests.retrybudget import (
    AdaptiveConcurrency,
    CircuitBreaker,
    Deduplication,
    Operation,
    Timeouts,
)
from spendmesh_operator.manifests.retryconstraint import ClusterShare, MaxRetryCost
from spendmesh_sidecar.core.specs import (
    BreakerSpec,
    ClusterShareSpec,
    ConcurrencySpec,
    DeduplicationSpec,
    OperationName,
    OperationTimeouts,
    RetryCostSpec,
    RetrySpec,
    TimeoutSpec,
    WeightSpec,
)

_OPERATIONS: dict[Operation, OperationName] = {
    "Chat": "chat",
    "Embeddings": "embeddings",
    "Messages": "messages",
    "CountTokens": "count_tokens",
    "Models": "models",
}
_FIRST = frozenset(
    {
        "name",
        "mode",
        "budget_percent",
        "budget_interval_ms",
        "min_retry_count",
        "min_retry_interval_ms",
        "codes",
        "attempts",
        "backoff_ms",
        "max_backoff_ms",
        "breaker",
        "scope",
        "cluster",
    }
)
"""What sidecars have always understood, and what has a feature of its own; of the breaker see `_newer`."""


def retry_specs(contested: Contest) -> tuple[RetrySpec, RetrySpec | None]:
    """The retry behavior of a class, and what is evaluated beside it. A lone Observe stands alone and does nothing."""
    enforced = contested.enforced[0] if contested.enforced else None
    observed = contested.observed[0] if contested.observed else None
    if enforced is not None:
        return _retry_spec(enforced), _retry_spec(observed) if observed is not None else None
    return (_retry_spec(observed) if observed is not None else RetrySpec()), None


def features(*specs: RetrySpec | None) -> Iterator[str]:
    """What a sidecar has to understand to obey these; none is for the defaults."""
    named = [spec for spec in specs if spec is not None and spec.name]
    if named:
        yield "retries/1"
    defaults = RetrySpec()
    newer = [name for name in RetrySpec.__struct_fields__ if name not in _FIRST and name != "deduplication"]
    if any(
        _newer(spec.breaker) != _newer(defaults.breaker)
        or any(getattr(spec, name) != getattr(defaults, name) for name in newer)
        for spec in named
    ):
        yield "retries/2"
    if any(spec.deduplication.mode != "Off" and spec.deduplication != defaults.deduplication for spec in named):
        yield "deduplication/1"  # without it, a sidecar joins nothing: as Off says, and dearer than the default only
    if any(spec.scope == "Cluster" for spec in named):
        yield "retry-scope/1"


def _retry_spec(placed: Placed) -> RetrySpec:
    budget = placed.manifest
    assert isinstance(budget, RetryBudget)
    spec = budget.spec
    constraint, retry, weights = spec.retry_constraint, spec.retry, spec.weights
    return RetrySpec(
        name=placed.ref,
        mode=spec.mode,
        scope=spec.scope,
        cluster=_cluster(spec.cluster),
        budget_percent=constraint.budget.percent,
        budget_interval_ms=_milliseconds(constraint.budget.interval),
        min_retry_count=constraint.min_retry_rate.count,
        min_retry_interval_ms=_milliseconds(constraint.min_retry_rate.interval),
        max_retry_cost=_retry_cost(constraint.max_retry_cost),
        deposit_on=spec.deposit_on,
        weights=WeightSpec(throttled=weights.throttled, transient=weights.transient, timeout=weights.timeout),
        on_exhausted=spec.on_exhausted,
        codes=tuple(sorted(retry.codes)),
        attempts=retry.attempts,
        ambiguous=retry.ambiguous,
        backoff_ms=_milliseconds(retry.backoff),
        throttled_backoff_ms=_milliseconds(retry.throttled_backoff),
        max_backoff_ms=_milliseconds(retry.max_backoff),
        jitter=retry.jitter,
        max_wait_ms=_milliseconds(retry.retry_after.max_wait),
        unpaid_probe_ms=_milliseconds(retry.unpaid_probe_interval),
        client_retries=spec.client_retries,
        timeouts=_timeouts(spec.timeouts, TimeoutSpec()),
        operations=tuple(
            OperationTimeouts(
                operation=_OPERATIONS[special.operation],
                timeouts=_timeouts(special.timeouts, _timeouts(spec.timeouts, TimeoutSpec())),
            )
            for special in sorted(spec.per_operation, key=lambda special: special.operation)
        ),
        breaker=_breaker_spec(spec.circuit_breaker),
        concurrency=_concurrency_spec(spec.adaptive_concurrency),
        deduplication=_deduplication_spec(spec.deduplication),
    )


def _retry_cost(most: MaxRetryCost | None) -> RetryCostSpec | None:
    if most is None:
        return None
    return RetryCostSpec(amount=nanos(most.amount), currency=most.currency, interval_ms=_milliseconds(most.interval))


def _cluster(cluster: ClusterShare | None) -> ClusterShareSpec:
    if cluster is None:
        return ClusterShareSpec()
    return ClusterShareSpec(
        lease_ms=_milliseconds(cluster.lease_duration),
        refresh_ms=_milliseconds(cluster.refresh_interval),
        on_lease_expired=cluster.on_lease_expired,
    )


def _timeouts(limits: Timeouts, otherwise: TimeoutSpec) -> TimeoutSpec:
    """The limits, each with what it is where it is absent."""

    def chosen(length: timedelta | None, without: int) -> int:
        return without if length is None else _milliseconds(length)

    return TimeoutSpec(
        request_ms=chosen(limits.request, otherwise.request_ms),
        attempt_ms=chosen(limits.backend_request, otherwise.attempt_ms),
        first_byte_ms=chosen(limits.first_byte, otherwise.first_byte_ms),
        stream_idle_ms=chosen(limits.stream_idle, otherwise.stream_idle_ms),
    )


def _breaker_spec(breaker: CircuitBreaker) -> BreakerSpec:
    rate = breaker.failure_rate
    return BreakerSpec(
        mode=breaker.mode,
        consecutive_5xx_errors=breaker.consecutive_5xx_errors,
        failure_percent=rate.percent,
        failure_interval_ms=_milliseconds(rate.interval),
        min_requests=rate.min_requests,
        slow_first_byte_ms=_milliseconds(rate.slow_first_byte) if rate.slow_first_byte is not None else 0,
        base_ejection_ms=_milliseconds(breaker.base_ejection_time),
        max_ejection_ms=_milliseconds(breaker.max_ejection_time),
        on_all_ejected=breaker.on_all_ejected,
    )


def _concurrency_spec(limits: AdaptiveConcurrency | None) -> ConcurrencySpec | None:
    if limits is None:
        return None
    return ConcurrencySpec(
        minimum=limits.minimum,
        maximum=limits.maximum,
        increase=limits.increase,
        decrease_percent=limits.decrease_percent,
        on_limit=limits.on_limit,
    )


def _deduplication_spec(rules: Deduplication) -> DeduplicationSpec:
    return DeduplicationSpec(mode=rules.mode, window_ms=_milliseconds(rules.window), max_bytes=rules.max_bytes)


def _newer(breaker: BreakerSpec) -> tuple[object, ...]:
    """What sidecars that only know `retries/1` pass over; they refuse where every target is ejected, as `Deny` says."""
    rate = (breaker.failure_percent, breaker.failure_interval_ms, breaker.min_requests)
    return breaker.mode, rate, breaker.slow_first_byte_ms


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)
