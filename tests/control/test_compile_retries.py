"""What a RetryBudget says reaches the sidecar, field by field, and an older sidecar does not obey half of it."""

from __future__ import annotations

from typing import Any

import pytest

from compile_samples import compiled, made, pod, policy_of
from spendmesh_sidecar.core.specs import (
    BreakerSpec,
    ClusterShareSpec,
    OperationTimeouts,
    RetryCostSpec,
    RetrySpec,
    TimeoutSpec,
    WeightSpec,
)
from spendmesh_sidecar.policy import FEATURES, Policy


def retry_policy(**spec: Any) -> Policy:
    return policy_of(compiled(pod(), made("RetryBudget", "r", spec)))


EVERYTHING: dict[str, Any] = {
    "retryConstraint": {
        "budget": {"percent": 20, "interval": "10s"},
        "minRetryRate": {"count": 2, "interval": "5s"},
        "maxRetryCost": {"amount": "0.50", "currency": "EUR", "interval": "2h"},
    },
    "depositOn": "Request",
    "weights": {"throttled": 2, "transient": 3, "timeout": 4},
    "onExhausted": "ServiceUnavailable",
    "retry": {
        "codes": [503, 429],
        "attempts": 3,
        "ambiguous": "Never",
        "backoff": "200ms",
        "throttledBackoff": "2s",
        "maxBackoff": "10s",
        "jitter": "Equal",
        "retryAfter": {"maxWait": "30s"},
        "unpaidProbeInterval": "1m",
    },
    "timeouts": {"request": "120s", "backendRequest": "60s", "firstByte": "30s", "streamIdle": "20s"},
    "perOperation": [{"operation": "Embeddings", "timeouts": {"request": "30s", "backendRequest": "10s"}}],
    "clientRetries": "Count",
    "circuitBreaker": {"consecutive5xxErrors": 7, "baseEjectionTime": "2s", "maxEjectionTime": "2m"},
}


def test_every_field_reaches_the_sidecar() -> None:
    spec = retry_policy(**EVERYTHING).retry
    assert spec == RetrySpec(
        name="team-a/r",
        budget_percent=20,
        budget_interval_ms=10_000,
        min_retry_count=2,
        min_retry_interval_ms=5_000,
        max_retry_cost=RetryCostSpec(amount=500_000_000, currency="EUR", interval_ms=7_200_000),
        deposit_on="Request",
        weights=WeightSpec(throttled=2, transient=3, timeout=4),
        on_exhausted="ServiceUnavailable",
        codes=(429, 503),
        attempts=3,
        ambiguous="Never",
        backoff_ms=200,
        throttled_backoff_ms=2_000,
        max_backoff_ms=10_000,
        jitter="Equal",
        max_wait_ms=30_000,
        unpaid_probe_ms=60_000,
        client_retries="Count",
        timeouts=TimeoutSpec(request_ms=120_000, attempt_ms=60_000, first_byte_ms=30_000, stream_idle_ms=20_000),
        operations=(
            OperationTimeouts(
                operation="embeddings",
                timeouts=TimeoutSpec(request_ms=30_000, attempt_ms=10_000, first_byte_ms=30_000, stream_idle_ms=20_000),
            ),
        ),
        breaker=BreakerSpec(consecutive_5xx_errors=7, base_ejection_ms=2_000, max_ejection_ms=120_000),
    )


def test_an_empty_retry_budget_is_the_built_in_default_by_another_name() -> None:
    """What the documentation calls the default is the same with and without an object."""
    assert retry_policy().retry == RetrySpec(name="team-a/r")


@pytest.mark.parametrize(
    ("spec", "newer"),
    [
        ({}, False),
        ({"retry": {"attempts": 4}, "circuitBreaker": {"consecutive5xxErrors": 1}}, False),
        *[({field: EVERYTHING[field]}, True) for field in ("depositOn", "weights", "timeouts", "perOperation")],
        ({"retry": {"jitter": "Equal"}}, True),
    ],
)
def test_an_older_sidecar_refuses_what_it_would_not_obey(spec: dict[str, Any], newer: bool) -> None:
    """Contract §3: a policy names the features that it needs."""
    requires = retry_policy(**spec).requires
    assert "retries/1" in requires and ("retries/2" in requires) is newer
    assert set(requires) <= FEATURES


def test_an_observed_one_beside_it_is_understood_too() -> None:
    observed = made("RetryBudget", "o", {"mode": "Observe", "weights": {"timeout": 9}}, day=2)
    policy = policy_of(compiled(pod(), made("RetryBudget", "r", {}), observed))
    assert policy.observed_retry is not None and policy.observed_retry.weights.timeout == 9
    assert "retries/2" in policy.requires


def test_a_shared_budget_is_refused_by_sidecars_that_would_keep_it_for_themselves() -> None:
    """Each would retry as much as all may together. A plain one asks for nothing new."""
    cluster = {"leaseDuration": "20s", "refreshInterval": "4s", "onLeaseExpired": "Deny"}
    policy = retry_policy(scope="Cluster", cluster=cluster)
    assert policy.retry.scope == "Cluster"
    assert policy.retry.cluster == ClusterShareSpec(lease_ms=20_000, refresh_ms=4_000, on_lease_expired="Deny")
    assert policy.requires == ("retries/1", "retry-scope/1")
    assert retry_policy(scope="Cluster").retry.cluster == ClusterShareSpec()
    assert "retry-scope/1" not in retry_policy().requires
