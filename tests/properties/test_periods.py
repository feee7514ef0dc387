"""Calendar periods leave no gap and never overlap, in any zone, also where clocks change. Row 10 of the fault table."""

from __future__ import annotations

import zoneinfo
from calendar import monthrange
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from spendmesh_operator.ledger.books.periods import Span, UnknownZone, span_after, span_at
from spendmesh_sidecar.core.specs import Period, WindowSpec

ZONES = sorted(zoneinfo.available_timezones())
ANCHORED: tuple[Period, ...] = ("Month", "Quarter", "Year")
PERIODS: tuple[Period, ...] = ("Hour", "Day", "Week", *ANCHORED)
instants = integers(3 * 366 * 86_400, 4_000_000_000)


def at(text: str) -> int:
    """Unix seconds of an ISO time with its offset."""
    return int(datetime.fromisoformat(text).timestamp())


def window(period: Period, zone: str = "Etc/UTC", anchor_day: int = 1) -> WindowSpec:
    return WindowSpec(period=period, time_zone=zone, anchor_day=anchor_day)


def span(start: str, end: str) -> Span:
    return Span(at(start), at(end))


@given(period=sampled_from(PERIODS), zone=sampled_from(ZONES), anchor_day=integers(1, 31), instant=instants)
def test_periods_are_contiguous_and_every_instant_is_in_exactly_one(
    period: Period, zone: str, anchor_day: int, instant: int
) -> None:
    """The period of any of its instants is the same one, and the next begins where it ends."""
    its = window(period, zone, anchor_day)
    found = span_at(its, instant)
    following = span_after(its, found)

    assert found.start <= instant < found.end
    assert span_at(its, found.start) == found
    assert span_at(its, found.end - 1) == found
    assert following.start == found.end
    assert following.end > following.start


@given(zone=sampled_from(ZONES), anchor_day=integers(1, 31), instant=instants)
def test_larger_periods_begin_at_the_start_of_a_day(zone: str, anchor_day: int, instant: int) -> None:
    """A week, a month, a quarter and a year are made of whole days."""
    for period in ("Week", *ANCHORED):
        found = span_at(window(period, zone, anchor_day), instant)
        assert span_at(window("Day", zone), found.start).start == found.start
        assert span_at(window("Day", zone), found.end).start == found.end


@given(zone=sampled_from(ZONES), anchor_day=integers(1, 31), instant=instants)
def test_a_quarter_is_three_months_and_a_year_four_quarters(zone: str, anchor_day: int, instant: int) -> None:
    """Periods of one anchor day share their boundaries."""
    for shorter, longer, count in (("Month", "Quarter", 3), ("Quarter", "Year", 4)):
        whole = span_at(window(longer, zone, anchor_day), instant)
        part = span_at(window(shorter, zone, anchor_day), whole.start)
        assert part.start == whole.start
        for _ in range(count - 1):
            part = span_after(window(shorter, zone, anchor_day), part)
        assert part.end == whole.end


@given(anchor_day=integers(1, 31), instant=instants)
def test_an_anchored_month_begins_on_its_day_or_on_the_last_of_a_shorter_month(anchor_day: int, instant: int) -> None:
    begins = datetime.fromtimestamp(span_at(window("Month", anchor_day=anchor_day), instant).start, UTC)
    assert begins.day == min(anchor_day, monthrange(begins.year, begins.month)[1])


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
    assert span_at(window(period, zone), at(instant)) == expected


