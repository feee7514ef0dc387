"""
Calls that hold less than they may cost, and how much less all of them together may.

What the open calls of a lease may cost beyond what they hold is its exposure. It is kept below `overshootPercent` of
the lease's rights, and all rights together are at most the limit's amount: so what is spent is at most
amount x (1 + overshootPercent / 100), whatever clients ask for and however their calls end. A call that would expose
more holds all that it may cost.
"""

from __future__ import annotations

from collections.abc import Sequence

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.charges import Charge
from spendmesh_sidecar.core.ledger.lease import LeaseBook
from spendmesh_sidecar.core.ledger.open_attempts import Entry
from spendmesh_sidecar.core.types import Shortfall


def amount_to_hold(
    charge: Charge, account: Account, lease: LeaseBook | None, extras: Sequence[LeaseBook], credit: int
) -> int:
    """What a charge takes from the free rights of an account now: its least, or all of it."""
    least, limit = charge.least, account.limit
    if least is None or lease is None or limit is None:
        return charge.amount
    if lease.exposed + charge.amount - least > allowance(lease, limit.overshoot_percent):
        return charge.amount
    if credit and least > lease.free + sum(extra.free for extra in extras):
        return charge.amount  # what goes without rights has a cap of its own
    return least


def allowance(lease: LeaseBook, overshoot_percent: int) -> int:
    """The most that a lease may be exposed."""
    return (lease.granted - lease.released) * overshoot_percent // 100


def expose(entry: Entry) -> None:
    """An attempt is booked that holds less than it may cost."""
    lease, limit = entry.lease, entry.account.limit
    assert lease is not None and limit is not None  # else `amount_to_hold` was all
    lease.exposed += entry.exposed
    lease.backing = -(-lease.exposed * 100 // limit.overshoot_percent)


def cover(entry: Entry) -> None:
    """An attempt has ended: it exposes its lease no more."""
    if entry.lease is not None and entry.exposed:
        _expose_less(entry.lease, entry.exposed)


def extend(parts: Sequence[tuple[Entry, int]], now: float) -> tuple[Shortfall, ...]:
    """Let open attempts hold so much more of what they expose, all or nothing; what lacks for it."""
    lacking = []
    for entry, amount in parts:
        need, account = amount - _lease_of(entry).free + entry.account.promised, entry.account.ref
        if need > 0:
            need = min(need, amount)
            lacking.append(Shortfall(account.budget, account.limit, need, need, account.per, amount))
    if lacking:
        return tuple(lacking)
    for entry, amount in parts:
        lease = _lease_of(entry)
        entry.account.demand.note(amount, now)
        lease.hold_more(amount)
        _expose_less(lease, amount)
        entry.held += amount
        entry.exposed -= amount
    return ()


def _lease_of(entry: Entry) -> LeaseBook:
    assert entry.lease is not None  # else nothing of it is exposed
    return entry.lease


def _expose_less(lease: LeaseBook, amount: int) -> None:
    left = lease.exposed - amount
    lease.backing = -(-lease.backing * left // lease.exposed)
    lease.exposed = left
