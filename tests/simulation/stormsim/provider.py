"""One queue, first come first served, that executes and bills also what nobody waits for any more."""

from __future__ import annotations

from heapq import heapreplace
from random import Random
from typing import Final

WORKERS: Final = 100
SERVICE_SECONDS: Final = 1.0
"""Mean of an exponential service time: 100 calls a second in all."""
LEFT_PERCENT: Final = 20
"""Of the workers take new work while the trigger lasts; the others finish what they have begun."""
TRIGGER: Final = (60.0, 90.0)


class FifoProvider:
    """
    Says at once when a call will be done, since nothing that comes later is served before it.

    A worker is busy until a known moment, so the queue needs no events of its own.
    """

    def __init__(self, rng: Random, workers: int = WORKERS) -> None:
        self._rng = rng
        self._left = workers * LEFT_PERCENT // 100
        self._free = [(0.0, worker) for worker in range(workers)]

    def send(self, now: float) -> float:
        """When a call that is sent now is done."""
        free_at, worker = self._free[0]
        while worker >= self._left and TRIGGER[0] <= max(free_at, now) < TRIGGER[1]:
            heapreplace(self._free, (TRIGGER[1], worker))
            free_at, worker = self._free[0]
        done = max(free_at, now) + self._rng.expovariate(1 / SERVICE_SECONDS)
        heapreplace(self._free, (done, worker))
        return done
