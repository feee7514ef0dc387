"""RetryBudget to RetrySpec: taken whole from the most specific object, durations in milliseconds."""

from __future__ import annotations

from datetime import timedelta

from spendmesh_operator.compile.attachment import Contest, Placed
from spendmesh_operator.manifests import RetryBudget
from spendmesh_sidecar.core.specs import BreakerSpec, RetrySpec


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
    constraint, retry, breaker = spec.retry_constraint, spec.retry, spec.circuit_breaker
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
        breaker=BreakerSpec(
            consecutive_5xx_errors=breaker.consecutive_5xx_errors,
            base_ejection_ms=_milliseconds(breaker.base_ejection_time),
            max_ejection_ms=_milliseconds(breaker.max_ejection_time),
        ),
    )


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)
