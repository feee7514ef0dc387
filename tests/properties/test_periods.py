"""Calendar periods leave no gap and never overlap, in any zone, also where clocks change. Row 10 of the fault table."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from spendmesh_operator.ledger.periods import Span, UnknownZone, next_period, period_at
from spendmesh_sidecar.core.specs import Period

ZONES = sorted(zoneinfo.available_timezones())
PERIODS: tuple[Period, ...] = ("Hour", "Day", "Week", "Month")
instants = integers(100 * 86_400, 4_000_000_000)


def at(text: str) -> int:
    """Unix seconds of an ISO time with its offset."""
    return int(datetime.fromisoformat(text).timestamp())


def span(start: str, end: str) -> Span:
    return Span(at(start), at(end))


@given(period=sampled_from(PERIODS), zone=sampled_from(ZONES), instant=instants)
def test_periods_are_contiguous_and_every_instant_is_in_exactly_one(period: Period, zone: str, instant: int) -> None:
    """The period of any of its instants is the same one, and the next begins where it ends."""
    found = period_at(period, zone, instant)
    following = next_period(period, zone, found)

    assert found.start <= instant < found.end
    assert period_at(period, zone, found.start) == found
    assert period_at(period, zone, found.end - 1) == found
    assert following.start == found.end
    assert following.end > following.start


@given(zone=sampled_from(ZONES), instant=instants)
def test_larger_periods_begin_at_the_start_of_a_day(zone: str, instant: int) -> None:
    """A week and a month are made of whole days."""
    for period in ("Week", "Month"):
        found = period_at(period, zone, instant)
        assert period_at("Day", zone, found.start).start == found.start
        assert period_at("Day", zone, found.end).start == found.end


@pytest.mark.parametrize(
    ("period", "zone", "instant", "expected"),
    [
        ("Month", "Etc/UTC", "2026-02-10T00:00+00:00", span("2026-02-01T00:00+00:00", "2026-03-01T00:00+00:00")),
        ("Month", "Etc/UTC", "2028-02-29T23:59:59+00:00", span("2028-02-01T00:00+00:00", "2028-03-01T00:00+00:00")),
        ("Month", "Etc/UTC", "2026-01-31T12:00+00:00", span("2026-01-01T00:00+00:00", "2026-02-01T00:00+00:00")),
        ("Month", "Europe/Berlin", "2026-03-31T23:30+02:00", span("2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00")),
        ("Day", "Europe/Berlin", "2026-03-29T12:00+02:00", span("2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00")),
        ("Day", "Europe/Berlin", "2026-10-25T12:00+01:00", span("2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00")),
        ("Day", "Asia/Beirut", "2022-03-27T12:00+03:00", span("2022-03-27T01:00+03:00", "2022-03-28T00:00+03:00")),
        ("Day", "America/Havana", "2025-11-02T00:30-05:00", span("2025-11-02T00:00-04:00", "2025-11-03T00:00-05:00")),
        ("Day", "Pacific/Apia", "2011-12-29T12:00-10:00", span("2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00")),
        ("Week", "Europe/Berlin", "2026-03-29T12:00+02:00", span("2026-03-23T00:00+01:00", "2026-03-30T00:00+02:00")),
        ("Hour", "Asia/Kathmandu", "2026-01-05T10:20+05:45", span("2026-01-05T10:00+05:45", "2026-01-05T11:00+05:45")),
        ("Hour", "Europe/Berlin", "2026-10-25T02:30+02:00", span("2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00")),
        ("Hour", "Europe/Berlin", "2026-10-25T02:30+01:00", span("2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00")),
        (
            "Hour",
            "Australia/Lord_Howe",
            "2026-04-05T01:45+10:30",
            span("2026-04-05T01:00+11:00", "2026-04-05T02:00+10:30"),
        ),
    ],
)
def test_boundaries_where_calendars_are_odd(period: Period, zone: str, instant: str, expected: Span) -> None:
    """Leap days, skipped and repeated midnights, a skipped date, zones between the hours."""
    assert period_at(period, zone, at(instant)) == expected


def test_an_unknown_zone_is_named_with_what_to_use_instead() -> None:
    """A person who reads the message knows what to write."""
    with pytest.raises(UnknownZone, match=r"'Europe/Bärlin' is not known: use an IANA name"):
        period_at("Day", "Europe/Bärlin", at("2026-01-01T00:00+00:00"))


def test_an_instant_far_outside_of_any_budget_is_refused() -> None:
    """A broken clock gives an error, not a period."""
    with pytest.raises(ValueError, match="outside of the years"):
        period_at("Day", "Etc/UTC", int(datetime(9999, 6, 1, tzinfo=UTC).timestamp()))
