"""What the next process makes of a log: at worst where an end is missing, whole or not at all where it cannot trust."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, MONTHLY, USD, budget, limit
from lease_samples import HOUR, lease, state
from memory_log import HERE, MemoryLog, again, logged
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.journal import (
    AttemptRecord,
    ClosedRecord,
    LeaseRecord,
    LedgerUnwritable,
    Part,
    Record,
    SettledRecord,
    VoidedRecord,
)
from spendmesh_sidecar.core.ledger.journal_frames import MAGIC, encode_frame
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.recovery import Abandoned, Here, recover
from spendmesh_sidecar.core.ledger.rights import LeaseReport, LeaseState, report_digest
from spendmesh_sidecar.core.ledger.view import status
from spendmesh_sidecar.core.specs import BudgetSpec, ThresholdSpec, WindowSpec

BUDGETS = (MONTHLY,)
OTHER_DAY = budget(replace(limit("monthly", USD), window=WindowSpec(period="Day")))


def funded(granted: int = 1_000, budgets: tuple[BudgetSpec, ...] = BUDGETS) -> tuple[Ledger, MemoryLog]:
    ledger, log = logged("me", budgets, 0.0)
    ledger.merge(lease(granted), 0.0)
    return ledger, log


def reserve(ledger: Ledger, amount: int, name: str, now: float = 0.0) -> None:
    assert not ledger.reserve((Charge(MONTH, "Cost", amount),), name, now)


def rights(ledger: Ledger) -> tuple[int, int, int]:
    """Used, held and free of the monthly account."""
    (found,) = status(ledger, 1.0)
    return found.used, found.held, found.free


def test_an_attempt_is_in_the_log_before_it_may_be_sent_and_at_its_worst_without_an_end() -> None:
    """I4, and row 5: the process dies the moment the attempt is sent; the provider may bill all of it."""
    ledger, log = funded()
    reserve(ledger, 400, "r")
    assert recover(log.written, HERE).in_flight == ("r",)
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert (successor.nonce, rights(successor)) == ("me", (400, 0, 600))


def test_a_log_begun_anew_after_an_overrun_is_continued() -> None:
    """A call was billed more than it held: what the others hold no longer fits into the rights, and is held still."""
    ledger, log = funded()
    reserve(ledger, 500, "one")
    reserve(ledger, 500, "other")
    ledger.settle("one", Quantities(900, "USD"), 0.0)
    log.begin()
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert (successor.nonce, rights(successor)) == ("me", (1_400, 0, 0))


def test_an_attempt_that_cost_nothing_costs_nothing_afterwards() -> None:
    ledger, log = funded()
    reserve(ledger, 400, "r")
    ledger.void("r")
    log.flush()
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert rights(successor) == (0, 0, 1_000)


def test_a_lease_that_is_closed_is_not_continued() -> None:
    ledger, log = funded()
    ledger.drain()
    (closing,) = ledger.reports(0.0)
    ledger.acknowledged((LeaseState(lease="one", sequence=closing.sequence),), 0.0)
    log.flush()
    assert recover(log.crash(), HERE).leases == {}


@pytest.mark.parametrize(("keep", "used"), [(0, 400), (10**6, 150)], ids=["lost", "written"])
def test_an_end_that_was_not_written_yet_costs_the_worst_case(keep: int, used: int) -> None:
    ledger, log = funded()
    reserve(ledger, 400, "r")
    ledger.settle("r", Quantities(150, "USD"), 0.0)
    successor, _ = again(log.written + log.buffered[:keep], BUDGETS, 1.0)
    assert rights(successor) == (used, 0, 1_000 - used)


def test_a_bill_above_the_bound_is_written_at_once() -> None:
    """Lost, it would leave less in the books than was billed: its worst case is too small."""
    ledger, log = funded()
    reserve(ledger, 100, "r")
    ledger.settle("r", Quantities(700, "USD"), 0.0)
    successor, _ = again(log.crash(0), BUDGETS, 1.0)
    assert rights(successor) == (700, 0, 300)
    assert status(successor, 1.0)[0].overrun == 600


def test_a_log_that_cannot_be_written_takes_no_reservation_and_changes_nothing() -> None:
    ledger, log = funded()
    before = rights(ledger)
    log.full = True
    with pytest.raises(LedgerUnwritable):
        reserve(ledger, 400, "r")
    assert (rights(ledger), ledger.open_reservations) == (before, 0)
    log.full = False
    reserve(ledger, 400, "r")


def test_reports_go_on_where_they_were_so_that_the_coordinator_sees_one_holder() -> None:
    """The unacknowledged one again byte for byte, then a successor that names it."""
    ledger, log = funded()
    reserve(ledger, 400, "r")
    (first,) = ledger.reports(0.0)
    log.flush()
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert successor.reports(1.0) == (first,)
    successor.acknowledged((LeaseState(lease="one", sequence=1),), 1.0)
    assert not successor.copied
    (second,) = successor.reports(1.0)
    assert (second.sequence, second.previous, second.used, second.held) == (2, report_digest(first), 400, 0)


def test_a_report_that_waits_for_its_answer_is_written_once() -> None:
    """A coordinator that is away for hours does not fill the log."""
    ledger, log = funded()
    ledger.reports(0.0)
    log.flush()
    written = log.written
    for minute in range(100):
        ledger.reports(3_600.0 + 60 * minute)
    assert log.written + log.buffered == written


def test_what_was_given_back_is_not_spent_by_the_next_process() -> None:
    ledger, log = funded()
    for book in ledger.accounts[MONTH].leases.values():
        book.give_back(700)
    ledger.reports(0.0)
    log.flush()
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert rights(successor) == (0, 0, 300)


def test_a_lease_whose_last_report_was_made_is_not_spent_from_again() -> None:
    ledger, log = funded()
    ledger.set_budgets((), 0.0)
    (closing,) = ledger.reports(0.0)
    assert closing.closed
    log.flush()
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert successor.shortfalls((Charge(MONTH, "Cost", 1),), 1.0)
    assert successor.reports(1.0) == (closing,)


def test_a_fence_outlives_the_process_that_heard_of_it() -> None:
    ledger, log = funded()
    (told,) = ledger.reports(0.0)
    ledger.acknowledged((LeaseState(lease="one", sequence=told.sequence, fenced=True),), 0.0)
    log.flush()
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert successor.shortfalls((Charge(MONTH, "Cost", 1),), 1.0)


def test_a_downgrade_stays_in_force_while_the_coordinator_is_away() -> None:
    steps = (ThresholdSpec(percent=90, max_tier="economy"),)
    budgets = (budget(limit("monthly", 10 * USD, steps=steps)),)
    ledger, log = logged("me", budgets, 0.0)
    ledger.merge(lease(1_000, state=state(max_tier="economy")), 0.0)
    log.flush()
    successor, _ = again(log.crash(), budgets, 1.0)
    assert status(ledger, 1.0) == status(successor, 1.0)
    assert status(successor, 1.0)[0].max_tier == "economy"


def test_a_limit_that_changed_its_meaning_meanwhile_is_not_paid_from_the_old_lease() -> None:
    _, log = funded()
    log.flush()
    successor, _ = again(log.crash(), (OTHER_DAY,), 1.0)
    assert successor.shortfalls((Charge(MONTH, "Cost", 1),), 1.0)
    (report,) = successor.reports(1.0)
    assert report.closed


def test_leases_of_an_earlier_meaning_only_close() -> None:
    ledger, log = funded()
    reserve(ledger, 10, "r")
    ledger.set_budgets((OTHER_DAY,), 0.0)
    ledger.merge(lease(500, id="two"), 0.0)
    log.flush()
    successor, _ = again(log.crash(), (OTHER_DAY,), 1.0)
    assert rights(successor)[2] == 500
    closed = {report.lease: report.closed for report in successor.reports(1.0)}
    assert closed == {"one": True, "two": False}


WATCHED = (budget(limit("monthly", USD), mode="Observe"),)


def spent_without_a_lease() -> bytes:
    """A log of one observed call of 120, and of one of 300 that is under way."""
    ledger, log = logged("me", WATCHED, 0.0)
    for name in ("settled", "open"):
        assert not ledger.reserve((Charge(MONTH, "Cost", 300, observed=True),), name, 0.0)
    ledger.settle("settled", Quantities(120, "USD"), 0.0)
    log.flush()
    return log.written


def test_use_under_an_observe_limit_without_a_lease_is_not_lost() -> None:
    successor, log = again(spent_without_a_lease(), WATCHED, 1.0)
    assert successor.accounts[MONTH].debt.unleased == 420
    successor.merge(lease(0), 1.0)
    log.flush()
    third, _ = again(log.crash(), WATCHED, 2.0)
    assert (third.accounts[MONTH].debt.unleased, rights(third)[0]) == (0, 420)


def test_an_observed_attempt_beyond_its_rights_counts_at_its_worst() -> None:
    ledger, log = funded(100, WATCHED)
    assert not ledger.reserve((Charge(MONTH, "Cost", 300, observed=True),), "r", 0.0)
    successor, _ = again(log.crash(), WATCHED, 1.0)
    (found,) = status(successor, 1.0)
    assert (found.used, found.overrun) == (300, 200)


def test_a_new_nonce_begins_a_new_log_and_late_ends_of_old_attempts_do_not_break_it() -> None:
    ledger, log = funded()
    reserve(ledger, 400, "old")
    ledger.adopt("new")
    ledger.merge(lease(500, id="two", nonce="new"), 0.0)
    reserve(ledger, 100, "young")
    ledger.settle("old", Quantities(50, "USD"), 0.0)
    log.flush()
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    assert (successor.nonce, rights(successor)) == ("new", (100, 0, 400))
    assert b"one" not in log.written


@pytest.mark.parametrize(("cost", "unbooked"), [(50, 0), (400, 0), (1_200, 200)])
def test_of_a_late_end_in_a_fenced_lease_only_what_nobody_charges_is_told_again(cost: int, unbooked: int) -> None:
    """Wherever the log is torn: the coordinator has charged the lease in full, and of what is beyond it, nothing."""
    ledger, log = funded()
    reserve(ledger, 400, "old")
    ledger.adopt("new")
    before = len(log.written)
    ledger.settle("old", Quantities(cost, "USD"), 0.0)
    log.flush()
    found = [recover(log.written[:end], HERE).unleased.get(MONTH) for end in range(before, len(log.written) + 1)]
    assert {told.amount if told else 0 for told in found} == {0, unbooked}
    assert not any(told.owed for told in found if told), "it had rights"


def test_an_attempt_that_an_overrun_left_no_room_in_a_fenced_lease_is_told_again() -> None:
    """The lease is charged in full, which is what one call has cost; the other one's worst comes on top."""
    ledger, log = funded()
    reserve(ledger, 500, "one")
    reserve(ledger, 500, "other")
    ledger.settle("one", Quantities(1_200, "USD"), 0.0)
    ledger.adopt("new")
    assert again(log.crash(), BUDGETS, 1.0)[0].unbooked == {"team-a/team/monthly": 200 + 500}
    ledger.settle("other", Quantities(300, "USD"), 0.0)
    settled = log.written + encode_frame(SettledRecord("other", (300,)))
    assert log.buffered.startswith(settled[len(log.written) :])
    assert again(settled, BUDGETS, 1.0)[0].unbooked == {"team-a/team/monthly": 200 + 300}


