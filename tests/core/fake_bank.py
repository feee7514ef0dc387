"""
A coordinator in thirty lines of rules: grants what is left of each limit, all or nothing, and keeps the books.

It follows the protocol (contract §4), not our coordinator's code: tests of the sidecar's core stand on their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import (
    AccountRef,
    AccountState,
    Denial,
    Lease,
    LeaseReport,
    LeaseState,
    Want,
)
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec

HOUR_MS = 3_600_000


@dataclass
class Held:
    """One holder's lease on one account."""

    id: str
    granted: int = 0
    released: int = 0
    used: int = 0
    closed: bool = False

    @property
    def charged(self) -> int:
        return self.used if self.closed else max(self.used, self.granted - self.released)


@dataclass
class Bank:
    """The books on every limit. `away` answers nothing; `reasons` overrides the reason of a denial."""

    budgets: tuple[BudgetSpec, ...]
    away: bool = False
    reasons: dict[AccountRef, str] = field(default_factory=dict)
    leases: dict[tuple[AccountRef, str], Held] = field(default_factory=dict)
    acquires: int = 0
    share: int = 2
    """What is useful is granted up to this fraction of what is left; 0: only what is needed."""

    def tell(self, now: float) -> None:
        """The time; this bank has one period that never ends."""

    def limit(self, account: AccountRef) -> tuple[BudgetSpec, LimitSpec] | None:
        for budget in self.budgets:
            for limit in budget.limits:
                if (budget.name, limit.name) == (account.budget, account.limit):
                    return budget, limit
        return None

    def charged(self, account: AccountRef) -> int:
        return sum(held.charged for (ref, _), held in self.leases.items() if ref == account)

    def settled(self, account: AccountRef) -> int:
        return sum(held.used for (ref, _), held in self.leases.items() if ref == account)

    def state(self, account: AccountRef) -> AccountState | None:
        found = self.limit(account)
        if found is None:
            return None
        budget, limit = found
        settled = self.settled(account)
        crossed = [step for step in limit.thresholds if settled * 100 >= step.percent * limit.amount]
        return AccountState(
            amount=limit.amount,
            settled=settled,
            charged=self.charged(account),
            max_tier=next((step.max_tier for step in reversed(crossed) if step.max_tier), ""),
            crossed_percent=crossed[-1].percent if crossed else 0,
            resets_in_ms=HOUR_MS,
            observed=budget.mode == "Observe",
        )

    def acquire(self, nonce: str, wants: tuple[Want, ...]) -> tuple[tuple[Lease, ...], tuple[Denial, ...]]:
        """Leases for all wants, or denials and no new right."""
        self.acquires += 1
        denials = tuple(denial for want in wants if (denial := self._denial(want)) is not None)
        if denials:
            return (), denials
        return tuple(self._grant(nonce, want) for want in wants), ()

    def _denial(self, want: Want) -> Denial | None:
        found = self.limit(want.account)
        if found is None:
            return Denial(account=want.account, reason="unknown")
        state = self.state(want.account)
        if reason := self.reasons.get(want.account):
            return Denial(account=want.account, reason=reason, state=state)  # type: ignore[arg-type]
        left = found[1].amount - self.charged(want.account)
        if found[0].mode == "Observe" or want.need <= left:
            return None
        settled_left = found[1].amount - self.settled(want.account)
        whole = want.need > found[1].amount
        reason = "too_large" if whole else "exhausted" if want.need > settled_left else "in_flight"
        return Denial(account=want.account, reason=reason, state=state)  # type: ignore[arg-type]

    def _grant(self, nonce: str, want: Want) -> Lease:
        found = self.limit(want.account)
        assert found is not None
        _, limit = found
        left = limit.amount - self.charged(want.account)
        useful = min(want.want, left // self.share) if self.share else 0
        name = "/".join((want.account.budget, want.account.limit, *want.account.per, nonce))
        held = self.leases.setdefault((want.account, nonce), Held(name))
        if not held.closed:
            held.granted += max(0, min(max(want.need, useful), left))
        state = self.state(want.account)
        assert state is not None
        return Lease(
            id=held.id,
            nonce=nonce,
            account=want.account,
            unit=limit.unit,
            currency=limit.currency,
            granted=held.granted,
            ends_in_ms=HOUR_MS,
            state=state,
        )

    def report(self, nonce: str, reports: tuple[LeaseReport, ...]) -> tuple[LeaseState, ...]:
        """Merge by maximum; a closed lease frees what was not used."""
        answers: list[LeaseState] = []
        own = {held.id: (account, held) for (account, holder), held in self.leases.items() if holder == nonce}
        for report in reports:
            account, held = own[report.lease]
            held.used = max(held.used, report.used)
            held.released = max(held.released, report.released)
            held.closed = held.closed or report.closed
            answers.append(LeaseState(lease=report.lease, sequence=report.sequence, state=self.state(account)))
        return tuple(answers)

    def sync(self, ledger: Ledger, now: float) -> None:
        """One round of reports with everything that arrives."""
        ledger.acknowledged(self.report(ledger.nonce, ledger.reports(now)), now)
