"""Prometheus metrics of the operator: budgets, shared retries, policies (contract §5). Labels: never a user value."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from spendmesh_operator.control.sightings import HOW, Troubles
from spendmesh_operator.ledger.books.milestones import standing
from spendmesh_operator.ledger.books.views import AccountView
from spendmesh_operator.retries.pool import PoolView
from spendmesh_sidecar.core.failures.retry_grants import FULL_RETRY


class ControlMetrics:
    """Gauges and counters in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        account = ["budget", "limit", "unit", "currency"]
        self.used_ratio = Gauge(
            "spendmesh_budget_used_ratio", "Settled spend over the limit's amount.", account, registry=registry
        )
        self.held = Gauge(
            "spendmesh_budget_held", "Rights in the hands of sidecars, in the unit.", account, registry=registry
        )
        self.quarantined = Gauge(
            "spendmesh_budget_quarantined",
            "Rights of silent or frozen holders, in the unit.",
            account,
            registry=registry,
        )
        self.overrun = Gauge(
            "spendmesh_budget_overrun", "Billed beyond reservations, in the unit.", account, registry=registry
        )
        self.milestones = Gauge(
            "spendmesh_budget_milestone",
            "While it stands: 1, or of how many values of a divided limit. A percentage of the limit that was reached, "
            "or too much in quarantine.",
            [*account, "milestone"],
            registry=registry,
        )
        self.policy_pods = Gauge(
            "spendmesh_policy_pods", "Pods by what they did with their policy.", ["state"], registry=registry
        )
        self.unpaid_pods = Gauge(
            "spendmesh_account_unpaid_pods",
            "Pods whose sidecars say that a ModelProvider's account is out of money.",
            ["provider"],
            registry=registry,
        )
        self.retrying_pods = Gauge(
            "spendmesh_client_retrying_pods",
            "Pods whose clients retry on their own, by whether they say so.",
            ["how"],
            registry=registry,
        )
        self.streams = Gauge("spendmesh_policy_streams", "Open policy streams of this replica.", registry=registry)
        self.commits = Counter(
            "spendmesh_ledger_commits", "Writes of the books by result.", ["result"], registry=registry
        )

        shared = ["budget"]
        self.retry_members = Gauge(
            "spendmesh_retry_members", "Sidecars that share a RetryBudget of scope Cluster.", shared, registry=registry
        )
        self.retry_capacity = Gauge(
            "spendmesh_retry_capacity", "Retries that they may make together in an interval.", shared, registry=registry
        )
        self.retry_granted = Gauge(
            "spendmesh_retry_granted", "Part of that which is in their hands.", shared, registry=registry
        )
        self.retry_learning = Gauge(
            "spendmesh_retry_learning_seconds",
            "How long shares that another leader granted may still be about.",
            shared,
            registry=registry,
        )

    def committed(self, result: str) -> None:
        """One write of the books: ok, conflict or unavailable. Give this to the coordinator."""
        self.commits.labels(result).inc()

    def show_accounts(self, views: Iterable[AccountView]) -> None:
        """
        Show the running accounts; those that ended disappear.

        Accounts of a divided limit are added up under it: their values are not labels.
        """
        self.milestones.clear()
        sums: dict[tuple[str, str, str, str], list[int]] = {}
        for view in views:
            labels: tuple[str, str, str, str] = (view.key.budget, view.key.limit, view.limit.unit, view.limit.currency)
            for milestone in standing(view.milestones, view.limit):
                self.milestones.labels(*labels, milestone).inc()
            total = sums.setdefault(labels, [0, 0, 0, 0, 0])
            parts = (view.state.settled, view.state.amount, view.held, view.quarantined, view.overrun)
            for position, value in enumerate(parts):
                total[position] += value
        for gauge in (self.used_ratio, self.held, self.quarantined, self.overrun):
            gauge.clear()
        for labels, (settled, amount, held, quarantined, overrun) in sums.items():
            self.used_ratio.labels(*labels).set(settled / amount if amount else 1.0)
            self.held.labels(*labels).set(held)
            self.quarantined.labels(*labels).set(quarantined)
            self.overrun.labels(*labels).set(overrun)

    def show_retries(self, pools: Iterable[PoolView]) -> None:
        """Show the shared retry budgets; those that nobody asks about any more disappear."""
        for gauge in (self.retry_members, self.retry_capacity, self.retry_granted, self.retry_learning):
            gauge.clear()
        for pool in pools:
            self.retry_members.labels(pool.name).set(pool.members)
            self.retry_capacity.labels(pool.name).set(pool.capacity / FULL_RETRY)
            self.retry_granted.labels(pool.name).set(pool.granted / FULL_RETRY)
            self.retry_learning.labels(pool.name).set(pool.learning_seconds)

    def show_troubles(self, troubles: Troubles) -> None:
        """What only sidecars see; what nobody says any more disappears."""
        self.unpaid_pods.clear()
        for provider, pods in troubles.unpaid.items():
            self.unpaid_pods.labels(provider).set(len(pods))
        for how in HOW:
            self.retrying_pods.labels(how).set(sum(how in ways for ways in troubles.client_retries.values()))

    def show_pods(self, programmed: int, refused: int) -> None:
        """How many pods obey their policy, and how many refused it."""
        self.policy_pods.labels("programmed").set(programmed)
        self.policy_pods.labels("refused").set(refused)
