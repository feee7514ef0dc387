"""
Where spend will be at the end of a period, if it goes on as it does. Pure; for people, nothing is decided by it.

    forecast = spent now + time left x (average rate of this period + recent rate) / 2

The recent rate forgets with a time constant of a twentieth of the period (a day and a half of a month), so that a new
habit shows within days and one busy hour does not double the bill. Before 1 % of the period has passed there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

TIME_CONSTANT_DIVISOR: Final = 20
MIN_ELAPSED_DIVISOR: Final = 100
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Pace:
    """What was settled at a moment, and the recent rate in the limit's unit per day."""

    at_ms: int
    settled: int
    per_day: int


def follow(pace: Pace | None, settled: int, start_ms: int, end_ms: int, now_ms: int) -> Pace | None:
    """The pace with what was settled since; the average, while it is the first or too early for a forecast."""
    if not start_ms < now_ms <= end_ms:
        return pace
    if pace is None or _early(now_ms, start_ms, end_ms):
        return Pace(now_ms, settled, settled * _DAY_MS // (now_ms - start_ms))
    passed_ms = now_ms - pace.at_ms
    if passed_ms <= 0:
        return pace
    kept = math.exp(-passed_ms * TIME_CONSTANT_DIVISOR / (end_ms - start_ms))
    latest = (settled - pace.settled) * _DAY_MS // passed_ms
    return Pace(now_ms, settled, latest + round((pace.per_day - latest) * kept))


def forecast(spent: int, pace: Pace | None, start_ms: int, end_ms: int, now_ms: int) -> int | None:
    """
    Spend at the period's end in the limit's unit, never less than `spent`; it may exceed the limit.

    `spent` is what is settled or quarantined. None before 1 % of the period has passed, and without a pace.
    """
    if pace is None or _early(now_ms, start_ms, end_ms):
        return None
    left_ms = max(0, end_ms - now_ms)
    average = pace.settled * _DAY_MS // (now_ms - start_ms)
    return spent + max(0, left_ms * (average + pace.per_day) // (2 * _DAY_MS))


def _early(now_ms: int, start_ms: int, end_ms: int) -> bool:
    return (now_ms - start_ms) * MIN_ELAPSED_DIVISOR < end_ms - start_ms
