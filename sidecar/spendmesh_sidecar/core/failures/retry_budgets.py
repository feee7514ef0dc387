"""The retry budgets of one sidecar, each of the kind that its scope wants."""

from __future__ import annotations

from collections.abc import Iterator

from spendmesh_sidecar.core.failures.retry_budget import RetryBudget, cost_interval_ms
from spendmesh_sidecar.core.failures.retry_share import SharedRetryBudget
from spendmesh_sidecar.core.policy_view import PolicyView
from spendmesh_sidecar.core.specs import RetrySpec


class RetryBudgets:
    """By policy name; they outlive policy swaps, or each edit would mint new retries."""

    def __init__(self) -> None:
        self._budgets: dict[str, RetryBudget] = {}

    def of(self, spec: RetrySpec) -> RetryBudget:
        """The budget of this name under `spec`. Counts are kept unless an interval or the scope changed."""
        budget = self._budgets.get(spec.name)
        if budget is not None and budget.spec is spec:
            return budget
        if budget is None or _kind(budget.spec) != _kind(spec):
            kind = SharedRetryBudget if spec.scope == "Cluster" else RetryBudget
            budget = self._budgets[spec.name] = kind(spec)
        else:
            budget.spec = spec
        return budget

    def shared(self, policy: PolicyView) -> Iterator[SharedRetryBudget]:
        """Those of a policy that are shares of a whole."""
        for spec in shared_specs(policy):
            budget = self.of(spec)
            assert isinstance(budget, SharedRetryBudget)
            yield budget


def shared_specs(policy: PolicyView) -> tuple[RetrySpec, ...]:
    """The effective RetryBudget and the observed one, where their scope is Cluster."""
    specs = (policy.retry, policy.observed_retry)
    return tuple(spec for spec in specs if spec is not None and spec.scope == "Cluster")


def _kind(spec: RetrySpec) -> tuple[str, int, int, int]:
    return spec.scope, spec.budget_interval_ms, spec.min_retry_interval_ms, cost_interval_ms(spec)