def test_of_a_limit_with_another_meaning_nothing_is_told_again() -> None:
    """What its fenced lease was granted is another unit's, or another window's."""
    ledger, log = funded()
    reserve(ledger, 400, "old")
    ledger.set_budgets((OTHER_DAY,), 0.0)
    ledger.adopt("new")
    before = len(log.written)
    ledger.settle("old", Quantities(1_200, "USD"), 0.0)
    log.flush()
    for end in range(before, len(log.written) + 1):
        assert {told.amount for told in recover(log.written[:end], HERE).unleased.values()} <= {0}


# --- what is not continued --------------------------------------------------------------------------------

NODE = replace(HERE, durability="Node")
REBOOTED = {"boot": "boot-2", "monotonic": 5.0, "unix": HERE.unix + 100}


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (replace(HERE, pod="another"), "another pod"),
        (replace(NODE, pod="another"), "another pod"),
        (replace(HERE, **REBOOTED), "started anew"),
        (replace(HERE, boot=""), "started anew"),
    ],
)
def test_a_log_of_another_pod_or_with_an_end_that_may_be_missing_is_abandoned(here: Here, why: str) -> None:
    _, log = funded()
    log.flush()
    with pytest.raises(Abandoned, match=why):
        recover(log.written, here)


DAMAGE = encode_frame(LeaseReport(lease="never granted", sequence=1, used=0, held=0))


