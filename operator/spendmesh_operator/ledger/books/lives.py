"""
Which coordinator's life granted a lease, told from the lease's id. Pure.

Leases are numbered through all lives of the books, and each life puts a prefix of its own before the numbers. So books
that were restored from a backup know which leases they must have forgotten: those of a life that they never heard of,
and those of their last life beyond the number at which the next one began.
"""

from __future__ import annotations

from dataclasses import dataclass
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


def begin(lives: tuple[Life, ...], prefix: str, first: int) -> tuple[Life, ...]:
    """The lives of the books when one more begins."""
    return (*lives, Life(prefix, first))[-LIVES_KEPT:]


def number_of(lease_id: str) -> int:
    """The number in a lease's id; -1 for one that is not ours."""
    try:
        return int(lease_id.rpartition("-")[2], 16)
    except ValueError:
        return -1


def granted_here(lives: tuple[Life, ...], lease_id: str) -> bool:
    """
    Whether books of these lives would have the lease, were it not closed, or never granted.

    False: only books that were lost can have granted it.
    """
    name, dash, _ = lease_id.rpartition("-")
    number = number_of(lease_id)
    if number < 0 or not dash or not lives or number < lives[0].first:
        return True
    ends = (*(life.first for life in lives[1:]), None)
    for life, end in zip(lives, ends, strict=True):
        if life.prefix == name + dash:
            return end is None or number < end
    return False
