"""Ten pods share one RetryBudget through two minutes with a storm in them, while the leading replica is killed -9."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from cluster_access import eventually
from cluster_books import Account, settled_at
from cluster_mesh import SYSTEM, App, Mesh

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
NAMESPACE = "shared-storm"
PODS, CALLS, WORKERS = 10, 180, 2
STORM = (30, 90)
"""Seconds after the beginning; half of all attempts fail in it, and are billed."""
PERCENT, INTERVAL_SECONDS, LEASE_SECONDS = 10, 30, 10
FLOOR = 6
"""Retries of all pods together in one interval, whatever succeeds."""
RETRIES: Json = {
    "apiVersion": "spendmesh.io/v1alpha1",
    "kind": "RetryBudget",
    "metadata": {"name": "shared", "namespace": NAMESPACE},
    "spec": {
        "scope": "Cluster",
        "cluster": {"leaseDuration": f"{LEASE_SECONDS}s", "refreshInterval": "3s", "onLeaseExpired": "Safe"},
        "retryConstraint": {
            "budget": {"percent": PERCENT, "interval": f"{INTERVAL_SECONDS}s"},
            "minRetryRate": {"count": FLOOR, "interval": f"{INTERVAL_SECONDS}s"},
        },
        "retry": {"codes": [503], "attempts": 2, "backoff": "50ms", "maxBackoff": "1s"},
        "circuitBreaker": {"consecutive5xxErrors": 0},
    },
}
CALL: Json = {
    "model": "auto",
    "max_tokens": 32,
    "messages": [{"role": "user", "content": "How much? [[in=100]] [[out=20]] " + "x" * 100}],
}


@dataclass(frozen=True)
class Storm:
    """What came of it."""

    outcomes: list[Json]
    lines: list[Json]
    """The provider's invoice: one for each attempt, in order."""
    old_leader: str
    retries: int
    """By the sidecars' own count."""
    denied: int
    books: Account
    last: list[Json]
    """One call of each pod, after all others."""


@pytest.fixture(scope="module")
def storm(mesh: Mesh) -> Storm:
    """All pods call for some two minutes; the leader dies in the middle of the storm."""
    mesh.namespace(NAMESPACE)
    mesh.policies(NAMESPACE, budget="5")
    mesh.cluster.apply(json.dumps(RETRIES))
    apps = mesh.start_apps(NAMESPACE, [f"caller-{number}" for number in range(PODS)], timeout_seconds=240)
    old = mesh.ready_leader()
    eventually(lambda: sum(app.metric("spendmesh_retry_share_leased") for app in apps) == PODS, "shares are leased", 60)
    mesh.faults(
        {"action": "slow", "account": NAMESPACE, "ttft_seconds": 1.0},  # else ten SDKs starve a small node
        {"action": "status", "account": NAMESPACE, "status": 503, "probability": 0.5, "bill": "full", "between": STORM},
    )
    jobs = [app.start_job("chat", count=CALLS, workers=WORKERS, **CALL) for app in apps]
    eventually(lambda: _failed(mesh) >= 3 * PODS, "the storm is on", 120, 2)
    mesh.keep_operator_logs()
    if mesh.cluster.node is not None:
        mesh.cluster.kill_container(SYSTEM, old, "operator")
    mesh.cluster.kubectl("-n", SYSTEM, "delete", "pod", old, "--grace-period=0", "--force", "--wait=false")
    outcomes = [outcome for job in jobs for outcome in job.finish(240)]
    last = [app.call("chat", **CALL) for app in apps]
    mesh.faults()
    lines = sorted(mesh.invoice(NAMESPACE), key=lambda line: line["time"])
    invoice = sum(line["cost_nanos"] for line in lines)
    return Storm(
        outcomes,
        lines,
        old,
        _total(apps, "spendmesh_retries_total"),
        _total(apps, "spendmesh_retry_denied_total"),
        settled_at(mesh.cluster, f"{NAMESPACE}/pool", "total", invoice),
        last,
    )


