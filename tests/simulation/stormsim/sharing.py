"""One coordinator, and each pod's loop for its share of a RetryBudget of scope Cluster. No message is late or lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from exchange_driver import Driver, Pod
from spendmesh_operator.retries.shares import RetryShares
from spendmesh_sidecar.control.retry_shares import EARLY_SECONDS, JITTER, LOOK_SECONDS
from spendmesh_sidecar.core.failures.retry_share import SharedRetryBudget


@dataclass
class Holder:
    """When a pod asked and will ask; as `retry_shares.RetrySharing` keeps it."""

    uid: str
    budget: SharedRetryBudget
    asked_at: float = float("-inf")
    due_at: float = float("-inf")
    early: bool = False


@dataclass
class Sharing:
    """Keeps all pods of a fleet supplied."""

    fleet: Driver
    shares: RetryShares = field(default_factory=lambda: RetryShares(1, 0.0))

    def start(self) -> None:
        """Every pod begins to look at a moment of its own."""
        for number, pod in enumerate(self.fleet.pods):
            holder = Holder(f"pod-{number}", self._budget(pod))
            self.fleet.at(self.fleet.rng.random() * LOOK_SECONDS, self._look, holder)

    def _budget(self, pod: Pod) -> SharedRetryBudget:
        budget = pod.retry_budgets.of(self.fleet.policy.retry)
        assert isinstance(budget, SharedRetryBudget)
        return budget

    def _look(self, holder: Holder) -> None:
        now = self.fleet.now
        self.fleet.at(now + LOOK_SECONDS, self._look, holder)
        if now >= holder.due_at:
            holder.early = True
        elif holder.early and now >= holder.asked_at + EARLY_SECONDS and holder.budget.short:
            holder.early = False
        else:
            return
        spec = holder.budget.spec
        refresh_seconds = spec.cluster.refresh_ms / 1000
        holder.asked_at = now
        holder.due_at = now + refresh_seconds * (1 - JITTER + 2 * JITTER * self.fleet.rng.random())
        report = holder.budget.report(now)
        for grant in self.shares.ask({spec.name: spec}, holder.uid, holder.uid, (report,), now):
            holder.budget.heard(grant, now)