@pytest.mark.parametrize(
    ("zone", "before", "after", "expected"),
    [
        (
            "Australia/Lord_Howe",
            "2026-04-05T01:10+11:00",
            "2026-04-05T01:40+10:30",
            span("2026-04-05T01:00+11:00", "2026-04-05T02:00+10:30"),
        ),
        (
            "Australia/Lord_Howe",
            "2026-10-04T01:10+10:30",
            "2026-10-04T02:40+11:00",
            span("2026-10-04T01:00+10:30", "2026-10-04T03:00+11:00"),
        ),
        (
            "America/St_Johns",
            "2006-10-29T00:00:30-02:30",
            "2006-10-28T23:30-03:30",
            span("2006-10-29T00:00-02:30", "2006-10-29T00:00-03:30"),
        ),
        (
            "America/St_Johns",
            "2007-03-11T00:00:30-03:30",
            "2007-03-11T01:30-02:30",
            span("2007-03-11T00:00-03:30", "2007-03-11T02:00-02:30"),
        ),
        (
            "Pacific/Chatham",
            "2026-04-05T03:10+13:45",
            "2026-04-05T02:50+12:45",
            span("2026-04-05T03:00+13:45", "2026-04-05T03:00+12:45"),
        ),
        (
            "Pacific/Chatham",
            "2026-09-27T02:10+12:45",
            "2026-09-27T03:50+13:45",
            span("2026-09-27T02:00+12:45", "2026-09-27T04:00+13:45"),
        ),
    ],
)
def test_an_hour_in_which_the_clock_changes_is_one_seen_from_either_side(
    zone: str, before: str, after: str, expected: Span
) -> None:
    """By half an hour, or between full hours: it ends when the clock next reads one."""
    instants = [at(before), at(after), *range(expected.start, expected.end, 7)]
    assert {span_at(window("Hour", zone), instant) for instant in instants} == {expected}


@pytest.mark.parametrize(
    ("period", "anchor_day", "instant", "expected"),
    [
        ("Month", 15, "2026-03-14T23:59+00:00", span("2026-02-15T00:00+00:00", "2026-03-15T00:00+00:00")),
        ("Month", 15, "2026-03-15T00:00+00:00", span("2026-03-15T00:00+00:00", "2026-04-15T00:00+00:00")),
        ("Month", 31, "2026-02-28T00:00+00:00", span("2026-02-28T00:00+00:00", "2026-03-31T00:00+00:00")),
        ("Month", 31, "2026-02-27T23:59+00:00", span("2026-01-31T00:00+00:00", "2026-02-28T00:00+00:00")),
        ("Month", 30, "2028-02-29T12:00+00:00", span("2028-02-29T00:00+00:00", "2028-03-30T00:00+00:00")),
        ("Month", 29, "2027-02-28T12:00+00:00", span("2027-02-28T00:00+00:00", "2027-03-29T00:00+00:00")),
        ("Quarter", 1, "2026-05-31T12:00+00:00", span("2026-04-01T00:00+00:00", "2026-07-01T00:00+00:00")),
        ("Quarter", 31, "2026-04-29T12:00+00:00", span("2026-01-31T00:00+00:00", "2026-04-30T00:00+00:00")),
        ("Year", 1, "2028-02-29T12:00+00:00", span("2028-01-01T00:00+00:00", "2029-01-01T00:00+00:00")),
        ("Year", 6, "2026-01-05T12:00+00:00", span("2025-01-06T00:00+00:00", "2026-01-06T00:00+00:00")),
    ],
)
def test_an_anchor_day_moves_the_beginning(period: Period, anchor_day: int, instant: str, expected: Span) -> None:
    """The 29th to 31st fall back to a month's last day, leap years included."""
    assert span_at(window(period, anchor_day=anchor_day), at(instant)) == expected


def test_an_unknown_zone_is_named_with_what_to_use_instead() -> None:
    """A person who reads the message knows what to write."""
    with pytest.raises(UnknownZone, match=r"'Europe/Bärlin' is not known: use an IANA name"):
        span_at(window("Day", "Europe/Bärlin"), at("2026-01-01T00:00+00:00"))


@pytest.mark.parametrize(("first", "outside"), [("1970-01-02", -1), ("9990-01-01", 86_400)])
def test_the_first_and_the_last_day_that_are_told(first: str, outside: int) -> None:
    """Beyond them calendars have no names for the neighboring periods."""
    start = at(f"{first}T00:00+00:00")
    assert span_at(window("Day"), start) == Span(start, start + 86_400)
    with pytest.raises(ValueError, match="outside of the years"):
        span_at(window("Day"), start + outside)


def test_an_instant_far_outside_of_any_budget_is_refused() -> None:
    """A broken clock gives an error, not a period."""
    with pytest.raises(ValueError, match="outside of the years"):
        span_at(window("Day"), int(datetime(9999, 6, 1, tzinfo=UTC).timestamp()))
