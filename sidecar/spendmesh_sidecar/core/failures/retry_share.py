"""
A retry budget whose size comes from the coordinator: one pod's share of what all pods of a RetryBudget may retry.

Spends and reports; how much each pod gets is the operator's (`spendmesh_operator.retries`). Nothing here waits for a
share, and a first try is never charged. The bound in money (`max_retry_cost`) stays each sidecar's own.
"""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.failures.retry_budget import SLOTS, RetryBudget, Withdrawal, bounding
from spendmesh_sidecar.core.failures.retry_grants import FULL_RETRY, ShareGrant, ShareReport
from spendmesh_sidecar.core.specs import RetrySpec


class HeldShare(Struct, frozen=True):
    """The newest grant, in the sidecar's own time."""

    epoch: int = 0
    number: int = 0
    share: int = 0
    safe: int = 0
    expires_at: float = 0.0


class SharedRetryBudget(RetryBudget):
    """
    Withdrawals of any interval stay within the share that was last heard of, and within the safe share once that ran
    out (`onLeaseExpired: Safe`) or at nothing (`Deny`). Before the first answer nothing is held and nothing is paid.

    A retry needs one whole retry of what is left and takes its weight out of it, as far as that is there: a share
    smaller than a failure's weight would else never be spent.
    """

    def __init__(self, spec: RetrySpec) -> None:
        super().__init__(spec)
        self.held = HeldShare()
        self.short = False
        """A retry was not paid since the last report, because the share is used up: worth asking early."""
        self._spent = bounding(spec.budget_interval_ms)
        self._asked = 0
        self._asked_since: float | None = None
        self._wants = 0
        self._sequence = 0

    # --- spending ---------------------------------------------------------------------------------------------

    def limit(self, now: float) -> int:
        """Hundredths of a retry that any interval may take now."""
        if self.leased(now):
            return self.held.share
        return self.held.safe if self.spec.cluster.on_lease_expired == "Safe" else 0

    def leased(self, now: float) -> bool:
        """Whether the share has not run out."""
        return now < self.held.expires_at

    def balance(self, now: float) -> int:
        """Hundredths of a retry that are left of the share; below 0 while it has shrunk under what was withdrawn."""
        return self.limit(now) - self._spent.total(now)

    def try_withdraw(self, now: float, weight: int = 1, cost_nanos: int = 0) -> Withdrawal | None:
        """Pay for one retry out of the share; None: not now (never wait for it)."""
        self._asked += FULL_RETRY * weight
        left = self.balance(now)
        if left < FULL_RETRY:
            self.short = True
            return None
        charged = min(FULL_RETRY * weight, left)
        slot = self._spent.slot(now)
        self._spent.add(charged, slot)
        self.retries += 1
        return Withdrawal(slot, False, charged, *self.charge_cost(now, cost_nanos))

    def refund(self, withdrawal: Withdrawal) -> None:
        """A paid retry was never sent. Only once for each withdrawal."""
        self._spent.add(-withdrawal.weight, withdrawal.slot)
        self.settle(withdrawal, 0)
        self.retries -= 1

    # --- what the coordinator is told, and answers ------------------------------------------------------------

    def report(self, now: float, *, leaving: bool = False) -> ShareReport:
        """How things stand. Each one has a sequence number of its own: send it, or let it be lost."""
        self._sequence += 1
        self.short = False
        self._average(now)
        return ShareReport(
            budget=self.spec.name,
            sequence=self._sequence,
            epoch=self.held.epoch,
            heard=self.held.number,
            has=self.held.share if self.leased(now) and not leaving else 0,
            wants=0 if leaving else self._wants,
            deposits=self.deposits_now(now),
            withdrawals=max(0, self._spent.total(now)),
            leaving=leaving,
        )

    def heard(self, grant: ShareGrant, asked_at: float) -> bool:
        """
        Obey a grant from now on; `asked_at` is when its report was made. False: it is an old one, or of another
        interval than the policy's, and changes nothing.
        """
        newest = self.held.epoch, self.held.number
        if (grant.epoch, grant.number) <= newest or grant.interval_ms != self.spec.budget_interval_ms:
            return False
        self.held = HeldShare(
            grant.epoch, grant.number, grant.share, grant.safe, asked_at + max(0, grant.expires_in_ms) / 1000
        )
        return True

    def _average(self, now: float) -> None:
        """What an interval would want at the pace since the last report: up at once, down by half with each report."""
        since, self._asked_since = self._asked_since, now
        asked, self._asked = self._asked, 0
        interval = self.spec.budget_interval_ms / 1000
        passed = interval if since is None else max(now - since, interval / SLOTS)
        pace = int(asked * interval / passed)
        self._wants = max(pace, (self._wants + pace) // 2)