@pytest.mark.parametrize(
    ("damage", "here", "unbooked"),
    [
        (b"", replace(HERE, **REBOOTED), {"team-a/team/monthly": 420}),
        (DAMAGE, HERE, {"team-a/team/monthly": 120}),
        (b"x" * 40, HERE, {"team-a/team/monthly": 120}),
        (b"", replace(HERE, pod="another"), {}),
        (b"x" * 40, replace(HERE, pod="another"), {}),
    ],
    ids=["another boot", "a contradiction", "damage", "another pod", "damage of another pod"],
)
def test_an_abandoned_log_says_what_nobody_charges(damage: bytes, here: Here, unbooked: dict[str, int]) -> None:
    """Leases are charged in full by the coordinator; use without one is known to nobody else."""
    with pytest.raises(Abandoned) as caught:
        recover(spent_without_a_lease() + damage, here)
    assert caught.value.unbooked == unbooked


def test_with_durability_node_a_log_outlives_the_machine_and_its_clock() -> None:
    """Each lease begins and ends when it would have: of the time to it 100 s went by. The machine had run for 50 s."""
    ledger, log = funded()
    ledger.merge(lease(500, id="two", starts_in_ms=HOUR, ends_in_ms=2 * HOUR), 50.0)
    log.here = replace(HERE, monotonic=50.0)
    log.begin()
    recovered = recover(log.written, replace(NODE, **REBOOTED))
    now = 5.0 - 100
    times = {name: (book.granted, book.starts_at, book.ends_at) for name, (book, _) in recovered.leases.items()}
    assert times == {"one": (1_000, now - 50, now - 50 + 3_600), "two": (500, now + 3_600, now + 7_200)}
    assert recovered.nonce == "me"


