"""What overrides that run now add to a limit, as sums. Which overrides those are is `overrides`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extra:
    """Sums over the accounts of overrides, in the limit's unit."""

    amount: int = 0
    settled: int = 0
    charged: int = 0
    quarantined: int = 0
    room: int = 0
    """What they can still grant."""


NO_EXTRA = Extra()
