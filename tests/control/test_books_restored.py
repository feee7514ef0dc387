"""Rights that restored books have forgotten: when their holders are believed, how far, and when not. Row 13."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ledger_desk import HOUR_MS, Desk, holder
from ledger_samples import BUDGET, REF, budget, report, want
from rolling_desk import PART_MS, Rolling
from spendmesh_operator.ledger.books.lives import LIVES_KEPT, begin, grant, granted_here
from spendmesh_operator.ledger.books.restoring import Forgotten
from spendmesh_operator.ledger.document.sections import decode, encode
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.protocol import AccountRef, LeaseReport, LeaseState, ReportRequest, report_digest


@dataclass
class Lost:
    """What a sidecar says of a lease that the books granted after they were copied."""

    desk: Desk
    lease: str
    granted: int

    def says(self, used: int = 0, *, when: Forgotten = "taken back", **more: object) -> LeaseState:
        said = {"account": REF, "granted": self.granted, "held": 0} | more
        told = LeaseReport(lease=self.lease, sequence=7, previous="0123", used=used, **said)  # type: ignore[arg-type]
        request = ReportRequest(nonce=holder().nonce, reports=(told,))
        (state,) = self.desk.books.report(holder(), request, self.desk.limits, self.desk.now_ms, when).leases
        return state


def restored(granted: int = 600, *, before: int = 0) -> Lost:
    """Books that are restored to before a grant; `before`: what its holder had when they were copied."""
    desk = Desk()
    desk.books.begin_life("aaaaaa-", desk.now_ms)
    if before:
        desk.grant(holder(), before)
    copy = encode(desk.books)
    desk.books.begin_life("bbbbbb-", desk.now_ms)
    lease = desk.grant(holder(), granted)
    desk.books = decode(copy, "test")
    desk.books.begin_life("cccccc-", desk.now_ms)
    return Lost(desk, lease.id, lease.granted)


def taken_back(desk: Desk) -> int:
    return sum(account.taken_back for account in desk.books.holdings.accounts.values())


def charged(desk: Desk) -> int:
    return sum(account.charged for account in desk.books.holdings.accounts.values())


def test_forgotten_rights_are_charged_again_and_their_holder_goes_on() -> None:
    """What it holds and what it used: nobody else can be granted it."""
    lost = restored(600)

    state = lost.says(used=50)

    assert (state.fenced, state.sequence) == (False, 7)
    assert (lost.desk.state.charged, lost.desk.state.settled) == (600, 50)
    assert lost.desk.refused(holder("pod-b"), want(500)) == ["in_flight"]
    assert any("600 taken back on team-a/team/hourly" in alarm for alarm in lost.desk.books.take_alarms())


def test_a_forgotten_lease_that_is_closed_at_once_settles_what_it_used() -> None:
    """Its last word after the restore."""
    lost = restored(600)

    lost.says(used=70, closed=True)

    assert (charged(lost.desk), lost.desk.state.settled) == (70, 70)


def test_a_message_that_comes_late_does_not_open_a_forgotten_lease_again() -> None:
    """It was taken back and closed meanwhile: nobody would ever close it again."""
    lost = restored(600)
    lost.says(used=70, closed=True)

    assert lost.says(used=20).fenced
    assert (charged(lost.desk), lost.desk.state.settled) == (70, 70)


def test_a_grant_that_was_forgotten_on_a_lease_that_was_not_is_charged_again() -> None:
    """The copy holds the lease with less."""
    lost = restored(200, before=100)

    state = lost.says(used=250)

    assert (lost.granted, state.fenced, charged(lost.desk)) == (300, False, 300)
    assert taken_back(lost.desk) == 200


def test_a_lease_that_its_holder_no_longer_has_stays_charged_beside_its_newer_one() -> None:
    """It was closed in the time that was lost, with a use that nobody can tell any more."""
    lost = restored(200, before=100)
    lost.lease, lost.granted = "bbbbbb-2", 200

    assert not lost.says(used=20).fenced
    assert charged(lost.desk) == 300
    (account,) = lost.desk.books.current(lost.desk.now_ms)
    assert account.totals.quarantined == 100, "else it would be kept for as long as the pod lives"

    lost.desk.tell(holder(), report("aaaaaa-1", 10, closed=1))
    assert charged(lost.desk) == 210
    assert lost.desk.grant(holder(), 5).id == "bbbbbb-2"


@pytest.mark.parametrize("late_seconds", [0, 5])
@pytest.mark.parametrize("ago_ms", [0, 1, 59_000, PART_MS, 5 * PART_MS + 80_000, 20 * PART_MS])
def test_rights_in_a_part_of_a_rolling_window_are_charged_in_that_part(ago_ms: int, late_seconds: int) -> None:
    """Not in the part that has just ended: there they would count longer than what they were spent on."""
    rolling = Rolling()
    desk = rolling.desk
    desk.books.begin_life("aaaaaa-", desk.now_ms)
    copy = encode(desk.books)
    desk.books.begin_life("bbbbbb-", desk.now_ms)
    [lease] = desk.ask(holder(), want(600)).leases
    sidecar = Ledger(holder().nonce, (BudgetSpec(name=BUDGET, limits=(desk.limits(REF).limit,)),), 0.0)  # type: ignore[union-attr]
    sidecar.merge(lease, 0.0)
    ended = lease.ends_in_ms / 1000
    [first] = sidecar.reports(0.0)
    assert (first.period, first.ended_seconds) == ("current", 0)

    desk.books = decode(copy, "test")
    desk.books.begin_life("cccccc-", desk.now_ms)
    began_ms = desk.now_ms
    now = ended + ago_ms / 1000
    told = sidecar.reports(now)
    assert [report_digest(each) for each in told] == [report_digest(first)], "it was not acknowledged: the same again"
    desk.now_ms += int((now + late_seconds) * 1000)
    request = ReportRequest(nonce=holder().nonce, reports=told)
    desk.books.report(holder(), request, desk.limits, desk.now_ms, "taken back")
    assert {key.start * 1000: each.charged for key, each in desk.books.holdings.accounts.items()} == {began_ms: 600}


def test_rights_in_a_period_that_has_just_ended_are_charged_there() -> None:
    """The restore fell on the boundary."""
    lost = restored(600)
    lost.desk.now_ms += HOUR_MS

    assert not lost.says(used=600, period="previous", closed=True).fenced

    assert charged(lost.desk) == 600
    assert lost.desk.grant(holder("pod-b"), 900).granted == 900


@pytest.mark.parametrize(
    ("told", "when"),
    [
        ({}, "fenced"),
        ({"account": None}, "taken back"),
        ({"lease": "aaaaaa-0"}, "taken back"),
        ({"lease": "cccccc-1"}, "taken back"),
        ({"lease": "dddddd"}, "taken back"),
        ({"granted": 1001}, "taken back"),
        ({"granted": 10, "used": 11}, "taken back"),
        ({"granted": 10, "used": 6, "held": 5}, "taken back"),
        ({"granted": 10, "used": 6, "released": 5}, "taken back"),
        ({"account": AccountRef(budget=REF.budget, limit=REF.limit, per=("u",))}, "taken back"),
    ],
    ids=[
        "nothing was restored",
        "no account is named",
        "closed before the copy",
        "never granted since",
        "no lease id of ours",
        "more than the limit",
        "more used than granted",
        "more used and held than granted",
        "used what it gave back",
        "another kind of account",
    ],
)
def test_what_nobody_can_have_been_granted_is_fenced_and_charged_to_nobody(
    told: dict[str, object], when: Forgotten
) -> None:
    """One pod's word must not starve the others."""
    lost = restored(600)
    lost.lease = str(told.pop("lease", lost.lease))

    state = lost.says(**{"when": when, **told})  # type: ignore[arg-type]

    assert (state.fenced, charged(lost.desk)) == (True, 0)


