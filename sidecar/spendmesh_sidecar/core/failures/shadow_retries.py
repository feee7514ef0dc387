"""
What a RetryBudget in mode Observe would have done, beside the one that acts: counted, and nothing else.

It judges each failure that there was, with a budget of its own; what would have become of retries that were not made,
nobody knows.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from spendmesh_sidecar.core.admission import Priced
from spendmesh_sidecar.core.failures.error_classes import TREATMENTS
from spendmesh_sidecar.core.failures.retry_budget import RetryBudget
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.failures.retry_rules import retryable, weight_of
from spendmesh_sidecar.core.ledger.reservation import WorstCost
from spendmesh_sidecar.core.policy_view import PolicyView
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.core.types import Kind, Outcome

Shadow = Literal["retry", "never", "budget", "cost", "attempts", "ambiguous"]


class ShadowRetries(Struct, gc=False):
    """The observed policy's view of one call."""

    spec: RetrySpec
    budget: RetryBudget
    first_of_client: bool
    decisions: list[Shadow] = []
    """One for each failure so far."""
    _ambiguous: bool = False

    def observe(self, outcome: Outcome, number: int, priced: Priced, now: float, worst_cost: WorstCost) -> None:
        """Try `number` at a target ended so."""
        served = outcome.kind is Kind.SUCCESS
        if self.first_of_client and (served if self.spec.deposit_on == "Success" else number == 1):
            self.budget.deposit(now)
        if not served:
            self.decisions.append(self._judge(outcome, number, priced, now, worst_cost))

    def _judge(self, outcome: Outcome, number: int, priced: Priced, now: float, worst_cost: WorstCost) -> Shadow:
        spec, treatment = self.spec, TREATMENTS[outcome.kind]
        if not retryable(outcome, spec):
            return "never"
        if number > spec.attempts:
            return "attempts"
        if treatment.again == "Ambiguous" and spec.ambiguous != "AsRetryable":
            if self._ambiguous or spec.ambiguous == "Never":
                return "ambiguous"
            self._ambiguous = True
        paid = self.budget.pay(now, weight_of(treatment.weight, spec), lambda: worst_cost(priced))
        return paid if isinstance(paid, str) else "retry"


def shadow_of(policy: PolicyView, budgets: RetryBudgets, client_retry: int) -> ShadowRetries | None:
    """The observed RetryBudget for one call; None: there is none. One that stands alone is only observed too."""
    alone = policy.retry if policy.retry.mode == "Observe" else None
    observed = policy.observed_retry or alone
    return ShadowRetries(observed, budgets.of(observed), client_retry == 0) if observed is not None else None
