"""The only place of the operator that reads a clock; everything else is handed one, or `now`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """`monotonic` for durations, `unix` for periods."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def unix(self) -> float:
        """Seconds since 1970, UTC."""


class SystemClock:
    """Real time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def unix(self) -> float:
        return time.time()
