"""Where the parts of a charge are held, and what lacks for one to fit. Pure; which accounts is the ledger's."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.charges import Charge
from spendmesh_sidecar.core.ledger.exposure import amount_to_hold, expose
from spendmesh_sidecar.core.ledger.lease import LeaseBook
from spendmesh_sidecar.core.ledger.open_attempts import Entry
from spendmesh_sidecar.core.types import Shortfall


class Place(Struct, frozen=True, gc=False):
    """Where a charge would be held: what overrides have first, then the limit's own lease."""

    account: Account
    charge: Charge
    lease: LeaseBook | None
    free: int
    """In that lease."""
    extras: tuple[LeaseBook, ...]
    credit: int
    """What may go without rights."""
    amount: int
    """What has to be free for it: all that the charge may come to, or less where its limit allows that."""

    @property
    def available(self) -> int:
        """What is free for it: not what calls count on that wait. May be below zero."""
        free = self.free - self.account.promised
        return free + sum(extra.free for extra in self.extras) if self.extras else free


def place_of(charge: Charge, account: Account, now: float) -> Place:
    """Where a charge on an account would be held now."""
    lease = account.current(now)
    free = lease.free if lease is not None else 0
    extras = account.extras(now) if account.limit is not None and account.limit.overrides else ()
    credit = account.credit(now) if account.silent else 0
    amount = charge.amount if charge.least is None else amount_to_hold(charge, account, lease, extras, credit)
    return Place(account, charge, lease, free, extras, credit, amount)


def again(place: Place) -> Place:
    """The same place after use was booked on its lease."""
    return replace(place, free=place.lease.free) if place.lease is not None else place


def entries_of(places: Iterable[Place]) -> tuple[Entry, ...]:
    """The parts of all charges."""
    entries: list[Entry] = []
    for place in places:
        charge, lease = place.charge, place.lease
        amount = charge.amount
        # Nearly always: whole, in one lease.
        if lease is not None and not place.extras and place.amount == amount <= place.free:
            entries.append(Entry(place.account, lease, amount, amount, charge.unit, charge.dearer))
        else:
            entries += parts_of(place)
    return tuple(entries)


def parts_of(place: Place) -> list[Entry]:
    """The parts of a charge that fits, or of what fits of an observed one. Nothing is held yet."""
    account, charge, lease, left = place.account, place.charge, place.lease, place.amount
    exposed = charge.amount - left
    parts = []
    for extra in place.extras:
        part = min(left, extra.free)
        if part:
            left -= part
            parts.append(Entry(account, extra, part, part, charge.unit, charge.dearer, partial=True))
    held = min(left, place.free)
    owed = left - held if place.credit and not charge.observed else 0
    if lease is not None or not owed:
        worst, more = left - owed + exposed, owed > 0
        parts.append(Entry(account, lease, worst, held, charge.unit, charge.dearer, more, exposed=exposed))
    if owed:
        parts.append(Entry(account, None, owed, owed, charge.unit, charge.dearer, borrowed=True))
    return parts


def hold(entries: Iterable[Entry]) -> None:
    """Hold what was found to fit."""
    for entry in entries:
        if entry.lease is not None:
            entry.lease.hold(entry.held)
            if entry.exposed:
                expose(entry)
        elif entry.borrowed:
            entry.account.debt.borrow(entry.held)


def lacking_in(places: Iterable[Place]) -> tuple[Shortfall, ...]:
    """What enforced charges lack in the leases that they would be held in."""
    lacking: list[Shortfall] = []
    for place in places:
        charge, amount = place.charge, place.amount
        need = amount - place.available
        if need > place.credit and not charge.observed:
            account, need = charge.account, min(need, amount)
            lacking.append(Shortfall(account.budget, account.limit, need, need, account.per, amount))
    return tuple(lacking)
