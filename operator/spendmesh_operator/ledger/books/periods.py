"""
Calendar periods in any IANA zone, and parts of rolling windows, as half-open spans of UTC; only the coordinator
computes boundaries.

Days, weeks, months, quarters and years begin at the first instant that carries their date in the zone; hours begin
whenever the local clock reads a full hour. So periods never overlap and never leave a gap, also where a clock change
makes one shorter or longer (a 23 or 25 hour day, an hour of 90 minutes on Lord Howe Island, a date that Samoa skipped).
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from spendmesh_sidecar.core.specs import WindowSpec

ROLLING_PARTS = 24
"""
Into so many parts a rolling window is divided; each is an account of its own.

A window of real time touches at most one part more, so the amount must hold over 25 parts: under steady demand 1/25
(4 %) of it stays unused. Twice as many parts would win 2 % and cost twice the accounts; of a day each is an hour.
"""
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


def span_at(window: WindowSpec, instant: int) -> Span:
    """
    The period of `window`, or its part if it is rolling, that contains `instant` (unix seconds).

    Raises UnknownZone, or ValueError for an instant outside of 1970..9990.
    """
    if window.type == "Rolling":
        return _part_at(window, instant)
    zone = zone_named(window.time_zone)
    if window.period == "Hour":
        return _hour_at(zone, instant)
    first, following = _calendar(window)
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


def span_after(window: WindowSpec, span: Span) -> Span:
    """The period that begins where `span` ends."""
    return span_at(window, span.end)


def counts_until(window: WindowSpec, span: Span) -> int:
    """Until when (unix seconds) what is charged in `span` counts: its end, or that of the last window it is in."""
    return span.end + (ROLLING_PARTS * (span.end - span.start) if window.type == "Rolling" else 0)


def counts_from(window: WindowSpec, span: Span) -> int:
    """From when on (unix seconds) spending counts in `span`: its start, or that of the window that ends with it."""
    return span.start - (ROLLING_PARTS * (span.end - span.start) if window.type == "Rolling" else 0)


def _part_at(window: WindowSpec, instant: int) -> Span:
    """Parts are a 24th of the window, rounded up to a second; where they begin is the same everywhere and for ever."""
    seconds = -(-window.duration_seconds // ROLLING_PARTS)
    start = instant - instant % seconds
    return Span(start, start + seconds)


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """Look an IANA zone up. Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZone(f"time zone {name!r} is not known: use an IANA name such as Europe/Berlin") from error


_Calendar = tuple[Callable[[date], date], Callable[[date], date]]
"""From a date to the first date of its period, and from that to the first date of the following one."""


def _calendar(window: WindowSpec) -> _Calendar:
    if window.period == "Day":
        return (lambda day: day), (lambda day: day + timedelta(days=1))
    if window.period == "Week":
        return (lambda day: day - timedelta(days=day.weekday())), (lambda monday: monday + timedelta(days=7))
    assert window.period is not None
    months, anchor_day = _MONTHS[window.period], window.anchor_day

    def first(day: date) -> date:
        begun = _month_number(day) // months * months
        start = _anchored(begun, anchor_day)
        return start if start <= day else _anchored(begun - months, anchor_day)

    return first, lambda start: _anchored(_month_number(start) + months, anchor_day)


_MONTHS = {"Month": 1, "Quarter": 3, "Year": 12}


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1


def _anchored(month_number: int, anchor_day: int) -> date:
    year, month = divmod(month_number, 12)
    return date(year, month + 1, min(anchor_day, monthrange(year, month + 1)[1]))


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
