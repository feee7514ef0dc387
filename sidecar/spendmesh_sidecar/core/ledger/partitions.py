"""
Limits that are divided (`per`): which account a call belongs to, and which of many accounts are still needed here.

A sidecar names only what the request says. What the pod is (namespace, workload, name, labels) it leaves empty: the
coordinator fills that in from its own knowledge. Only the coordinator puts values into `other` because there are too
many; here that is remembered until the period ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.rights import AccountRef, Assigned
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, PerSpec
from spendmesh_sidecar.core.types import Hints

OTHER = "other"
"""Where calls without a value, and values beyond a limit's `maxValues`, are counted: a normal account."""
OF_THE_POD = frozenset({"Namespace", "Workload", "Pod", "PodLabel"})
"""Types whose value only the coordinator says."""
ASSIGNED_KEPT = 4096
"""Values remembered to be in `other`; a forgotten one costs a round trip."""
PARTITIONS_KEPT = 1000
"""Accounts of divided limits that keep rights here (about 3 KB each); the least recently used give theirs back."""

WAITING_SECONDS = 5.0
"""An account that was asked for so recently may have a call that waits for its rights."""


def account_ref(budget: str, limit: LimitSpec, hints: Hints) -> AccountRef:
    """The account of a limit that a call with these hints belongs to."""
    if not limit.per:
        return AccountRef(budget=budget, limit=limit.name)
    return AccountRef(budget=budget, limit=limit.name, per=tuple(_value(part, hints) for part in limit.per))


def _value(part: PerSpec, hints: Hints) -> str:
    if part.type in OF_THE_POD:
        return ""
    if part.type == "User":
        return hints.user or OTHER
    if part.type == "Feature":
        return hints.feature or OTHER
    return dict(hints.scopes).get(part.name) or OTHER


def scope_headers(budgets: tuple[BudgetSpec, ...]) -> frozenset[str]:
    """Names of the request headers that limits are divided by, in lower case."""
    parts = (part for budget in budgets for limit in budget.limits for part in limit.per)
    return frozenset(part.name for part in parts if part.type == "Header")


def limits_of(budgets: tuple[BudgetSpec, ...]) -> dict[AccountRef, tuple[LimitSpec, bool]]:
    """The accounts of undivided limits, with their limit and whether it is enforced."""
    return {
        AccountRef(budget=budget.name, limit=limit.name): (limit, budget.mode == "Enforce")
        for budget in budgets
        for limit in budget.limits
        if not limit.per
    }


@dataclass(slots=True)
class Unplaced:
    """Calls that wait on values of one divided limit of which nobody has said yet whether they share `other`."""

    awaited: int = 0
    """See `Account.awaited`."""
    promised: int = 0


def may_share(ref: AccountRef) -> bool:
    """Whether the coordinator may put this account's calls into `other`: some value of it came from a request."""
    return any(value not in ("", OTHER) for value in ref.per)


class Partitions:
    """The divided limits of a policy, and which values share an account."""

    def __init__(self) -> None:
        self._unplaced: dict[tuple[str, str], Unplaced] = {}
        self._limits: dict[tuple[str, str], tuple[LimitSpec, bool]] = {}
        self._assigned: dict[AccountRef, tuple[AccountRef, float]] = {}

    def put_in_force(self, budgets: tuple[BudgetSpec, ...]) -> None:
        """A policy's divided limits."""
        self._limits = {
            (budget.name, limit.name): (limit, budget.mode == "Enforce")
            for budget in budgets
            for limit in budget.limits
            if limit.per
        }

    def limit_of(self, ref: AccountRef) -> tuple[LimitSpec, bool] | None:
        """The divided limit that an account is of, and whether it is enforced."""
        found = self._limits.get((ref.budget, ref.limit))
        return found if found is not None and len(found[0].per) == len(ref.per) else None

    def limits_of(self, refs: Iterable[AccountRef]) -> dict[AccountRef, tuple[LimitSpec, bool]]:
        """`limit_of` for those of these accounts that are of a divided limit in force."""
        found = ((ref, self.limit_of(ref)) for ref in refs if ref.per)
        return {ref: divided for ref, divided in found if divided is not None}

    def unplaced(self, ref: AccountRef) -> Unplaced:
        """Of the divided limit that an account is of."""
        return self._unplaced.setdefault((ref.budget, ref.limit), Unplaced())

    def account_of(self, ref: AccountRef, now: float) -> AccountRef:
        """The account that stands for `ref`: itself, or the one that the coordinator named."""
        found = self._assigned.pop(ref, None)
        if found is None or now >= found[1]:
            return ref
        self._assigned[ref] = found  # the newest use is last
        return found[0]

    def assign(self, assigned: Iterable[Assigned], now: float) -> None:
        """Take the coordinator's word on values that share an account."""
        for each in assigned:
            self._assigned.pop(each.asked, None)
            self._assigned[each.asked] = (each.account, now + each.ends_in_ms / 1000)
        while len(self._assigned) > ASSIGNED_KEPT:
            del self._assigned[next(iter(self._assigned))]

    def forget(self) -> None:
        """Another incarnation asks anew."""
        self._assigned.clear()


def fading(accounts: Iterable[Account], busy: Collection[AccountRef], now: float) -> list[Account]:
    """Accounts of divided limits that should give everything back: idle ones, and the least used of too many."""
    divided = [account for account in accounts if account.ref.per and account.limit is not None]
    surplus = len(divided) - PARTITIONS_KEPT
    if surplus > 0:
        divided.sort(key=lambda account: account.demand.last_use)
    settled = (account for account in divided if account.ref not in busy and not account.debt.waits)
    rank = {id(account): position for position, account in enumerate(divided)}
    return [
        account
        for account in settled
        if account.demand.idle(now)
        or (rank[id(account)] < surplus and now - account.demand.last_use >= WAITING_SECONDS)
    ]
