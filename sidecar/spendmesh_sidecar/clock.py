"""The only place that reads a clock; everything else is handed `now`."""

from __future__ import annotations

import time


class Clock:
    """Real time. `monotonic` for durations and ledgers, `unix` for dated prices and span timestamps."""

    monotonic = staticmethod(time.monotonic)
    """Seconds that never go back."""
    unix = staticmethod(time.time)
    """Seconds since 1970, UTC."""

    def both(self) -> tuple[float, int]:
        """Monotonic seconds, and whole Unix seconds for dated prices: what decisions take."""
        return time.monotonic(), int(time.time())
