"""
How many rights an account will need soon: sizes of top-ups and of what idle holders give back.

An estimate never decides whether a call may be made; it only moves rights early, so that calls do not wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TIME_CONSTANT_SECONDS = 10.0
"""Forgetting of the demand rate: Finagle's and Linkerd's budgets look back 10 s as well."""
LOW_WATER_SECONDS = 10.0
TARGET_SECONDS = 30.0
"""Free rights below the first much demand ask for more, up to the second: calls go on through a change of the
coordinator's leader, which takes a lease of 15 s and a start."""
TIGHT_LOW_WATER_SECONDS = 1.0
TIGHT_TARGET_SECONDS = 3.0
"""The same where little is left to grant: one commit of a busy shard (contract §4), and no more than is needed."""
SHARE_DIVISOR = 50
"""Ahead of demand at most 2 % of the limit, whatever the rate, so that many holders do not strand it."""
IDLE_SECONDS = 20.0
"""Surplus older than this is given back: within the 30 s of contract §4, one report interval included."""
PEAK_SECONDS = 60.0
"""The largest call of the last one to two of these is what one more call may need."""
FIRST_WANT_DIVISOR = 100
"""Before any call is known, 1 % of the limit: little is stranded, and a first call mostly fits."""


@dataclass(slots=True)
class Demand:
    """Decaying rate and recent peak of the reservations on one account, in its unit."""

    started_at: float
    _rate: float = 0.0
    _peak: int = 0
    _peak_before: int = 0
    _peak_since: float = 0.0
    _noted_at: float | None = None
    _surplus_since: float | None = None

    def note(self, amount: int, now: float) -> None:
        """A reservation of `amount` was asked for, whether it fitted or not."""
        # Of several calls at one time nothing is forgotten in between.
        rate = self._rate if now == self._noted_at else self._rate_at(now)
        self._rate = rate + amount / TIME_CONSTANT_SECONDS
        if now - self._peak_since > PEAK_SECONDS:
            self._peak_before, self._peak, self._peak_since = self._peak, 0, now
        if amount > self._peak:
            self._peak = amount
        self._noted_at = now

    @property
    def last_use(self) -> float:
        """When the last reservation was asked for, or else when all began."""
        return self.started_at if self._noted_at is None else self._noted_at

    def idle(self, now: float) -> bool:
        """No call for so long that rights should go back."""
        return now - self.last_use >= IDLE_SECONDS

    @property
    def peak(self) -> int:
        """The largest recent reservation; 0 before the first."""
        return max(self._peak, self._peak_before)

    def low_water(self, now: float, limit_amount: int, *, tight: bool) -> int:
        """Below this many free rights a top-up is due: room for the largest recent call and for demand ahead."""
        ahead = TIGHT_LOW_WATER_SECONDS if tight else LOW_WATER_SECONDS
        return max(self.peak, self._ahead(now, ahead, limit_amount // 2))

    def target(self, now: float, limit_amount: int, *, tight: bool) -> int:
        """How many free rights a top-up should lead to."""
        if not self.peak:
            return max(1, limit_amount // FIRST_WANT_DIVISOR)
        return max(2 * self.peak, self._ahead(now, TIGHT_TARGET_SECONDS if tight else TARGET_SECONDS, limit_amount))

    def surplus(self, free: int, now: float, limit_amount: int, *, tight: bool) -> int:
        """
        What to give back of `free` rights.

        An idle holder keeps its largest recent call, which then needs no round trip; nothing where it is `tight`
        (little is left for others). A busy one gives back when it held twice its target for `IDLE_SECONDS`.
        """
        if self.idle(now):
            return max(0, free - (0 if tight else self.peak))
        keep = self.target(now, limit_amount, tight=tight)
        if free <= 2 * keep:
            self._surplus_since = None
            return 0
        if self._surplus_since is None:
            self._surplus_since = now
        return free - keep if now - self._surplus_since >= IDLE_SECONDS else 0

    def _ahead(self, now: float, seconds: float, limit_amount: int) -> int:
        return min(int(self._rate_at(now) * seconds), limit_amount // SHARE_DIVISOR)

    def _rate_at(self, now: float) -> float:
        if self._noted_at is None:
            return 0.0
        return self._rate * math.exp(-max(0.0, now - self._noted_at) / TIME_CONSTANT_SECONDS)
