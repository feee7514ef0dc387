"""
From a want to a grant that has been checked but not booked, or a refusal. Pure.

Planning changes no lease: `Books.acquire` books the plans of a request together, or none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from spendmesh_operator.ledger.books import grants
from spendmesh_operator.ledger.books.accounts import (
    Account,
    Holder,
    InvariantViolated,
    Lease,
    LimitInForce,
)
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.overrides import extra_of, in_force_for
from spendmesh_operator.ledger.books.rolling import NOTHING, Beside
from spendmesh_sidecar.protocol import Want

Reason = Literal["exhausted", "in_flight", "too_large", "unverifiable", "unknown"]


class Refused(Exception):
    """No right on this account; `account` is there if its state may be told, `why` says more than the reason."""

    def __init__(self, reason: Reason, account: Account | None = None, why: str = "") -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.account = account
        self.why = why


@dataclass(slots=True)
class Asked:
    """The wants of one request that meet in one account: values beyond a limit's bound share one."""

    account: Account
    in_force: LimitInForce
    wants: list[Want] = field(default_factory=list)

    def known(self, overrides: Iterable[Account]) -> list[Account]:
        """Those of these accounts whose overrides the holder's policy has: what it does not know it cannot spend."""
        said = [want.overrides for want in self.wants if want.overrides is not None]
        return [account for account in overrides if all(account.key.override in names for names in said)]

    @property
    def need(self) -> int:
        """Of all."""
        return sum(want.need for want in self.wants)

    @property
    def want(self) -> int:
        """What would be useful to all."""
        return sum(max(want.want, want.need) for want in self.wants)


@dataclass(frozen=True, slots=True)
class Plan:
    """The lease as it will be."""

    account: Account
    in_force: LimitInForce
    lease: Lease
    added: int
    """Rights of this grant."""


def plan_grants(
    holdings: Holdings,
    asked: Asked,
    overrides: Sequence[Account],
    holder: Holder,
    new_id: Callable[[], str],
    planned: Sequence[Plan] = (),
) -> list[Plan]:
    """
    Decide on one limit: what its overrides still have comes first, the rest is its own.

    The limit's own lease is last, also if it gets nothing. `planned` are those that will be booked with it: parts of
    one rolling window count together. Raises Refused.
    """
    account, need, want = asked.account, asked.need, asked.want
    if account.key in holdings.frozen:
        raise Refused("unverifiable", account)
    others = _with_planned(holdings.beside(account), account, planned)
    if (reason := grants.refusal(account, need, others, extra_of(overrides))) is not None:
        raise Refused(reason, account)
    plans: list[Plan] = []
    for extra in overrides:
        spec = in_force_for(asked.in_force, extra.key.override)
        left = max(0, extra.remaining)
        assert spec is not None  # only overrides of this limit are given
        if left == 0 or max(need, want) == 0:
            continue
        useful = min(want, left) if extra.mode == "Observe" else want
        plan = _plan(holdings, extra, holder, min(need, left), useful, spec, new_id, NOTHING)
        if plan.added:
            plans.append(plan)
            need, want = max(0, need - plan.added), max(0, want - plan.added)
    return [*plans, _plan(holdings, account, holder, need, want, asked.in_force, new_id, others)]


def _plan(
    holdings: Holdings,
    account: Account,
    holder: Holder,
    need: int,
    want: int,
    in_force: LimitInForce,
    new_id: Callable[[], str],
    others: Beside,
) -> Plan:
    """`new_id` names the lease if the holder has none."""
    lease_id = account.lease_of.get((holder.uid, holder.nonce))
    lease = account.leases[lease_id] if lease_id is not None else None
    size = grants.size_grant(account, holder, lease, need, want, others)
    kept = grants.survival_grant(account, lease, size, others)
    before = lease if lease is not None else Lease(id=new_id(), holder=holder)
    added = size + kept + before.owed
    after = replace(before, granted=before.granted + added, survival=before.survival + kept)
    try:
        holdings.verify(account)
        check_grant(account, before, after, need, others)
    except InvariantViolated as violated:
        holdings.freeze(account, violated)
        raise Refused("unverifiable") from violated
    return Plan(account, in_force, after, size + kept)


def check_grant(account: Account, before: Lease, after: Lease, need: int, others: Beside = NOTHING) -> None:
    """
    I1: a grant never makes charges exceed the limit, of a rolling window in any row of parts; I5: rights only grow.
    Raises InvariantViolated.

    Says nothing about how the size was chosen, so that a mistake there is caught here.
    """
    added, grown = after.granted - before.granted, after.charge - before.charge
    if added < need or after.quarantined or after.holder != before.holder:
        raise InvariantViolated(f"lease {after.id}: {added} granted for {need}, or not to its holder")
    charged = account.charged + others.charged
    if account.mode == "Enforce" and grown and charged + grown > account.limit.amount:
        raise InvariantViolated(f"{account.name}: {charged} charged and {grown} more exceed {account.limit.amount}")


def _with_planned(others: Beside, account: Account, planned: Sequence[Plan]) -> Beside:
    if account.limit.window.type != "Rolling":
        return others
    added = sum(plan.added for plan in planned if replace(plan.account.key, start=account.key.start) == account.key)
    return replace(others, charged=others.charged + added)
