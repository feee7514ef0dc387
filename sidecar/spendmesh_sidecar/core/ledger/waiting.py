"""
Calls that wait for rights, first come, first served: what is here already and counts for one is nobody else's.

Without that a stream of small calls takes, one after the other, what a larger one still waits to see completed.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.partitions import Unplaced
from spendmesh_sidecar.core.ledger.placing import Place


class Waits(Struct, frozen=True, gc=False):
    """One waiting call on one account."""

    account: Account | Unplaced
    amount: int
    """What its smallest form takes."""
    promised: int
    """The part of it that is free already, and not promised to another call."""


def waits_of(places: Iterable[Place]) -> tuple[Waits, ...]:
    """What a call with these enforced charges would wait with now."""
    return tuple(
        Waits(place.account, place.amount, min(place.amount, max(0, place.available)))
        for place in places
        if not place.charge.observed
    )


def waits_unplaced(place: Place, unplaced: Unplaced) -> Waits:
    """The same call on whatever account its value may turn out to share, where nothing is promised to it yet."""
    return Waits(unplaced, place.amount, 0)


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
