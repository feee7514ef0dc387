"""
Calls and bad ones among them over the last seconds, exactly.

Why not a moving average: a tight burst gives each sample almost no weight there and can hide a total outage
(linkerd2-proxy's success_rate.rs). What share is too much is the breaker's.
"""

from __future__ import annotations

from collections import deque

SLOTS = 10
"""A window slides in tenths, as Linkerd's and Polly's do: it covers between nine tenths and the whole of its length."""


class FailureWindow:
    """Counts of the last `SLOTS` slots. Adding to the current slot touches two numbers; sums are made when asked."""

    __slots__ = ("_bad", "_calls", "_past", "_per_second", "_slot")

    def __init__(self, interval_ms: int) -> None:
        self._per_second = SLOTS * 1000 / max(1, interval_ms)
        self._past: deque[tuple[int, int, int]] = deque(maxlen=SLOTS - 1)
        self._slot = self._calls = self._bad = 0

    def add(self, now: float, *, bad: bool) -> None:
        """Count one call that ended now."""
        slot = int(now * self._per_second)
        if slot != self._slot:
            self._turn(slot)
        self._calls += 1
        if bad:
            self._bad += 1

    def totals(self, now: float) -> tuple[int, int]:
        """Calls, and the bad ones among them."""
        slot = int(now * self._per_second)
        if slot != self._slot:
            self._turn(slot)
        recent = [(calls, bad) for then, calls, bad in self._past if slot - then < SLOTS]
        return self._calls + sum(calls for calls, _ in recent), self._bad + sum(bad for _, bad in recent)

    def clear(self) -> None:
        """Forget all calls."""
        self._past.clear()
        self._calls = self._bad = 0

    def _turn(self, slot: int) -> None:
        if self._calls:
            self._past.append((self._slot, self._calls, self._bad))
        self._slot, self._calls, self._bad = slot, 0, 0
