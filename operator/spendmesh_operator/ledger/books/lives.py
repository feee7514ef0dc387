"""
Which coordinator's life granted a lease, told from the lease's id. Pure.

Leases are numbered through all lives of the books, and each life puts a prefix of its own before the numbers. So books
that were restored from a backup know which leases they must have forgotten: those of a life that they never heard of,
and those of a life that they know beyond the last that it granted in them. Where several clusters write the same books,
several lives go on at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

LIVES_KEPT: Final = 64
"""A life ends when another replica leads: a few a month. Older leases count as known, so as closed."""


@dataclass(frozen=True, slots=True)
class Life:
    """From one `start` of a coordinator to the next."""

    prefix: str
    """Of its lease ids, with the dash."""
    first: int
    """Number of the first lease that it could grant."""
    next: int
    """Number after the last lease that it granted; `first`: it granted none."""


def begin(lives: tuple[Life, ...], prefix: str, first: int) -> tuple[Life, ...]:
    """The lives of the books when one more begins."""
    return (*lives, Life(prefix, first, first))[-LIVES_KEPT:]


def grant(lives: tuple[Life, ...], prefix: str, number: int) -> tuple[Life, ...]:
    """The lives when one of them grants a lease: that one is the last to be dropped."""
    first = next((life.first for life in lives if life.prefix == prefix), number)
    others = tuple(life for life in lives if life.prefix != prefix)
    return (*others, Life(prefix, first, number + 1))[-LIVES_KEPT:]


def number_of(lease_id: str) -> int:
    """The number in a lease's id; -1 for one that is not ours."""
    try:
        return int(lease_id.rpartition("-")[2], 16)
    except ValueError:
        return -1


def granted_here(lives: tuple[Life, ...], own: str, lease_id: str) -> bool:
    """
    Whether books of these lives would have the lease, were it not closed, or never granted.

    False: only books that were lost can have granted it, and not in the life that goes on here, whose prefix is `own`.
    """
    name, dash, _ = lease_id.rpartition("-")
    prefix, number = name + dash, number_of(lease_id)
    if not dash or prefix == own or number < min((life.first for life in lives), default=inf):
        return True
    return any(life.prefix == prefix and number < life.next for life in lives)
