"""Proof that came later: what a vanished pod really used, booked once, and never undone by what it says afterwards."""

from __future__ import annotations

import pytest

from ledger_desk import Desk, holder
from ledger_samples import report
from spendmesh_operator.ledger.books.accounts import Account, BadRequest
from spendmesh_operator.ledger.books.correcting import correct, settle_quarantined
from spendmesh_operator.ledger.document.sections import decode, encode

POD = "team-a/pod-a"


def vanished(granted: int = 300, used: int = 100) -> tuple[Desk, Account, str]:
    """A deleted pod that held 300 and had reported 100; its lease."""
    desk = Desk()
    lease = desk.grant(holder(), granted)
    desk.tell(holder(), report(lease.id, used))
    desk.books.quarantine(["pod-a"], "gone")
    (account,) = desk.books.current(desk.now_ms)
    return desk, account, lease.id


def settle(desk: Desk, account: Account, used: int, reference: str = "invoice-1", pod: str = POD) -> None:
    settle_quarantined(desk.books, account.key, pod, used, reference, "line 17", desk.now_ms)


def test_what_was_not_used_is_free_again() -> None:
    desk, account, _ = vanished()
    assert (account.charged, account.totals.quarantined) == (300, 300)

    settle(desk, account, 120)

    assert (account.charged, account.settled, account.totals.quarantined) == (120, 120, 0)
    (correction,) = account.corrections
    assert (correction.reference, correction.delta, correction.evidence) == ("invoice-1", -180, "line 17")
    assert desk.grant(holder("pod-b"), 880).granted == 880
    again = decode(encode(desk.books), "test").current(desk.now_ms)[0]
    assert (again.charged, again.corrections) == (1000, account.corrections)


def test_the_same_reference_counts_once() -> None:
    desk, account, _ = vanished()
    settle(desk, account, 120)
    settle(desk, account, 120)
    settle(desk, account, 100)
    assert (account.charged, len(account.corrections)) == (120, 1)


def test_a_late_report_changes_nothing_and_is_fenced() -> None:
    """The lease is closed: nothing is given back a second time."""
    desk, account, lease = vanished()
    settle(desk, account, 120)

    (state,) = desk.tell(holder(), report(lease, 100, released=200, closed=1, after=report(lease, 100)))

    assert state.fenced
    assert account.charged == 120


def test_all_lost_incarnations_of_a_pod_are_settled_together() -> None:
    desk = Desk()
    for nonce in ("first", "second", "third"):
        desk.grant(holder(nonce=nonce), 100)
    desk.books.quarantine(["pod-a"], "gone")
    (account,) = desk.books.current(desk.now_ms)
    settle(desk, account, 50)
    assert (account.charged, account.leases) == (50, {})


@pytest.mark.parametrize("used", [100, 300])
def test_it_may_have_used_just_what_it_had_reported_or_all_that_it_held(used: int) -> None:
    desk, account, _ = vanished()
    settle(desk, account, used)
    assert (account.charged, account.leases) == (used, {})


@pytest.mark.parametrize("used", [99, 301, -1])
def test_less_than_was_reported_and_more_than_is_charged_are_refused(used: int) -> None:
    desk, account, _ = vanished()
    before = encode(desk.books)
    with pytest.raises(BadRequest, match="reported 100 and is charged 300"):
        settle(desk, account, used)
    assert encode(desk.books) == before


def test_a_pod_that_is_merely_silent_is_not_settled() -> None:
    """It may come back and spend what would have been given to others."""
    desk = Desk()
    desk.grant(holder(), 300)
    desk.books.quarantine(["pod-a"], "silent")
    (account,) = desk.books.current(desk.now_ms)
    with pytest.raises(BadRequest, match="Delete the pod first"):
        settle(desk, account, 0)
    assert account.charged == 300


def test_a_deleted_pod_that_said_one_word_more_can_still_be_settled() -> None:
    """Its last report opened the lease again, and then it was merely silent: nothing could delete it once more."""
    desk, account, lease = vanished()
    desk.tell(holder(), report(lease, 110, after=report(lease, 100)))
    assert account.totals.quarantined == 0
    desk.books.quarantine(["pod-a"], "silent")
    settle(desk, account, 120)
    assert (account.charged, account.leases) == (120, {})


def test_a_pod_that_was_taken_for_deleted_and_is_there_is_not_settled() -> None:
    """Who says which pods there are was wrong, or late: it may come back and spend."""
    desk, account, lease = vanished()
    desk.books.pods.mark_there(["pod-a"])
    desk.tell(holder(), report(lease, 110, after=report(lease, 100)))
    desk.books.quarantine(["pod-a"], "silent")
    with pytest.raises(BadRequest, match="Delete the pod first"):
        settle(desk, account, 120)


@pytest.mark.parametrize("pod", ["team-a/pod-b", "team-b/pod-a", "pod-a", ""])
def test_another_pod_is_not_settled(pod: str) -> None:
    desk, account, _ = vanished()
    desk.grant(holder("pod-b"), 10)
    with pytest.raises(BadRequest, match="has nothing in quarantine"):
        settle(desk, account, 0, pod=pod)


def test_a_correction_never_makes_spend_negative() -> None:
    desk, account, _ = vanished()
    with pytest.raises(BadRequest, match="takes back more than"):
        correct(desk.books, account.key, "r", -1, "nothing is closed yet", desk.now_ms)
    settle(desk, account, 120)
    with pytest.raises(BadRequest, match="takes back more than"):
        correct(desk.books, account.key, "r", -121, "more than all that is left of it", desk.now_ms)
    correct(desk.books, account.key, "r", -120, "the provider refunded it", desk.now_ms)
    assert account.charged == 0
