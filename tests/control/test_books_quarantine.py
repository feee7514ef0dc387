"""Silent, replaced and deleted holders: charged in full until proof; and rights that are asked back."""

from __future__ import annotations

import pytest

from ledger_desk import Desk, holder
from ledger_samples import budget, limits_of, report, want
from spendmesh_operator.ledger.books.accounts import HolderFenced
from spendmesh_operator.ledger.books.fencing import RESTLESS
from spendmesh_operator.ledger.books.pods import TURNS_MAX, TURNS_MS
from spendmesh_operator.ledger.document.sections import decode, encode

# --- quarantine ---------------------------------------------------------------------------------------------


def test_a_silent_holder_is_charged_in_full_and_a_sign_of_life_opens_its_lease_again() -> None:
    """Never refunded by a clock; nothing was given to anyone else meanwhile, so it may go on."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    first = report(lease.id, 30)
    desk.tell(holder(), first)

    desk.books.quarantine(["pod-a"], "silent")
    (account,) = desk.books.current(desk.now_ms)
    assert (desk.state.charged, account.totals.quarantined) == (100, 100)

    (state,) = desk.tell(holder(), report(lease.id, 40, after=first))
    assert not state.fenced
    assert (account.totals.quarantined, desk.state.settled) == (0, 40)


def test_an_empty_report_is_a_sign_of_life() -> None:
    """The heartbeat of a sidecar without news."""
    desk = Desk()
    desk.grant(holder(), 100)
    desk.books.quarantine(["pod-a"], "silent")

    desk.tell(holder())

    assert desk.grant(holder(), 5).granted == 105


def test_a_late_final_report_lowers_the_charge_of_a_quarantined_lease() -> None:
    """That is proof by its own holder."""
    desk = Desk()
    old = holder(nonce="old")
    lease = desk.grant(old, 100)
    desk.grant(holder(nonce="new"), 10)

    desk.tell(old, report(lease.id, 30, closed=1))

    assert desk.state.charged == 40


def test_a_new_nonce_quarantines_what_the_old_one_holds() -> None:
    """I6: the old log is lost, so what it spent is not known."""
    desk = Desk()
    lease = desk.grant(holder(nonce="old"), 100)

    fresh = desk.grant(holder(nonce="new"), 10)

    assert fresh.id != lease.id
    assert desk.state.charged == 110
    (account,) = desk.books.current(desk.now_ms)
    assert account.leases[lease.id].quarantined == "replaced"


def test_a_replaced_nonce_acquires_no_more() -> None:
    """A late message of the old incarnation opens nothing."""
    desk = Desk()
    desk.grant(holder(nonce="old"), 100)
    desk.grant(holder(nonce="new"), 10)

    with pytest.raises(HolderFenced, match="take a new one"):
        desk.ask(holder(nonce="old"), want(1))


def test_a_new_nonce_is_not_given_the_answers_of_the_old_one() -> None:
    """Sidecars may count their requests from one again."""
    desk = Desk()
    desk.ask(holder(nonce="old"), want(100), request_id="1")

    (lease,) = desk.ask(holder(nonce="new"), want(10), request_id="1").leases

    assert (lease.nonce, lease.granted) == ("new", 10)


def test_a_deleted_pods_rights_stay_charged() -> None:
    """Row 6: the log is gone with the pod."""
    desk = Desk()
    desk.grant(holder(), 100)

    desk.books.quarantine(["pod-a"], "gone")

    assert desk.state.charged == 100
    assert desk.books.current(desk.now_ms)[0].totals.quarantined == 100


def test_a_deleted_pod_is_silent_for_no_other_reason_also_after_a_late_word() -> None:
    """Nobody waits for it: its rights may be settled by proof at once."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    assert desk.books.quarantine(["pod-a", "pod-b"], "gone") == 1
    desk.tell(holder(), report(lease.id, 30))

    assert desk.books.quarantine(["pod-a"], "silent") == 1
    assert desk.books.quarantine(["pod-a"], "silent") == 0
    (account,) = desk.books.current(desk.now_ms)
    assert account.leases[lease.id].quarantined == "gone"


