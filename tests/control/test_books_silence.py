"""What the books keep and learn of silences: shares of a limit leased for them, and spending without rights."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ledger_desk import Desk, holder
from ledger_samples import BUDGET, budget, limit, limits_of, report, want
from spendmesh_operator.ledger.document.sections import decode, encode
from spendmesh_sidecar.core.specs import LimitSpec, WindowSpec

KEEPS = replace(limit(1000), on_unverifiable="Survival", survival_percent=10)


def desk_of(spec: LimitSpec = KEEPS) -> Desk:
    desk = Desk()
    desk.limits = limits_of(budget(limits=(spec,)))
    return desk


def test_a_lone_holder_keeps_the_whole_share_inside_the_limit() -> None:
    """It is charged as any right, so that silence can never exceed the limit."""
    desk = desk_of()

    lease = desk.grant(holder(), 10)

    assert (lease.granted, lease.survival) == (110, 100)
    assert desk.state.charged == 110
    assert lease.state.survival == 100


def test_the_share_is_divided_as_holders_come_and_never_exceeded() -> None:
    """The first gives up its half with its next report; only then the second has one."""
    desk = desk_of()
    first, second = desk.grant(holder("pod-a"), 10), desk.grant(holder("pod-b"), 10)
    assert (first.survival, second.survival) == (100, 0)

    (state,) = desk.tell(holder("pod-a"), report(first.id, 5))
    second = desk.grant(holder("pod-b"), 10)

    assert (state.survival, second.survival) == (50, 50)
    assert sum(each.survival for each in desk.books.current(desk.now_ms)[0].leases.values()) == 100


def test_what_is_kept_is_not_in_flight_and_not_for_others() -> None:
    """Waiting does not help a call that only these rights could pay for: exhausted, not in flight."""
    desk = desk_of()
    lease = desk.grant(holder("pod-a"), 900)
    desk.tell(holder("pod-a"), report(lease.id, 895))

    assert desk.refused(holder("pod-b"), want(6)) == ["exhausted"]
    assert desk.refused(holder("pod-b"), want(5)) == ["in_flight"]


def test_a_waiting_call_asks_back_ordinary_rights_only() -> None:
    desk = desk_of()
    lease = desk.grant(holder("pod-a"), 900)
    desk.refused(holder("pod-b"), want(300))

    (state,) = desk.tell(holder("pod-a"), report(lease.id, 600))

    assert (state.recalled, state.survival) == (300, 100)


def test_spent_in_a_silence_it_is_filled_up_afterwards() -> None:
    desk = desk_of()
    lease = desk.grant(holder(), 10)
    (state,) = desk.tell(holder(), report(lease.id, 80))
    assert state.survival == 30

    again = desk.grant(holder(), 5)

    assert (again.survival, again.granted) == (100, 185)


def test_near_the_end_a_need_comes_before_what_is_kept() -> None:
    """No false refusal: the share takes only what the need leaves."""
    desk = desk_of()

    lease = desk.grant(holder(), 950)

    assert (lease.granted, lease.survival) == (1000, 50)
    assert desk.refused(holder("pod-b"), want(51)) == ["in_flight"]


def test_what_is_kept_of_a_rolling_window_counts_in_the_next_part_of_the_same_request() -> None:
    """850 and the 100 that are kept leave 50 of 1000 for any part beside it."""
    desk = desk_of(replace(KEEPS, window=WindowSpec(type="Rolling", duration_seconds=3600)))
    following = replace(want(100), period="next")

    assert desk.refused(holder(), want(850), following) == ["in_flight"]
    assert len(desk.ask(holder(), want(850), replace(following, need=50)).leases) == 2


def test_kept_rights_and_debts_survive_the_document() -> None:
    """A new leader knows what is kept, and tells a debt once."""
    desk = desk_of()
    lease = desk.grant(holder(), 10)
    desk.tell(holder(), report(lease.id, 30, overrun=20, unheld=20))
    desk.books.take_alarms()
    desk.books = decode(encode(desk.books), "test")

    (state,) = desk.tell(holder(), report(lease.id, 30, overrun=20, unheld=20))

    assert (state.survival, state.fenced) == (80, False)
    assert desk.books.take_alarms() == []


def test_what_was_spent_in_a_later_silence_is_told_by_itself() -> None:
    """The alarm says what is new, not the sum."""
    desk = desk_of(replace(limit(1000), on_unverifiable="Allow", allow_cap=500))
    lease = desk.grant(holder(), 10)
    first = report(lease.id, 30, overrun=20, unheld=20)
    desk.tell(holder(), first)
    desk.tell(holder(), report(lease.id, 60, overrun=50, unheld=50, after=first))

    told = [alarm.partition(": ")[2] for alarm in desk.books.take_alarms()]
    assert told == [f"{added} of {BUDGET}/hourly spent while nobody answered" for added in (20, 30)]


@pytest.mark.parametrize("closed", [0, 1])
def test_spending_without_rights_enters_the_books_beyond_the_limit_and_alerts(closed: int) -> None:
    """Charged in full, told once, and nobody is granted anything on top of it."""
    desk = desk_of(replace(limit(1000), on_unverifiable="Allow", allow_cap=500))
    lease = desk.grant(holder(), 900)

    (state,) = desk.tell(holder(), report(lease.id, 1300, overrun=400, unheld=400, closed=closed))

    assert not state.fenced
    assert (desk.state.charged, desk.state.settled) == (1300, 1300)
    assert [
        alarm for alarm in desk.books.take_alarms() if f"400 of {BUDGET}/hourly spent while nobody answered" in alarm
    ]
    assert desk.refused(holder("pod-b"), want(1)) == ["exhausted"]
    assert desk.books.current(desk.now_ms)[0].overrun == 400


def test_after_a_debt_the_next_rights_can_be_spent() -> None:
    """What was spent beyond rights is charged already: rights for it cost nothing, and a need is served at once."""
    desk = desk_of(replace(limit(1000), on_unverifiable="Allow", allow_cap=500))
    lease = desk.grant(holder(), 100)
    desk.tell(holder(), report(lease.id, 400, overrun=300, unheld=300))

    lease = desk.grant(holder(), 50)

    assert (lease.granted, desk.state.charged) == (450, 450)
    assert desk.refused(holder(), want(551)) == ["in_flight"]
    assert desk.grant(holder(), 550).granted == 1000


def test_a_limit_that_no_longer_keeps_lets_its_holders_spend_it() -> None:
    """An edit acts with the next report."""
    desk = desk_of()
    lease = desk.grant(holder(), 10)
    desk.limits = limits_of(budget(limits=(limit(1000),)))

    (state,) = desk.tell(holder(), report(lease.id, 5))

    assert state.survival == 0
