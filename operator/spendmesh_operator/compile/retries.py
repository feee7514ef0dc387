"""RetryBudget to RetrySpec: taken whole from the most specific object, durations in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from spendmesh_operator.compile.attachment import Contest, Placed
from spendmesh_operator.manifests import RetryBudget
from spendmesh_operator.manifests.retrybudget import AdaptiveConcurrency, CircuitBreaker
from spendmesh_sidecar.core.specs import BreakerSpec, ConcurrencySpec, RetrySpec


def retry_specs(contested: Contest) -> tuple[RetrySpec, RetrySpec | None]:
    """The retry behavior of a class, and what is evaluated beside it. A lone Observe stands alone and does nothing."""
    enforced = contested.enforced[0] if contested.enforced else None
    observed = contested.observed[0] if contested.observed else None
    if enforced is not None:
        return _retry_spec(enforced), _retry_spec(observed) if observed is not None else None
    return (_retry_spec(observed) if observed is not None else RetrySpec()), None


def _retry_spec(placed: Placed) -> RetrySpec:
    budget = placed.manifest
    assert isinstance(budget, RetryBudget)
    spec = budget.spec
    constraint, retry = spec.retry_constraint, spec.retry
    return RetrySpec(
        name=placed.ref,
        mode=spec.mode,
        budget_percent=constraint.budget.percent,
        budget_interval_ms=_milliseconds(constraint.budget.interval),
        min_retry_count=constraint.min_retry_rate.count,
        min_retry_interval_ms=_milliseconds(constraint.min_retry_rate.interval),
        codes=tuple(sorted(retry.codes)),
        attempts=retry.attempts,
        backoff_ms=_milliseconds(retry.backoff),
        max_backoff_ms=_milliseconds(retry.max_backoff),
        breaker=_breaker_spec(spec.circuit_breaker),
        concurrency=_concurrency_spec(spec.adaptive_concurrency),
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


def features(spec: RetrySpec) -> Iterator[str]:
    """What a sidecar has to understand to obey this RetryBudget."""
    yield "retries/1"
    if spec.concurrency is not None or _newer(spec.breaker) != _newer(BreakerSpec()):
        yield "retries/2"


def _newer(breaker: BreakerSpec) -> tuple[object, ...]:
    """What sidecars that only know `retries/1` pass over; they refuse where every target is ejected, as `Deny` says."""
    rate = (breaker.failure_percent, breaker.failure_interval_ms, breaker.min_requests)
    return breaker.mode, rate, breaker.slow_first_byte_ms


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)