def test_all_that_is_taken_back_is_at_most_the_limit_also_over_another_copy() -> None:
    """However many leases a pod makes up, and whoever writes the books in between."""
    lost = restored(600)
    assert not lost.says(used=600, closed=True).fenced
    lost.desk.books = decode(encode(lost.desk.books), "test")

    lost.lease = "bbbbbb-2"

    assert lost.says().fenced
    assert charged(lost.desk) == 600


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ({"granted": 1000, "used": 50}, 1000),
        ({"granted": 600, "released": 100, "used": 50}, 500),
        ({"granted": 600, "used": 610, "overrun": 20}, 600),
        ({"granted": 600, "used": 70, "overrun": 20, "closed": True}, 50),
    ],
    ids=["all of the limit", "some was given back", "billed more than held", "closed after a dearer bill"],
)
def test_what_a_holder_took_from_the_limit_counts_towards_what_is_believed(
    told: dict[str, object], counted: int
) -> None:
    """While all was well, all that was taken fitted: an overrun did not come from the limit."""
    lost = restored(600)

    assert not lost.says(**told).fenced  # type: ignore[arg-type]
    assert taken_back(lost.desk) == counted


def test_rights_that_the_copy_has_still_are_not_taken_back() -> None:
    """Its holder was granted more since, and gave more back than that."""
    lost = restored(200, before=100)

    assert not lost.says(released=250).fenced
    assert (taken_back(lost.desk), charged(lost.desk)) == (0, 50)


