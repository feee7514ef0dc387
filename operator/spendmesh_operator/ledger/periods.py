"""
Calendar periods in any IANA zone, as half-open spans of UTC; only the coordinator computes boundaries.

Days, weeks and months begin at the first instant that carries their date in the zone; hours begin whenever the
local clock reads a full hour. So periods never overlap and never leave a gap, also where a clock change makes one
shorter or longer (a 23 or 25 hour day, an hour of 90 minutes on Lord Howe Island, a date that Samoa skipped).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from spendmesh_sidecar.core.specs import Period

_HOUR_SECONDS = 3600
_EARLIEST = date(1970, 1, 2)
_LATEST = date(9990, 1, 1)


class UnknownZone(ValueError):
    """The zone's name is not in the IANA data of this machine."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """One period: `start <= t < end`, both in unix seconds."""

    start: int
    end: int


def period_at(period: Period, zone_name: str, instant: int) -> Span:
    """
    The period that contains `instant` (unix seconds).

    Raises UnknownZone, or ValueError for an instant outside of 1970..9990.
    """
    zone = zone_named(zone_name)
    if period == "Hour":
        return _hour_at(zone, instant)
    first, following = _CALENDAR[period]
    local = datetime.fromtimestamp(instant, zone).date()
    if not _EARLIEST <= local <= _LATEST:
        raise ValueError(f"instant {instant} is outside of the years 1970 to 9990")
    begin = first(local)
    start, end = _start_of(zone, begin), _start_of(zone, following(begin))
    # A clock that went back over midnight shows the old date again, though the new day has begun.
    while instant >= end:
        begin = following(begin)
        start, end = end, _start_of(zone, following(begin))
    return Span(start, end)


def next_period(period: Period, zone_name: str, span: Span) -> Span:
    """The period that begins where `span` ends."""
    return period_at(period, zone_name, span.end)


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """Look an IANA zone up. Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZone(f"time zone {name!r} is not known: use an IANA name such as Europe/Berlin") from error


def _first_of_month(day: date) -> date:
    return day.replace(day=1)


def _following_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


_CALENDAR: dict[str, tuple[Callable[[date], date], Callable[[date], date]]] = {
    "Day": (lambda day: day, lambda day: day + timedelta(days=1)),
    "Week": (_monday, lambda monday: monday + timedelta(days=7)),
    "Month": (_first_of_month, _following_month),
}


def _start_of(zone: ZoneInfo, day: date) -> int:
    """First instant at which the zone has reached `day`."""
    midnight = datetime.combine(day, time.min, tzinfo=zone)
    first = _unix(midnight)
    if datetime.fromtimestamp(first, zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return first
    # Midnight was skipped: the day begins at the clock change, which lies between the two readings of midnight.
    return _change_between(zone, _unix(midnight.replace(fold=1)) - 1, first)


def _hour_at(zone: ZoneInfo, instant: int) -> Span:
    offset = _offset(zone, instant)
    start = instant - (instant + offset) % _HOUR_SECONDS
    if _offset(zone, start) != offset:
        # No full hour since the clock change: the hour that ran before it goes on.
        last = _change_between(zone, start, instant) - 1
        start = last - (last + _offset(zone, last)) % _HOUR_SECONDS
    end = instant - (instant + offset) % _HOUR_SECONDS + _HOUR_SECONDS
    if (later := _offset(zone, end)) != offset:
        change = _change_between(zone, instant, end)
        end = change + -(change + later) % _HOUR_SECONDS
    return Span(start, end)


def _change_between(zone: ZoneInfo, before: int, after: int) -> int:
    """First instant in (before, after] with the offset of `after`; the two offsets differ."""
    offset = _offset(zone, after)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == offset:
            after = middle
        else:
            before = middle
    return after


def _offset(zone: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _unix(local: datetime) -> int:
    return int(local.astimezone(UTC).timestamp())