def _failed(mesh: Mesh) -> int:
    return sum(line["status"] == 503 for line in mesh.invoice(NAMESPACE))


def _total(apps: list[App], metric: str) -> int:
    return sum(app.metric(metric) for app in apps)


def _seconds(line: Json) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def _capacity(lines: list[Json]) -> float:
    """The most that C can have been: pods report up to a lease apart what succeeded in their last interval."""
    served = [_seconds(line) for line in lines if line["status"] == 200]
    window = INTERVAL_SECONDS * 1.1 + LEASE_SECONDS  # sidecars count in tenths of the interval
    most = max(sum(at <= each < at + window for each in served) for at in served)
    return most * PERCENT / 100 + FLOOR


def test_every_call_has_one_clear_outcome(storm: Storm) -> None:
    """Its answer, or the provider's own error with why it was not tried again; the leader's death is not heard of."""
    assert Counter(outcome.get("ended") for outcome in storm.outcomes).keys() <= {"ok", "refused"}
    assert {outcome["status"] for outcome in storm.outcomes} == {200, 503}
    failed = [outcome["headers"] for outcome in storm.outcomes if outcome["status"] == 503]
    assert {headers.get("x-spendmesh-error", "") for headers in failed} == {""}
    assert {headers["x-spendmesh-retry-denied"] for headers in failed} <= {"budget", "attempts"}
    assert {headers["x-should-retry"] for headers in failed} == {"false"}


def test_all_pods_together_retry_within_the_stated_bound(
    storm: Storm, mesh: Mesh, show: Callable[[str, str], None]
) -> None:
    """Counted by the provider: attempts beyond calls. One capacity for each interval, and once more for the change of
    leaders with its safe shares."""
    calls = len(storm.outcomes) + len(storm.last)
    retries = len(storm.lines) - calls
    capacity = _capacity(storm.lines)
    failures = [_seconds(line) for line in storm.lines if line["status"] == 503]
    intervals = int((failures[-1] - failures[0]) // INTERVAL_SECONDS) + 1
    bound = intervals * capacity + capacity + FLOOR
    recovered = [each for each in storm.outcomes if each["status"] == 200 and _attempts(each) > 1]
    show(
        f"a storm over {PODS} pods with one RetryBudget of scope Cluster, the leader killed",
        f"calls {calls}, attempts {len(storm.lines)}, failed attempts {len(failures)}, retries {retries} <= bound "
        f"{bound:.0f} (C at most {capacity:.0f} in {INTERVAL_SECONDS} s, {intervals} intervals), not paid for "
        f"{storm.denied}, recovered {len(recovered)}",
    )
    assert 0 < retries <= bound
    assert retries == storm.retries, "sidecars and provider count the same"
    assert recovered
    assert storm.denied > 0, "more failed than may be retried"
    assert eventually(lambda: mesh.leader() not in ("", storm.old_leader), "another replica leads", 40)


def test_all_is_well_again_after_the_storm(storm: Storm, mesh: Mesh) -> None:
    """No call fails that was sent after it, and the new leader has learned of every pod and says so."""
    assert {(outcome["status"], _attempts(outcome)) for outcome in storm.last} == {(200, 1)}
    assert storm.lines[-1]["status"] == 200

    def shared() -> bool:
        status = mesh.cluster.get("retrybudget", "shared", "-n", NAMESPACE).get("status", {}).get("cluster", {})
        return status.get("members") == PODS and "learningUntil" not in status

    assert eventually(shared, "the new leader divides the budget among all pods", 90)


def test_the_books_hold_what_was_billed(storm: Storm) -> None:
    """Failed attempts were billed too."""
    invoice = sum(line["cost_nanos"] for line in storm.lines)
    assert any(line["cost_nanos"] for line in storm.lines if line["status"] == 503)
    assert invoice <= storm.books.ledger <= storm.books.amount


def _attempts(outcome: Json) -> int:
    return int(outcome["headers"]["x-spendmesh-attempts"])
