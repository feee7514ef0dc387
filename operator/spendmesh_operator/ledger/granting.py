"""
From a want to a grant that has been checked but not booked, or a refusal. Pure.

Planning changes no lease: `Books.acquire` books the plans of a request together, or none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spendmesh_operator.ledger import grants
from spendmesh_operator.ledger.accounts import (
    Account,
    AccountKey,
    Holder,
    InvariantViolated,
    Lease,
    LimitInForce,
    meaning_of,
)
from spendmesh_operator.ledger.holdings import Holdings
from spendmesh_operator.ledger.periods import Span, counts_until, span_after, span_at
from spendmesh_operator.ledger.rolling import NOTHING, Beside
from spendmesh_sidecar.core.specs import WindowSpec
from spendmesh_sidecar.protocol import AccountRef, Want

Reason = Literal["exhausted", "in_flight", "too_large", "unverifiable", "unknown"]
Which = Literal["previous", "current", "next"]
"""A period, seen from now."""


class Refused(Exception):
    """No right on this account; `account` is there if its state may be told."""

    def __init__(self, reason: Reason, account: Account | None = None) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.account = account


@dataclass(frozen=True, slots=True)
class Plan:
    """The lease as it will be."""

    account: Account
    in_force: LimitInForce
    lease: Lease
    ref: AccountRef
    added: int
    """Rights that it adds to the account."""


def plan_grant(
    holdings: Holdings,
    domain: str,
    holder: Holder,
    want: Want,
    in_force: LimitInForce | None,
    new_id: str,
    now_ms: int,
    planned: Sequence[Plan] = (),
) -> Plan:
    """
    Decide one want. `new_id` names the lease if the holder has none. Raises Refused.

    `planned` are those that will be booked with it: parts of one rolling window count together.
    """
    if in_force is None or want.account.per:
        raise Refused("unknown")
    if not in_force.verifiable:
        raise Refused("unverifiable")
    account = account_for(holdings, domain, want.account, want.period, in_force, now_ms)
    if account.key in holdings.frozen:
        raise Refused("unverifiable", account)
    others = _with_planned(holdings.beside(account), account, planned)
    if (reason := grants.refusal(account, want.need, others)) is not None:
        raise Refused(reason, account)
    lease_id = account.lease_of.get((holder.uid, holder.nonce))
    lease = account.leases[lease_id] if lease_id is not None else None
    size = grants.size_grant(account, holder, lease, want.need, want.want, others)
    before = lease if lease is not None else Lease(id=new_id, holder=holder)
    after = replace(before, granted=before.granted + size)
    try:
        holdings.verify(account)
        check_grant(account, before, after, want.need, others)
    except InvariantViolated as violated:
        holdings.freeze(account, violated)
        raise Refused("unverifiable") from violated
    return Plan(account, in_force, after, want.account, size)


def check_grant(account: Account, before: Lease, after: Lease, need: int, others: Beside = NOTHING) -> None:
    """
    I1: a grant never makes charges exceed the limit, of a rolling window in any row of parts; I5: rights only grow.
    Raises InvariantViolated.

    Says nothing about how the size was chosen, so that a mistake there is caught here.
    """
    added = after.granted - before.granted
    if added < need or after.quarantined or after.holder != before.holder:
        raise InvariantViolated(f"lease {after.id}: {added} granted for {need}, or not to its holder")
    charged = account.charged + others.charged
    if account.mode == "Enforce" and added and charged + added > account.limit.amount:
        raise InvariantViolated(f"{account.name}: {charged} charged and {added} more exceed {account.limit.amount}")


def _with_planned(others: Beside, account: Account, planned: Sequence[Plan]) -> Beside:
    if account.limit.window.type != "Rolling":
        return others
    added = sum(plan.added for plan in planned if replace(plan.account.key, start=account.key.start) == account.key)
    return replace(others, charged=others.charged + added)


def account_for(
    holdings: Holdings, domain: str, ref: AccountRef, which: Which, in_force: LimitInForce, now_ms: int
) -> Account:
    """The account, or a draft of it that is opened with its first lease. Raises Refused."""
    limit = in_force.limit
    try:
        span = _span(which, limit.window, now_ms)
    except ValueError as error:
        raise Refused("unverifiable") from error
    key = AccountKey(domain, ref.budget, ref.limit, ref.per, span.start)
    for other in holdings.periods_of(ref.budget, ref.limit):
        until = counts_until(other.limit.window, Span(other.key.start, other.end))
        runs = until * 1000 > now_ms or other.key == key
        if runs and meaning_of(other.limit) != meaning_of(limit):
            # Contract §4: with another meaning it is another limit, which may not take this one's name before it ends.
            raise Refused("unverifiable", other)
    account = holdings.accounts.get(key)
    if account is not None:
        holdings.refresh(account, in_force)
        return account
    if span.start <= holdings.forgotten_before.get((ref.budget, ref.limit), -1):
        raise Refused("unverifiable")
    return Account(key=key, end=span.end, limit=limit, mode=in_force.mode)


def _span(which: Which, window: WindowSpec, now_ms: int) -> Span:
    span = span_at(window, now_ms // 1000)
    if which == "previous":
        return span_at(window, span.start - 1)
    return span if which == "current" else span_after(window, span)
