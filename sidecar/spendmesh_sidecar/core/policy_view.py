"""What decisions read of a policy, so that `core` need not know the document that it comes in."""

from __future__ import annotations

from typing import Protocol

from spendmesh_sidecar.core.specs import BudgetSpec, ProviderSpec, RetrySpec, RoutingSpec


class PolicyView(Protocol):
    """What decisions read of a policy; `policy.Policy` is one."""

    @property
    def providers(self) -> tuple[ProviderSpec, ...]:
        """In the policy's order."""
        ...

    @property
    def routing(self) -> RoutingSpec | None:
        """The effective RoutingPolicy; one in Observe mode stands alone and forwards as asked."""
        ...

    @property
    def observed_routing(self) -> RoutingSpec | None:
        """Evaluated beside, changes nothing."""
        ...

    @property
    def budgets(self) -> tuple[BudgetSpec, ...]:
        """All that match."""
        ...

    @property
    def unbudgeted(self) -> str:
        """`Allow` or `Deny`."""
        ...

    @property
    def retry(self) -> RetrySpec:
        """The effective RetryBudget, or the defaults."""
        ...

    @property
    def observed_retry(self) -> RetrySpec | None:
        """Evaluated beside, changes nothing."""
        ...