def test_of_a_limit_that_the_pods_policy_does_not_have_nothing_is_charged() -> None:
    """It may yet come: the operator itself has just started."""
    lost = restored(600)
    lost.desk.limits = lambda _: None

    state = lost.says(used=50)

    assert (state.fenced, state.sequence, charged(lost.desk)) == (False, 0, 0)


def test_a_coordinator_that_may_yet_hear_of_a_restore_answers_nothing_and_fences_nobody() -> None:
    """The holder says it again."""
    lost = restored(600)

    awaited = lost.says(used=50, when="awaited")
    taken = lost.says(used=50)

    assert (awaited.fenced, awaited.sequence, taken.fenced, charged(lost.desk)) == (False, 0, False, 600)


def test_a_nonce_that_was_replaced_is_not_believed() -> None:
    """It could not have been granted anything since."""
    lost = restored(600, before=10)
    lost.lease, lost.granted = "bbbbbb-2", 600
    lost.desk.ask(holder(nonce="new"), want(1))

    assert lost.says().fenced


@pytest.mark.parametrize(
    ("lease", "here"),
    [
        ("a-4", True),
        ("a-5", False),
        ("b-1a", True),
        ("b-1b", False),
        ("b-z", True),
        ("c-ff", True),
        ("z-2", False),
        ("z-1", True),
        ("", True),
    ],
)
def test_a_lease_id_tells_which_books_granted_it(lease: str, here: bool) -> None:
    """
    Life `b` went on beside `c`, as another cluster's does, and granted 1a as the last; `c` goes on here.

    What is older than all lives that are known counts as known.
    """
    lives = grant(begin(begin(grant(begin((), "a-", 2), "a-", 4), "b-", 5), "c-", 6), "b-", 0x1A)

    assert granted_here(lives, "c-", lease) is here


def test_a_life_that_still_grants_is_not_dropped() -> None:
    """Another cluster's leader may change often meanwhile: what it grants would count as granted by lost books."""
    lives = begin((), "a-", 1)
    for number in range(1, 200):
        lives = begin(grant(lives, "a-", number), f"b{number}-", number + 1)

    assert granted_here(lives, "c-", "a-1")
    assert len(lives) == LIVES_KEPT


def tell_all(desk: Desk, ledger: Ledger) -> None:
    """What a sidecar does every two seconds."""
    told = ledger.reports(0.0)
    ledger.acknowledged(desk.tell(holder(nonce=ledger.nonce), *told), 0.0)


def fetch(desk: Desk, ledger: Ledger, need: int) -> int:
    """What a sidecar can spend after it asked for `need`."""
    for lease in desk.ask(holder(nonce=ledger.nonce), want(need)).leases:
        ledger.merge(lease, 0.0)
    return ledger.free(REF, 0.0)


def test_a_holder_is_served_though_the_books_forgot_that_its_lease_was_closed() -> None:
    """It says again how that lease ended, and has a new one; else each call would tie up rights that nobody spends."""
    desk = Desk()
    spec = budget(1000)
    ledger = Ledger("me", (spec,), 0.0)
    assert fetch(desk, ledger, 100) == 100
    tell_all(desk, ledger)
    copy = encode(desk.books)
    ledger.set_budgets((), 0.0)
    tell_all(desk, ledger)
    assert ledger.settled_up
    ledger.set_budgets((spec,), 0.0)
    desk.books = decode(copy, "test")

    fetch(desk, ledger, 100)
    tell_all(desk, ledger)

    assert fetch(desk, ledger, 100) == 100
    assert desk.state.charged == 100
