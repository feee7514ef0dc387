"""The forecast of a period's end: exact for steady spend, never below what is spent, none when it is too early."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from ledger_desk import HOUR_MS, Desk, holder
from ledger_fleet import fleet_of
from ledger_samples import START_MS, report
from spendmesh_operator.ledger.books.forecast import Pace, follow, forecast
from spendmesh_operator.ledger.books.rolling import NOTHING
from spendmesh_operator.ledger.books.views import view_of
from spendmesh_operator.ledger.document.sections import decode, encode

DAY = 86_400_000
MONTH = 30 * DAY


def followed(spending: list[int], step_ms: int) -> tuple[Pace | None, int, int]:
    """The pace after these amounts, one for each step; with what was settled, and when."""
    pace, settled, now = None, 0, 0
    for amount in spending:
        now += step_ms
        settled += amount
        pace = follow(pace, settled, 0, MONTH, now)
    return pace, settled, now


@given(per_day=st.integers(1, 10**12), days=st.integers(1, 30))
def test_steady_spend_is_forecast_as_it_will_be(per_day: int, days: int) -> None:
    pace, settled, now = followed([per_day] * days, DAY)
    assert forecast(settled, pace, 0, MONTH, now) == 30 * per_day


@given(spending=st.lists(st.integers(0, 10**15), min_size=1, max_size=30), quarantined=st.integers(0, 10**15))
def test_it_is_never_less_than_what_is_spent_and_at_the_end_it_is_that(spending: list[int], quarantined: int) -> None:
    pace, settled, now = followed(spending, DAY)
    spent = settled + quarantined
    found = forecast(spent, pace, 0, MONTH, now)
    assert found is not None
    assert found >= spent
    assert forecast(spent, follow(pace, settled, 0, MONTH, MONTH), 0, MONTH, MONTH) == spent


@pytest.mark.parametrize(("elapsed", "there"), [(MONTH // 100 - 1, False), (MONTH // 100, True)])
def test_there_is_none_in_the_first_hundredth_of_the_period(elapsed: int, there: bool) -> None:
    """One call in the first minute says nothing about the month."""
    pace = follow(None, 1000, 0, MONTH, elapsed)
    assert (forecast(1000, pace, 0, MONTH, elapsed) is not None) is there


def test_a_new_habit_shows_within_days_and_one_busy_hour_does_not_double_the_bill() -> None:
    """Ten days at 1 a day. Three days at 10 then more than double the forecast; one hour at 10 a day changes little."""
    steady = [1000] * 240  # an hour each, 24,000 a day
    before = followed(steady, DAY // 24)
    habit = followed([*steady, *[10_000] * 72], DAY // 24)
    hour = followed([*steady, 10_000], DAY // 24)
    base = forecast(before[1], before[0], 0, MONTH, before[2])
    assert base == 720_000
    assert (forecast(habit[1], habit[0], 0, MONTH, habit[2]) or 0) > 3 * base
    assert (forecast(hour[1], hour[0], 0, MONTH, hour[2]) or 0) < 1.25 * base


def test_a_correction_or_a_clock_that_goes_back_breaks_nothing() -> None:
    pace = follow(None, 1000, 0, MONTH, DAY)
    assert follow(pace, 1000, 0, MONTH, DAY - 1) == pace
    assert pace is not None
    lowered = follow(pace, 0, 0, MONTH, 2 * DAY)
    assert lowered is not None
    assert lowered.per_day < pace.per_day
    assert 0 <= (forecast(0, lowered, 0, MONTH, 2 * DAY) or 0) < 30_000


def test_when_a_period_began_changes_nothing_but_the_time() -> None:
    first, later = (follow(None, 1000, start, start + MONTH, start + DAY) for start in (0, 700 * DAY))
    first = follow(first, 9000, 0, MONTH, 3 * DAY)
    later = follow(later, 9000, 700 * DAY, 700 * DAY + MONTH, 703 * DAY)
    assert first is not None
    assert later == replace(first, at_ms=703 * DAY)


def test_a_pace_is_followed_after_the_start_and_at_the_end_too() -> None:
    assert follow(None, 1000, 0, MONTH, 0) is None
    pace = follow(None, 1000, 0, MONTH, DAY)
    last = follow(pace, 2000, 0, MONTH, MONTH)
    assert last is not None
    assert (last.at_ms, last.settled) == (MONTH, 2000)
    assert follow(last, 3000, 0, MONTH, MONTH + 1) == last


def test_one_instant_has_one_pace_and_a_millisecond_later_there_is_another() -> None:
    pace = follow(None, 1000, 0, MONTH, DAY)
    assert follow(pace, 2000, 0, MONTH, DAY) == pace
    later = follow(pace, 2000, 0, MONTH, DAY + 1)
    assert later is not None
    assert later.settled == 2000


@pytest.mark.parametrize("now", [2 * DAY, MONTH + DAY])
def test_spend_that_was_corrected_is_forecast_to_grow_no_more(now: int) -> None:
    """Nor is it after the end, where less time than none is left."""
    assert forecast(5, Pace(DAY, 0, -(10**12)), 0, MONTH, now) == 5


def test_what_is_seen_of_an_account_is_of_its_own_hour() -> None:
    """What holders hold is charged, and neither settled nor in quarantine."""
    desk = Desk()
    lease = desk.grant(holder(), 200)
    desk.tell(holder(), report(lease.id, 70))
    desk.grant(holder("pod-b"), 40)
    desk.books.quarantine(["pod-b"], "silent")
    desk.pass_time(600_000)
    (account,) = desk.books.current(desk.now_ms)

    view = view_of(account, NOTHING, desk.now_ms)

    assert (view.held, view.quarantined, view.state.settled) == (130, 40, 70)
    assert view.forecast == forecast(110, account.pace, START_MS, START_MS + HOUR_MS, desk.now_ms)


def test_a_restart_goes_on_with_the_pace_that_was_stored() -> None:
    """A new leader's forecast does not begin anew."""
    fleet = fleet_of(10**12)
    pod = fleet.start()
    fleet.run(120.0, lambda: pod.call(10**6, 10**6))
    account = fleet.account
    again = decode(encode(fleet.books), "test").current(fleet.now_ms)[0]

    assert account.pace is not None
    assert again.pace == account.pace
    assert view_of(again, NOTHING, fleet.now_ms).forecast == view_of(account, NOTHING, fleet.now_ms).forecast
    assert (view_of(account, NOTHING, fleet.now_ms).forecast or 0) == pytest.approx(10**6 * 4 * 3600, rel=0.1)


def test_the_books_follow_the_pace_of_a_period_until_its_end() -> None:
    """Each sweep brings what was settled since into the pace of the account's own hour; after it nothing changes."""
    desk, paces = Desk(), list[Pace | None]()
    lease = desk.grant(holder(), 900)
    (account,) = desk.books.holdings.accounts.values()
    told, pace = None, None
    for used, minutes in ((100, 10), (400, 15), (500, 34), (600, 2)):
        told = report(lease.id, used, after=told)
        desk.tell(holder(), told)
        desk.pass_time(minutes * 60_000)
        pace = follow(pace, used, START_MS, START_MS + HOUR_MS, desk.now_ms)
        paces.append(account.pace)
        assert account.pace == pace
    assert paces[2] == paces[3], "61 minutes after its start"
    assert len(set(paces)) == 3
