"""The only place that reads a clock; everything else is handed `now`."""

from __future__ import annotations

import time
from pathlib import Path


def boot_id() -> str:
    """Which run of the kernel this is; empty where it does not say (only Linux does)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Clock:
    """Real time. `monotonic` for durations and ledgers, `unix` for dated prices and span timestamps."""

    monotonic = staticmethod(time.monotonic)
    """Seconds that never go back."""
    unix = staticmethod(time.time)
    """Seconds since 1970, UTC."""

    def both(self) -> tuple[float, int]:
        """Monotonic seconds, and whole Unix seconds for dated prices: what decisions take."""
        return time.monotonic(), int(time.time())