def test_a_wall_clock_that_went_back_makes_no_lease_longer() -> None:
    _, log = funded()
    log.flush()
    back = replace(NODE, **{**REBOOTED, "unix": HERE.unix - 86_400})
    assert recover(log.written, back).leases["one"][0].ends_at == 5.0 + 3_600


LEASE = LeaseRecord(id="one", account=MONTH, granted=100, starts_at=0.0, ends_at=10.0)
OPEN = AttemptRecord("r", (Part("one", 60, 60),))
CONTRADICTIONS: dict[str, tuple[Record, ...]] = {
    "more held than granted": (LEASE, OPEN, AttemptRecord("s", (Part("one", 60, 60),))),
    "an attempt that ends twice": (LEASE, OPEN, SettledRecord("r", (1,)), VoidedRecord("r")),
    "an attempt that was not begun": (LEASE, SettledRecord("r", (1,))),
    "an attempt that is begun twice": (LEASE, AttemptRecord("r", ()), AttemptRecord("r", ())),
    "a bill on other accounts": (LEASE, OPEN, SettledRecord("r", (1, 2))),
    "a lease that is not known": (OPEN,),
    "a report of a lease that is not known": (LeaseReport(lease="two", sequence=1, used=0, held=0),),
    "a report of use that was not written": (LEASE, LeaseReport(lease="one", sequence=1, used=5, held=0)),
    "a report older than the last": (
        LEASE,
        LeaseReport(lease="one", sequence=2, used=0, held=0),
        LeaseReport(lease="one", sequence=1, used=0, held=0),
    ),
    "a lease closed under an open attempt": (LEASE, OPEN, ClosedRecord("one")),
}


