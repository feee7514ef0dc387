"""
Calls that wait for rights, first come, first served: what is here already and counts for one is nobody else's.

Without that a stream of small calls takes, one after the other, what a larger one still waits to see completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.partitions import Unplaced, may_share
from spendmesh_sidecar.core.ledger.placing import Place
from spendmesh_sidecar.core.ledger.rights import AccountRef


class Waits(Struct, frozen=True, gc=False):
    """One waiting call on one account."""

    account: Account | Unplaced
    amount: int
    """What its smallest form takes."""
    promised: int
    """The part of it that is free already, and not promised to another call."""


def waits_of(places: Iterable[Place], unplaced: Callable[[AccountRef], Unplaced]) -> tuple[Waits, ...]:
    """
    What a call with these enforced charges would wait with now: on its accounts, and on those that its values may turn
    out to share, where nothing is promised to it yet.
    """
    waits: list[Waits] = []
    for place in places:
        if place.charge.observed:
            continue
        ref, amount = place.account.ref, place.amount
        waits.append(Waits(place.account, amount, min(amount, max(0, place.available))))
        if place.lease is None and may_share(ref):
            waits.append(Waits(unplaced(ref), amount, 0))
    return tuple(waits)


def begin(waits: Iterable[Waits]) -> None:
    """A call waits from now on."""
    for each in waits:
        each.account.awaited += each.amount
        each.account.promised += each.promised


def end(waits: Iterable[Waits]) -> None:
    """It has its answer, or has left."""
    for each in waits:
        each.account.awaited -= each.amount
        each.account.promised -= each.promised
