"""The figure's own arithmetic, what it leaves out, and what a run of it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange_driver import USD_PER_CALL

REQUESTS: Final = 100_000
FAILING: Final = 5_000
MALFORMED: Final = 3_000
TRANSIENT: Final = FAILING - MALFORMED
NAIVE: Final = FAILING + FAILING // 2 + FAILING // 4
"""The first calls, half of their retries, half of the retries of these: 8,750."""
CLASSES: Final = TRANSIENT + TRANSIENT // 10
"""First calls that are not malformed, and a tenth of their retries: 2,200. The malformed ones are only in `NAIVE`."""
NAIVE_TRULY: Final = 3 * MALFORMED + TRANSIENT + TRANSIENT // 2 + TRANSIENT // 4
"""Where malformed requests stay malformed: 12,500. Half of 5,000 retries cannot succeed where 3,000 never do."""

MALFORMED_UNREAD: Final = MALFORMED * 3 // 10
"""What a sidecar cannot see is malformed, of ten kinds in equal parts."""
NAIVE_LOOPED: Final = NAIVE_TRULY - 3 * (MALFORMED - MALFORMED_UNREAD)
"""The same loop, where a sidecar refuses what it cannot read: 6,200."""


class Name:
    """The ways to meet the day, as tables say them."""

    FIGURE: Final = "double retry at once, as the figure counts"
    NAIVE: Final = "double retry at once, malformed stays malformed"
    LOOPED: Final = "the same through a sidecar that does not retry"
    OURS: Final = "one RetryBudget"


@dataclass(frozen=True)
class Tally:
    """What became of a day's calls, or of every `factor`-th of them."""

    name: str
    transient: int = 0
    """Calls that failed at the provider and might have succeeded."""
    malformed: int = 0
    """Malformed calls that reached the provider."""
    refused: int = 0
    """Malformed calls that the sidecar refused before the wire."""
    lost: int = 0
    """Requests that got no answer in the end, though they were not malformed."""
    factor: int = 1

    @property
    def failed(self) -> int:
        """Calls that failed at the provider, in the figure's size."""
        return (self.transient + self.malformed) * self.factor

    @property
    def usd(self) -> float:
        """What they are billed: a fault after the work costs it, a malformed request costs nothing."""
        return self.transient * self.factor * USD_PER_CALL
