"""What reports do to the books: merged by maximum, closed once, bound to their holder, copies noticed."""

from __future__ import annotations

import pytest

from ledger_desk import Desk, holder
from ledger_samples import report, want
from spendmesh_operator.ledger.books.accounts import BadRequest, HolderFenced, NotYours
from spendmesh_operator.ledger.books.books import MAX_REPORTS
from spendmesh_sidecar.protocol import (
    LeaseReport,
    LeaseState,
)

# --- reports ------------------------------------------------------------------------------------------------


def test_closing_frees_what_was_not_used() -> None:
    """granted - used can be granted again, at once."""
    desk = Desk()
    lease = desk.grant(holder(), 100)

    (state,) = desk.tell(holder(), report(lease.id, 30, closed=1))

    assert (state.fenced, state.sequence) == (False, 1)
    assert (desk.state.settled, desk.state.charged) == (30, 30)


def test_a_close_that_still_holds_is_no_close() -> None:
    """`closed` is final only with nothing held."""
    desk = Desk()
    lease = desk.grant(holder(), 100)

    desk.tell(holder(), report(lease.id, 30, held=5, closed=1))

    assert desk.state.charged == 100


def test_released_rights_are_free_again() -> None:
    """A holder gives back without closing."""
    desk = Desk()
    lease = desk.grant(holder(), 100)

    desk.tell(holder(), report(lease.id, 30, released=60))

    assert (desk.state.settled, desk.state.charged) == (30, 40)


def test_repeated_reordered_and_lost_reports_add_nothing() -> None:
    """Row 11: cumulative, merged by maximum."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    first = report(lease.id, 10, held=5)
    second = report(lease.id, 20, after=first)
    third = report(lease.id, 30, after=second)

    for late in (third, first, third, second):
        desk.tell(holder(), late)

    assert (desk.state.settled, desk.state.charged) == (30, 100)


def test_billed_beyond_the_reservation_is_charged_and_counted_as_its_own_number() -> None:
    """The provider's bill is the truth, even above the limit."""
    desk = Desk()
    lease = desk.grant(holder(), 1000)

    desk.tell(holder(), report(lease.id, 1050, overrun=50))

    (account,) = desk.books.current(desk.now_ms)
    assert (desk.state.charged, account.overrun, account.leases[lease.id].quarantined) == (1050, 50, "")
    assert desk.refused(holder("pod-b"), want(1)) == ["exhausted"]


def test_spending_beyond_ones_rights_freezes_the_lease() -> None:
    """I2 broken by a holder: charged, frozen, told; its nonce gets nothing more."""
    desk = Desk()
    lease = desk.grant(holder(), 10)

    (state,) = desk.tell(holder(), report(lease.id, 8, held=5))

    assert state.fenced
    assert desk.state.charged == 13
    assert "use exceeds its rights" in desk.books.take_alarms()[0]
    with pytest.raises(HolderFenced):
        desk.ask(holder(), want(1))


@pytest.mark.parametrize(
    "values",
    [
        {"used": -1},
        {"used": 10**18 + 1},
        {"used": 1, "held": -1},
        {"used": 1, "released": -5},
        {"used": 1, "overrun": 2},
        {"used": 1, "sequence": 0},
    ],
)
def test_impossible_reports_are_refused_and_harm_no_other_lease(values: dict[str, int]) -> None:
    """The whole message is checked before anything is merged."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    bad = LeaseReport(**{"lease": lease.id, "sequence": 1, "held": 0, **values})  # type: ignore[arg-type]

    with pytest.raises(BadRequest):
        desk.tell(holder(), report(lease.id, 50), bad)

    assert desk.state.settled == 0


def test_an_unknown_lease_is_answered_fenced() -> None:
    """Its holder stops spending from it."""
    (state,) = Desk().tell(holder(), report("nobody-1", 5))

    assert state == LeaseState(lease="nobody-1", sequence=1, fenced=True)


def test_a_message_has_as_many_reports_as_are_read_and_no_more() -> None:
    """A longer one is refused whole, and says how many would do."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    most = [report(lease.id, used) for used in range(MAX_REPORTS)]

    assert desk.tell(holder(), *most)[-1].sequence == most[-1].sequence
    with pytest.raises(BadRequest, match=f"at most {MAX_REPORTS}"):
        desk.tell(holder(), *most, report(lease.id, 0))


def test_one_pod_cannot_report_or_close_for_another() -> None:
    """Bound to the pod by its token, not by what the body says."""
    desk = Desk()
    lease = desk.grant(holder("pod-b"), 100)

    with pytest.raises(NotYours, match="belongs to another pod"):
        desk.tell(holder(), report(lease.id, 0, closed=1))

    assert desk.state.charged == 100


def test_one_pod_cannot_take_anothers_nonce() -> None:
    """Neither to acquire nor to report."""
    desk = Desk()
    desk.grant(holder("pod-b"), 100)
    thief = holder("pod-a", nonce="pod-b-nonce")

    with pytest.raises(NotYours):
        desk.ask(thief, want(1))
    with pytest.raises(NotYours):
        desk.tell(thief)


# --- copied state -------------------------------------------------------------------------------------------


def test_two_histories_of_one_lease_freeze_it_and_charge_both() -> None:
    """A copied log: each copy might spend all rights."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    common = report(lease.id, 10)
    desk.tell(holder(), common, report(lease.id, 20, after=common))

    (state,) = desk.tell(holder(), report(lease.id, 25, after=common))

    assert state.fenced
    assert desk.state.charged == 200
    assert "two histories" in desk.books.take_alarms()[0]


def test_neither_history_of_a_copied_lease_closes_it() -> None:
    """The other copy may still spend; only a correction with evidence lowers the charge."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    common = report(lease.id, 10)
    second = report(lease.id, 20, after=common)
    desk.tell(holder(), common, second, report(lease.id, 25, after=common))

    (state,) = desk.tell(holder(), report(lease.id, 20, after=second, closed=1))

    assert state.fenced
    assert desk.state.charged == 200


def test_a_newer_report_that_took_spend_back_is_a_copy_too() -> None:
    """Counters never fall, so one that fell belongs to another history."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    first = report(lease.id, 40)
    desk.tell(holder(), first)

    (state,) = desk.tell(holder(), report(lease.id, 30, after=first))

    assert state.fenced