def test_a_pod_that_is_only_silent_is_not_gone() -> None:
    desk = Desk()
    lease = desk.grant(holder(), 100)

    desk.books.quarantine(["pod-a"], "silent")

    (account,) = desk.books.current(desk.now_ms)
    assert account.leases[lease.id].quarantined == "silent"
    assert not desk.books.pods.is_gone("pod-a")


def test_that_a_nonce_was_replaced_is_stored_also_if_neither_held_anything() -> None:
    """Else the older one could acquire again after the next start."""
    desk = Desk(0)
    desk.ask(holder(nonce="old"), want(1))
    before = desk.books.revision

    desk.ask(holder(nonce="new"), want(1))

    assert desk.books.revision > before


def test_a_frozen_lease_is_not_opened_by_a_sign_of_life() -> None:
    """Silence heals, a fork does not."""
    desk = Desk()
    lease = desk.grant(holder(), 10)
    desk.tell(holder(), report(lease.id, 11))
    desk.books.quarantine(["pod-a"], "silent")

    desk.tell(holder())

    assert desk.books.current(desk.now_ms)[0].leases[lease.id].quarantined == "breach"


# --- recall -------------------------------------------------------------------------------------------------


def test_idle_rights_are_recalled_when_another_waits_for_them() -> None:
    """What is missing, from those who have it free."""
    desk = Desk()
    lease = desk.grant(holder("pod-b"), 995)
    desk.refused(holder(), want(10))

    (state,) = desk.tell(holder("pod-b"), report(lease.id, 100, held=50))

    assert state.recalled == 5


def test_nothing_is_recalled_from_the_one_who_waits() -> None:
    """Taking its free rights would only raise what it needs."""
    desk = Desk()
    lease = desk.grant(holder(), 995)
    desk.refused(holder(), want(10))

    (state,) = desk.tell(holder(), report(lease.id, 100, held=50))

    assert state.recalled == 0


def test_nothing_is_recalled_while_nobody_waits() -> None:
    """Idle rights may stay where they are."""
    desk = Desk()
    lease = desk.grant(holder("pod-b"), 995)

    (state,) = desk.tell(holder("pod-b"), report(lease.id, 100))

    assert state.recalled == 0


def test_all_free_rights_are_recalled_when_the_limit_was_lowered_below_them() -> None:
    """Row 16: what is out already can be overspent once at most; it is called back."""
    desk = Desk()
    lease = desk.grant(holder(), 500)
    desk.limits = limits_of(budget(100))

    (state,) = desk.tell(holder(), report(lease.id, 20, held=30))

    assert state.recalled == 450
    assert state.state is not None
    assert state.state.amount == 100


def test_two_living_copies_of_one_identity_strand_a_bounded_amount_and_one_of_them_stays() -> None:
    """
    Each takes a new nonce whenever the other one has replaced it, and what it held stays charged. After some turns the
    newcomer is refused with the reason, the other one goes on, and people are told.
    """
    desk = Desk()
    served = [desk.ask(holder(nonce=f"turn-{turn}"), want(10)) for turn in range(50)]

    grants = [reply.leases[0].granted for reply in served if reply.leases]
    assert len(grants) == TURNS_MAX + 1
    assert desk.state.charged == sum(grants)
    assert {denial.why for reply in served for denial in reply.denials} == {RESTLESS}
    assert len([alarm for alarm in desk.books.take_alarms() if "two processes" in alarm]) == 1
    assert desk.grant(holder(nonce=f"turn-{TURNS_MAX}"), 20).granted == 30, "the last one that was admitted"

    desk.books = decode(encode(desk.books), "test")
    assert desk.refused(holder(nonce="new"), want(10)) == ["unverifiable"]
    desk.now_ms += TURNS_MS
    assert desk.grant(holder(nonce="new"), 10).granted == 10


def test_a_pod_that_loses_its_log_now_and_then_is_never_refused() -> None:
    desk = Desk(amount=10**6)
    for turn in range(30):
        assert desk.grant(holder(nonce=f"turn-{turn}"), 10).granted >= 10
        desk.now_ms += TURNS_MS // (TURNS_MAX - 1)
