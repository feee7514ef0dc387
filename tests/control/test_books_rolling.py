"""Rolling windows in the books: what counts together, when it comes free, and what people are told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from ledger_desk import Desk, holder
from ledger_samples import BUDGET, REF, START_MS, budget, limit, limits_of, report, want
from rolling_desk import HOUR, PART_MS, Rolling
from spendmesh_operator.ledger.books.accounts import Account, AccountKey, InvariantViolated, Lease
from spendmesh_operator.ledger.books.granting import check_grant
from spendmesh_operator.ledger.books.periods import ROLLING_PARTS, Span, counts_until, span_after, span_at
from spendmesh_operator.ledger.books.rolling import Beside
from spendmesh_operator.ledger.books.views import views_of
from spendmesh_operator.ledger.document.sections import decode, encode
from spendmesh_operator.status import limit_views
from spendmesh_operator.status.books import period_name
from spendmesh_operator.status.budget import within_budget
from spendmesh_sidecar.core.specs import WindowSpec
from spendmesh_sidecar.protocol import AccountState, Want

DAY = WindowSpec(type="Rolling", duration_seconds=86_400)


def state(rolling: Rolling) -> AccountState:
    return rolling.desk.state


def spend_all(rolling: Rolling, uid: str = "pod-a") -> int:
    """Ask for everything and spend it."""
    spent = 0
    while not rolling.ask(uid, 1, rolling.amount):
        spent += rolling.spend(uid, rolling.amount)
    rolling.report(uid)
    return spent


@pytest.mark.parametrize(("seconds", "part"), [(3600, 150), (86_400, 3600), (31 * 86_400, 111_600), (3601, 151)])
def test_a_window_is_made_of_parts_that_are_never_too_short(seconds: int, part: int) -> None:
    """24 parts cover the whole window, also where it cannot be divided evenly."""
    window = WindowSpec(type="Rolling", duration_seconds=seconds)
    found = span_at(window, 1_767_607_200)
    assert found.end - found.start == part
    assert span_after(window, found) == Span(found.end, found.end + part)
    assert ROLLING_PARTS * part >= seconds
    assert counts_until(window, found) - found.end >= seconds


def test_what_is_spent_counts_until_it_has_left_every_window() -> None:
    """At the last instant of the window it counts, and soon after it is free again."""
    rolling = Rolling()
    assert spend_all(rolling) == 1000
    rolling.pass_ms(3_600_000)
    assert rolling.ask("pod-a", 1, 1) == ["exhausted"]
    rolling.pass_ms(PART_MS)
    assert rolling.ask("pod-a", 1, 1) == []


@pytest.mark.parametrize("late_seconds", [0, 1, 75, 149])
def test_whenever_in_a_part_it_is_spent_no_window_holds_more_than_the_amount(late_seconds: int) -> None:
    """Spent late in a part, it is one length of the window away from the next spending all the same."""
    rolling = Rolling()
    rolling.pass_ms(late_seconds * 1000)
    for _ in range(2 * 3600 // 30):
        spend_all(rolling)
        rolling.pass_ms(30_000)
    assert rolling.most_in_any_window() == 1000
    assert sum(amount for _, amount in rolling.spent) == 2000


def test_rights_for_the_next_part_are_not_shown_as_held_in_this_one() -> None:
    """As with calendar periods; and yet they leave less to grant."""
    rolling = Rolling()
    assert rolling.ask("pod-a", 100, 100, "next") == []
    (view,) = views_of(rolling.desk.books.holdings, rolling.desk.now_ms)
    assert (view.held, len(view.holders)) == (100, 1)
    assert view.state.charged > 100


def test_parts_of_one_request_count_together() -> None:
    """Rights for the running part and for the next one, asked for at once, are in one window."""
    rolling = Rolling()
    current, following = want(600), Want(account=REF, need=401, want=401, period="next")
    assert rolling.desk.refused(holder(), current, following) == ["in_flight"]
    assert rolling.desk.refused(holder(), current, replace(following, need=400, want=400)) == []


def test_the_books_refuse_a_grant_that_a_neighboring_part_leaves_no_room_for() -> None:
    """I1 over the row of parts, whoever chose the size."""
    account = Account(AccountKey("test", BUDGET, "hourly", (), 0), 150, limit(1000, window=HOUR))
    before, after = Lease("a", holder()), Lease("a", holder(), granted=100)
    check_grant(account, before, after, 100, Beside(charged=900))
    with pytest.raises(InvariantViolated, match="exceed 1000"):
        check_grant(account, before, after, 100, Beside(charged=901))


def test_spent_and_held_of_earlier_parts_tell_exhausted_from_in_flight() -> None:
    """What is spent does not come back soon; what others hold may."""
    rolling = Rolling()
    rolling.ask("pod-a", 600, 600)
    rolling.spend("pod-a", 600)
    rolling.report("pod-a")
    rolling.pass_ms(2 * PART_MS)
    rolling.ask("pod-b", 300, 300)
    assert rolling.ask("pod-c", 200, 200) == ["in_flight"]
    assert rolling.ask("pod-c", 500, 500) == ["exhausted"]
    assert rolling.ask("pod-c", 1001, 1001) == ["too_large"]


def test_state_and_threshold_are_those_of_the_window() -> None:
    """Settled in two parts, told as one sum, with when the first of it comes free."""
    rolling = Rolling()
    for amount in (500, 350):
        rolling.ask("pod-a", amount, amount)
        rolling.spend("pod-a", amount)
        rolling.report("pod-a")
        rolling.pass_ms(PART_MS)
    rolling.report("pod-a")
    found = state(rolling)
    assert (found.amount, found.settled, found.charged, found.crossed_percent) == (1000, 850, 850, 80)
    assert found.resets_in_ms == START_MS + (ROLLING_PARTS + 1) * PART_MS - rolling.desk.now_ms


def test_before_anyone_asks_in_a_new_part_the_older_ones_are_told() -> None:
    """A quiet hour is no empty one."""
    rolling = Rolling()
    spend_all(rolling)
    rolling.pass_ms(10 * PART_MS)
    rolling.report("pod-a")
    (view,) = views_of(rolling.desk.books.holdings, rolling.desk.now_ms)
    assert (view.state.settled, view.held, view.quarantined) == (1000, 0, 0)
    assert view.since * 1000 == view.key.start * 1000 - ROLLING_PARTS * PART_MS
    assert len(rolling.desk.books.holdings.accounts) == 1  # the draft is not kept
    spec = budget(limits=(limit(1000, window=HOUR),))
    (shown,) = limit_views(spec, [view], datetime.fromtimestamp(rolling.desk.now_ms / 1000, UTC))
    assert (shown.period, shown.stage, shown.settled) == ("Rolling 1h", "Exhausted", 1000)
    assert shown.resets_at.timestamp() * 1000 == START_MS + (ROLLING_PARTS + 1) * PART_MS
    (unused,) = limit_views(spec, [], datetime.fromtimestamp(rolling.desk.now_ms / 1000, UTC))
    assert unused.period_start == shown.period_start
    _, _, said = within_budget((shown,), observed=False, readable=True)
    assert "until a part of it comes free at 2026-01-05T11:02:30Z" in said


def test_who_waits_gets_back_what_is_set_aside_for_the_next_part() -> None:
    """Rights in a neighboring part are recalled as those in the running one are."""
    rolling = Rolling()
    ahead = Want(account=REF, need=300, want=300, period="next")
    (lease,) = rolling.desk.ask(holder(), ahead).leases
    assert rolling.ask("pod-b", 900, 900) == ["in_flight"]
    (answer,) = rolling.desk.tell(holder(), report(lease.id, 0))
    assert answer.recalled == 200


def test_a_silent_holder_of_an_earlier_part_stays_charged_in_full() -> None:
    """Quarantined rights count for as long as they might have been spent within the window."""
    rolling = Rolling()
    rolling.ask("pod-a", 400, 400)
    rolling.desk.books.quarantine(["pod-a"], "gone")
    rolling.pass_ms(10 * PART_MS)
    assert state(rolling).charged == 400
    assert rolling.ask("pod-b", 601, 601) == ["exhausted"]
    assert rolling.ask("pod-b", 600, 600) == []


def test_parts_that_a_window_needs_survive_sweep_and_restart() -> None:
    """And are dropped once none has needed them for as long, so that a clock that is ahead drops none too early."""
    rolling = Rolling()
    spend_all(rolling)
    rolling.pass_ms(PART_MS)
    rolling.report("pod-a")
    rolling.pass_ms(ROLLING_PARTS * PART_MS - 1)
    books = decode(encode(rolling.desk.books), "test")
    assert [account.charged for account in books.holdings.accounts.values()] == [1000]
    rolling.pass_ms((ROLLING_PARTS + 1) * PART_MS)
    assert len(rolling.desk.books.holdings.accounts) == 1
    rolling.pass_ms(1)
    assert rolling.desk.books.holdings.accounts == {}


def test_a_calendar_limit_of_the_same_name_waits_for_the_window_to_end() -> None:
    """Removed and added again with another window, it cannot reset spend."""
    rolling = Rolling()
    rolling.pass_ms(PART_MS)
    spend_all(rolling)
    rolling.pass_ms(PART_MS)
    rolling.report("pod-a")
    rolling.desk.limits = limits_of(budget(limits=(limit(1000, window=WindowSpec(period="Hour")),)))
    assert rolling.ask("pod-b", 1, 1) == ["unverifiable"]
    rolling.pass_ms(ROLLING_PARTS * PART_MS)
    assert rolling.ask("pod-b", 1, 1) == []


def test_a_raised_limit_acts_on_the_running_window_and_a_lowered_one_recalls() -> None:
    rolling = Rolling()
    spend_all(rolling)
    rolling.pass_ms(PART_MS)
    rolling.report("pod-a")
    rolling.desk.limits = limits_of(budget(limits=(limit(1200, window=HOUR),)))
    assert rolling.ask("pod-b", 200, 200) == []
    rolling.desk.limits = limits_of(budget(limits=(limit(1100, window=HOUR),)))
    [rights] = rolling.rights.values()
    (answer,) = rolling.desk.tell(holder("pod-b"), rights.report())
    assert answer.recalled == 200


def test_two_rolling_limits_do_not_count_together() -> None:
    """Only parts of one limit are a row."""
    desk = Desk()
    one, other = limit(1000, window=HOUR), limit(1000, window=HOUR, name="other")
    desk.limits = limits_of(budget(limits=(one, other)))
    elsewhere = want(1000, ref=REF.__class__(budget=BUDGET, limit="other"))
    assert desk.refused(holder(), want(1000), elsewhere) == []


def test_a_day_is_divided_into_hours() -> None:
    """So that a person can follow it."""
    assert span_at(DAY, 1_767_607_200) == Span(1_767_607_200, 1_767_610_800)


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(3600, "Rolling 1h"), (86_400, "Rolling 24h"), (5_400, "Rolling 1h30m"), (3661, "Rolling 1h1m1s")],
)
def test_a_rolling_window_is_called_by_its_length(seconds: int, name: str) -> None:
    assert period_name(WindowSpec(type="Rolling", duration_seconds=seconds)) == name
