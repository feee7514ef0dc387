"""What follows from a part of a policy alone, worked out once for that part and not for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

MAX_KEPT = 32
"""Results that one function remembers: a policy has a few dozen parts of one kind at most, and old ones must not pile
up."""

Source = TypeVar("Source")
Result = TypeVar("Result")


def once(derive: Callable[[Source], Result]) -> Callable[[Source], Result]:
    """
    `derive`, remembering what it said of the same object. For immutable sources only.

    The same object, not an equal one: comparing whole documents would cost more than most derivations.
    """
    kept: dict[int, tuple[Source, Result]] = {}

    def derived(source: Source) -> Result:
        known = kept.get(id(source))
        if known is not None:  # it holds its source, so no other object can have this id
            return known[1]
        if len(kept) >= MAX_KEPT:
            kept.clear()
        result = derive(source)
        kept[id(source)] = source, result
        return result

    return derived