@pytest.mark.parametrize("records", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_log_that_contradicts_itself_is_abandoned(records: tuple[Record, ...]) -> None:
    data = MAGIC + b"".join(map(encode_frame, (HERE.header("me"), *records)))
    with pytest.raises(Abandoned):
        recover(data, HERE)


# --- a crash while nobody answers -------------------------------------------------------------------------

KEPT = budget(replace(limit("monthly", 10 * USD), on_unverifiable="Survival", survival_percent=5))
ALLOWED = budget(replace(limit("monthly", 10 * USD), on_unverifiable="Allow", allow_cap=500))


@pytest.mark.parametrize(
    ("boot", "seconds"), [("", 0.0), ("boot-2", 100.0)], ids=["a crash", "a node that was started anew"]
)
def test_what_was_spent_without_rights_and_is_told_in_a_closed_lease_stays_part_of_the_cap(
    boot: str, seconds: float
) -> None:
    """The lease is closed within its period, and the log says no more of it; the cap is the period's all the same."""
    node = replace(HERE, durability="Node")
    ledger, log = logged("me", (ALLOWED,), 0.0)
    ledger.unanswered(0.0)
    reserve(ledger, 300, "r")
    ledger.settle("r", Quantities(300, "USD"), 0.0)
    ledger.merge(lease(100), 1.0)
    ledger.set_budgets((), 1.0)
    (told,) = ledger.reports(1.0)
    assert (told.closed, told.unheld) == (True, 300)
    ledger.acknowledged((LeaseState(lease="one", sequence=told.sequence),), 1.0)
    log.flush()

    here = replace(node, boot=boot, monotonic=0.0, unix=HERE.unix + seconds) if boot else node
    for _ in range(2):
        ledger, log = logged("", (ALLOWED,), 1.0, recover(log.crash(), here))
        ledger.unanswered(1.0)
        assert not ledger.shortfalls((Charge(MONTH, "Cost", 200),), 1.0)
        assert ledger.shortfalls((Charge(MONTH, "Cost", 201),), 1.0)
        here = node
    assert ledger.shortfalls((Charge(MONTH, "Cost", 201),), 3_600.0 - seconds)
    assert not ledger.shortfalls((Charge(MONTH, "Cost", 500),), 3_601.0), "another period has its own"


def test_rights_that_were_kept_for_silence_and_spent_in_it_are_continued() -> None:
    """The log knows what silence had opened: a crash in it costs the worst case, not all rights of the pod."""
    ledger, log = logged("me", (KEPT,), 0.0)
    ledger.merge(lease(1_000, survival=300), 0.0)
    ledger.unanswered(0.0)
    reserve(ledger, 900, "r")
    successor, _ = again(log.crash(), (KEPT,), 1.0)
    assert rights(successor)[:2] == (900, 0)
    successor.unanswered(1.0)
    assert rights(successor) == (900, 0, 100)


def test_rights_that_are_kept_no_longer_are_continued_when_they_were_spent() -> None:
    """The coordinator says with each report how much is to be kept; that word is not in the log."""
    ledger, log = logged("me", (KEPT,), 0.0)
    ledger.merge(lease(1_000, survival=300), 0.0)
    (told,) = ledger.reports(0.0)
    ledger.acknowledged((LeaseState(lease="one", sequence=told.sequence, survival=0),), 0.0)
    reserve(ledger, 900, "r")
    successor, _ = again(log.crash(), (KEPT,), 1.0)
    assert rights(successor)[:2] == (900, 0)


def test_crashes_do_not_renew_what_may_be_spent_without_rights() -> None:
    """`allowCap` is per sidecar and period, however often its process dies while nobody answers."""
    ledger, log = logged("me", (ALLOWED,), 0.0)
    ledger.unanswered(0.0)
    reserve(ledger, 500, "r")
    successor, log = again(log.crash(), (ALLOWED,), 1.0)
    successor.unanswered(1.0)
    assert successor.shortfalls((Charge(MONTH, "Cost", 1),), 1.0)
    successor.merge(lease(100), 2.0)
    log.flush()
    (told,) = successor.reports(2.0)
    assert (told.used, told.overrun, told.unheld) == (500, 500, 500)
    third, _ = again(log.crash(), (ALLOWED,), 3.0)
    third.unanswered(3.0)
    assert third.shortfalls((Charge(MONTH, "Cost", 1),), 3.0)
    assert not third.shortfalls((Charge(MONTH, "Cost", 500),), 3_602.0), "another period has its own"
