"""The policies that are compared: what a RetryBudget says, and how often clients retry beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spendmesh_sidecar.core.specs import BreakerSpec, RetrySpec, TimeoutSpec, WeightSpec

TIMEOUT_SECONDS: Final = 5.0
TIMEOUTS: Final = TimeoutSpec(attempt_ms=int(TIMEOUT_SECONDS * 1000))
NO_BREAKER: Final = BreakerSpec(consecutive_5xx_errors=0)
EQUAL: Final = WeightSpec(throttled=1, transient=1, timeout=1)
WITHOUT_LIMIT: Final = 10**9


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    name: str
    spec: RetrySpec
    client_retries: int = 0
    """Tries that a client makes anew after an error without saying so, and against `x-should-retry: false`."""


NAIVE: Final = RetrySpec(
    name="naive",
    attempts=3,
    min_retry_count=WITHOUT_LIMIT,
    min_retry_interval_ms=1_000,
    weights=EQUAL,
    ambiguous="AsRetryable",
    timeouts=TIMEOUTS,
    breaker=NO_BREAKER,
)
INDUSTRY: Final = RetrySpec(
    name="industry",
    attempts=3,
    budget_percent=20,
    budget_interval_ms=10_000,
    min_retry_count=10,
    min_retry_interval_ms=1_000,
    deposit_on="Request",
    weights=EQUAL,
    ambiguous="AsRetryable",
    timeouts=TIMEOUTS,
    breaker=NO_BREAKER,
)
OURS: Final = RetrySpec(name="ours", timeouts=TIMEOUTS)
DENYING: Final = RetrySpec(name="denying", timeouts=TIMEOUTS, breaker=BreakerSpec(on_all_ejected="Deny"))

SHARED: Final = RetrySpec(name="shared", scope="Cluster", timeouts=TIMEOUTS)
SHARED_DENYING: Final = RetrySpec(
    name="shared-denying", scope="Cluster", timeouts=TIMEOUTS, breaker=BreakerSpec(on_all_ejected="Deny")
)

ROWS: Final = (
    Row("none", "no retries", RetrySpec(name="none", attempts=0, timeouts=TIMEOUTS, breaker=NO_BREAKER)),
    Row("naive", "3 retries, full jitter", NAIVE),
    Row("stacked", "3 retries under an SDK's 2", NAIVE, client_retries=2),
    Row("industry", "20 % + 10/s per pod, deposit per request", INDUSTRY),
    Row("ours", "ours per pod: defaults", OURS),
    Row("under SDK", "ours per pod under an SDK's 2 that tell nothing", OURS, client_retries=2),
    Row("cluster", "ours, scope Cluster: defaults", SHARED),
    Row("breaker", "ours per pod + breaker that denies", DENYING),
    Row("cluster + breaker", "ours, scope Cluster + breaker that denies", SHARED_DENYING),
)
