"""
A failing history with as few calls and faults as it takes: delta debugging over their numbers (Zeller's ddmin).

What is left need not fail at the same step, only at the same promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ledgersim.broken import Broken
from ledgersim.checker import Violation
from ledgersim.run import failure
from ledgersim.workload import History, draw

Item = tuple[str, int]
MAX_TRIES = 400


@dataclass(frozen=True)
class Shrunk:
    """The smallest history found, and how to say it."""

    seed: int
    kept: tuple[Item, ...]
    error: Exception

    @property
    def replay(self) -> str:
        """One line that plays exactly this history."""
        return f"make sim ARGS='--seed {self.seed} --only {written(self.kept)}'"


def items_of(history: History) -> tuple[Item, ...]:
    """Everything that can be left out."""
    return (
        *(("f", number) for number in range(len(history.faults))),
        *(("c", number) for number in range(len(history.calls))),
    )


def written(items: tuple[Item, ...]) -> str:
    """`f0,c3`, or `none`."""
    return ",".join(f"{kind}{number}" for kind, number in items) or "none"


def read(text: str) -> tuple[Item, ...]:
    """The opposite of `written`. Raises ValueError."""
    if text == "none":
        return ()
    found = []
    for word in text.split(","):
        if word[:1] not in ("f", "c") or not word[1:].isdigit():
            raise ValueError(f"{word!r} is not f<number> (a fault) or c<number> (a call)")
        found.append((word[0], int(word[1:])))
    return tuple(found)


def only(history: History, items: tuple[Item, ...]) -> History:
    """The history with these calls and faults."""
    calls = frozenset(number for kind, number in items if kind == "c")
    return history.keep(calls, frozenset(number for kind, number in items if kind == "f"))


def shrink(seed: int, broken: Broken = Broken()) -> Shrunk:
    """Leave out what a failing seed does not need to fail. Raises ValueError for a seed that does not fail."""
    history = draw(seed)
    error = failure(history, broken)
    if error is None:
        raise ValueError(f"seed {seed} does not fail")
    promise = _promise(error)

    def fails(items: tuple[Item, ...]) -> Exception | None:
        found = failure(only(history, items), broken)
        return found if found is not None and _promise(found) == promise else None

    kept = minimal(items_of(history), lambda items: fails(items) is not None)
    return Shrunk(seed, kept, fails(kept) or error)


def minimal(items: tuple[Item, ...], fails: Callable[[tuple[Item, ...]], bool]) -> tuple[Item, ...]:
    """A part of the items that still fails, and no longer does without any one of its items."""
    size, tries = max(1, len(items) // 2), 0
    while tries < MAX_TRIES:
        start, before = 0, items
        while start < len(items) and tries < MAX_TRIES:
            without = items[:start] + items[start + size :]
            tries += 1
            if fails(without):
                items = without
            else:
                start += size
        if size == 1 and items == before:
            break
        size = max(1, size // 2)
    return items


def _promise(error: Exception) -> str:
    return error.check if isinstance(error, Violation) else type(error).__name__
