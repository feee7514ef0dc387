"""One lease's arithmetic, and what it refuses to do."""

from __future__ import annotations

import pytest

from spendmesh_sidecar.core.ledger.lease import LeaseBook, LedgerError
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Lease, LeaseReport, LeaseState, report_digest

ACCOUNT = AccountRef(budget="team-a/team", limit="monthly")


def book(**numbers: int) -> LeaseBook:
    return LeaseBook("one", ACCOUNT, starts_at=0.0, ends_at=100.0, **{"granted": 1_000, **numbers})  # type: ignore[arg-type]


def state(sequence: int, **changes: object) -> LeaseState:
    return LeaseState(lease="one", sequence=sequence, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [-1, 1_001])
def test_what_does_not_fit_cannot_be_held(amount: int) -> None:
    lease = book()
    with pytest.raises(LedgerError, match="1000 is free"):
        lease.hold(amount)
    assert (lease.held, lease.free) == (0, 1_000)


@pytest.mark.parametrize("amount", [0, 1_000])
def test_nothing_and_everything_can_be_held(amount: int) -> None:
    lease = book()
    lease.hold(amount)
    assert (lease.held, lease.free) == (amount, 1_000 - amount)


@pytest.mark.parametrize("amount", [-1, 101])
def test_more_than_is_held_cannot_be_resolved(amount: int) -> None:
    lease = book(held=100, reservations=1)
    with pytest.raises(LedgerError, match="holds 100"):
        lease.settle(amount, 0)
    with pytest.raises(LedgerError, match="holds 100"):
        lease.void(amount)
    assert (lease.held, lease.used) == (100, 0)


@pytest.mark.parametrize(("actual", "overrun"), [(0, 0), (100, 0), (101, 1)])
def test_overrun_is_what_was_billed_above_the_reservation(actual: int, overrun: int) -> None:
    lease = book(held=100, reservations=1)
    lease.settle(100, actual)
    assert (lease.used, lease.held, lease.overrun) == (actual, 0, overrun)


def test_a_debt_is_not_a_right() -> None:
    assert book(used=1_500).free == 0


@pytest.mark.parametrize(("asked", "returned"), [(-5, 0), (0, 0), (1, 1), (300, 300), (301, 300)])
def test_only_what_is_free_is_given_back(asked: int, returned: int) -> None:
    lease = book(used=500, held=200)
    assert lease.give_back(asked) == returned
    assert (lease.released, lease.free) == (returned, 300 - returned)


@pytest.mark.parametrize(("now", "is_open"), [(-0.1, False), (0.0, True), (99.9, True), (100.0, False)])
def test_a_lease_is_open_in_its_period(now: float, is_open: bool) -> None:
    assert book().open_at(now) is is_open


@pytest.mark.parametrize("flag", ["fenced", "retired"])
def test_a_fenced_or_retired_lease_is_not_open(flag: str) -> None:
    lease = book()
    setattr(lease, flag, True)
    assert not lease.open_at(1.0)


@pytest.mark.parametrize(("sequence", "copy"), [(0, False), (1, False), (2, True)])
def test_a_later_report_than_ours_proves_a_copy(sequence: int, copy: bool) -> None:
    lease = book()
    lease.report(0.0)
    assert lease.is_copy(state(sequence)) is copy


def test_a_lease_that_never_reported_knows_a_copy_too() -> None:
    assert book().is_copy(state(1)) and not book().is_copy(state(0))


def test_a_fenced_lease_gives_nothing_back() -> None:
    lease = book()
    lease.report(0.0)
    lease.acknowledge(state(1, fenced=True, recalled=500))
    assert lease.released == 0


def test_what_was_reported_is_not_counted_again() -> None:
    lease = book(held=100, reservations=1)
    lease.settle(100, 60)
    assert lease.unreported == 60
    lease.report(0.0)
    assert lease.unreported == 60, "on its way is not yet there"
    lease.acknowledge(state(1))
    assert lease.unreported == 0


def test_a_closing_report_is_the_last_and_nothing_revives_it() -> None:
    lease = book()
    lease.retired = True
    closing = lease.report(0.0)
    assert closing is not None and closing.closed
    lease.revive()
    assert lease.retired and lease.report(0.0) == closing
    lease.acknowledge(state(1))
    assert lease.done and lease.report(1.0) is None


def test_an_ended_lease_closes_only_when_nothing_is_held() -> None:
    lease = book(held=1, reservations=1)
    first = lease.report(100.0)
    assert first is not None and not first.closed
    lease.acknowledge(state(1))
    assert lease.report(100.0) == first, "nothing is new: the same bytes again"
    lease.void(1)
    last = lease.report(100.0)
    assert last is not None and (last.closed, last.sequence) == (True, 2)


def test_a_call_that_holds_nothing_keeps_its_lease_open() -> None:
    """An Observe limit without rights holds nothing, and what the call costs must still be reported."""
    lease = book(granted=0)
    lease.hold(0)
    first = lease.report(100.0)
    assert first is not None and not first.closed
    lease.acknowledge(state(1))
    lease.settle(0, 70)
    last = lease.report(100.0)
    assert last is not None and (last.closed, last.used, last.overrun) == (True, 70, 70)


def test_what_was_never_reserved_cannot_be_resolved() -> None:
    with pytest.raises(LedgerError, match="0 calls"):
        book().void(0)


@pytest.mark.parametrize(("now", "period"), [(-1.0, "next"), (0.0, "current"), (99.9, "current"), (100.0, "previous")])
def test_a_report_says_where_its_lease_is_from(now: float, period: str) -> None:
    """Books that were restored from a backup learn it from there."""
    report = book(granted=700).report(now)

    assert report is not None
    assert (report.account, report.granted, report.period) == (ACCOUNT, 700, period)


def test_a_lease_of_another_unit_than_its_limit_has_now_names_no_account() -> None:
    """Its amounts would be charged in the wrong unit."""
    superseded = book()
    superseded.supersede()
    report = superseded.report(0.0)

    assert report is not None
    assert report.account is None


def test_new_rights_are_reported_though_nothing_was_spent() -> None:
    """A report that names less than is held could not restore it."""
    lease = book(granted=700)
    first = lease.report(0.0)
    lease.acknowledge(state(1))
    lease.granted = 900
    second = lease.report(0.0)

    assert first is not None
    assert second is not None
    assert (second.sequence, second.granted) == (2, 900)


def test_where_a_lease_is_from_is_no_part_of_its_history() -> None:
    """A coordinator that does not read it must not take two histories for it."""
    report = book(granted=700).report(0.0)

    assert report is not None
    older = LeaseReport(lease=report.lease, sequence=report.sequence, used=0, held=0)
    assert report_digest(report) == report_digest(older)


# --- numbers, each by itself ------------------------------------------------------------------------------


def told(granted: int, starts_in_ms: int, ends_in_ms: int) -> Lease:
    """The lease as the coordinator names it."""
    known = AccountState(amount=1_000, settled=0, charged=0, resets_in_ms=ends_in_ms)
    times = {"starts_in_ms": starts_in_ms, "ends_in_ms": ends_in_ms}
    return Lease(
        id="one", nonce="me", account=ACCOUNT, unit="Cost", currency="USD", granted=granted, state=known, **times
    )


def test_a_new_lease_has_rights_and_nothing_else() -> None:
    lease = LeaseBook("one", ACCOUNT, 700, 0.0, 100.0)
    assert (lease.released, lease.survival, lease.used, lease.held, lease.reservations) == (0, 0, 0, 0, 0)
    assert (lease.exposed, lease.backing, lease.overrun, lease.unheld, lease.would_block) == (0, 0, 0, 0, 0)
    assert (lease.kept, lease.free, lease.unreported, lease.uncharged) == (0, 700, 0, 0)


@pytest.mark.parametrize(("granted", "came"), [(999, False), (1_000, False), (1_001, True)])
def test_only_more_rights_than_before_are_new(granted: int, came: bool) -> None:
    lease = book()
    assert lease.merge(told(granted, 0, 90_000), 10.0) is came
    assert lease.granted == max(1_000, granted)


def test_of_two_messages_the_earlier_times_are_true() -> None:
    """In milliseconds from when the message came; delay adds to them."""
    lease = LeaseBook("one", ACCOUNT, 700, 50.0, 100.0)
    lease.merge(told(700, 30_000, 80_000), 10.0)
    assert (lease.starts_at, lease.ends_at) == (40.0, 90.0)
    lease.merge(told(700, 30_000, 80_000), 12.0)
    assert (lease.starts_at, lease.ends_at) == (40.0, 90.0)


@pytest.mark.parametrize(("more", "fits"), [(-1, False), (0, True), (300, True), (301, False)])
def test_an_open_reservation_grows_by_what_is_free(more: int, fits: bool) -> None:
    lease = book(used=500, held=200, reservations=1)
    if fits:
        lease.hold_more(more)
    else:
        with pytest.raises(LedgerError, match=f"cannot hold {more} more: 300 is free"):
            lease.hold_more(more)
    assert (lease.held, lease.reservations) == (200 + more * fits, 1)


def test_what_is_kept_for_silence_is_free_in_silence() -> None:
    lease = book(released=100, used=200, held=50, survival=150)
    assert lease.free == 500
    lease.silent = True
    assert lease.free == 650


@pytest.mark.parametrize(("backing", "returned"), [(0, 300), (699, 300), (701, 299), (1_000, 0), (1_001, 0)])
def test_what_backs_open_calls_is_not_given_back(backing: int, returned: int) -> None:
    """Rights stay here for what they may cost beyond what they hold."""
    lease = book(used=500, held=200, backing=backing)
    assert lease.give_back(1_000) == returned
    assert lease.released == returned


def test_what_was_given_back_backs_nothing() -> None:
    lease = book(released=100, backing=850)
    assert lease.give_back(1_000) == 50
    assert lease.released == 150


def test_each_resolution_ends_one_reservation() -> None:
    lease = book(held=100, reservations=3)
    lease.settle(60, 50)
    lease.void(40)
    assert (lease.held, lease.reservations, lease.used) == (0, 1, 50)
    lease.void(0)
    with pytest.raises(LedgerError, match="0 calls"):
        lease.void(0)


def test_use_without_a_reservation_adds_up() -> None:
    """In full as overrun; of it what was let through without rights."""
    lease = book()
    lease.charge_unheld(30, 20)
    lease.charge_unheld(5)
    assert (lease.used, lease.overrun, lease.unheld) == (35, 35, 20)


@pytest.mark.parametrize(("now", "tells"), [(-0.1, False), (0.0, True), (99.9, True), (100.0, False)])
def test_use_is_told_in_a_lease_that_runs(now: float, tells: bool) -> None:
    """Also in one that takes no reservation any more."""
    lease = book()
    lease.retired = True
    assert lease.tells(now) is tells


@pytest.mark.parametrize(("now", "seconds"), [(99.0, 0), (100.0, 0), (100.1, 60), (160.0, 60), (160.1, 120)])
def test_a_report_says_in_whole_minutes_how_long_ago_its_period_ended(now: float, seconds: int) -> None:
    """Rounded up, so that the moment is not after its end."""
    report = book(held=1, reservations=1).report(now)
    assert report is not None
    assert report.ended_seconds == seconds


@pytest.mark.parametrize(("sequence", "known"), [(0, False), (1, True), (2, True)])
def test_a_report_is_acknowledged_by_its_sequence_or_a_later_one(sequence: int, known: bool) -> None:
    lease = book(used=10)
    first = lease.report(0.0)
    lease.acknowledge(state(sequence))
    lease.used = 20
    again = lease.report(0.0)
    assert first is not None
    assert again is not None
    assert (again.sequence, again.used) == ((2, 20) if known else (1, 10))
    assert lease.unreported == (10 if known else 20)


@pytest.mark.parametrize(
    ("used", "reported", "uncharged"), [(600, 0, 0), (700, 0, 0), (701, 0, 1), (900, 800, 100), (900, 650, 200)]
)
def test_what_a_fence_leaves_uncharged_is_beyond_rights_and_reports(used: int, reported: int, uncharged: int) -> None:
    """A coordinator that fences charges all rights, here 700, or what was reported."""
    lease = book(released=300, used=reported)
    lease.report(0.0)
    lease.acknowledge(state(1))
    lease.used = used
    assert lease.uncharged == uncharged


@pytest.mark.parametrize(("amount", "fits"), [(-1, False), (0, True), (250, True), (251, False)])
def test_the_log_holds_only_what_had_room(amount: int, fits: bool) -> None:
    """Of 1000 granted, 300 given back, 500 used and 50 held; 100 of the use was overrun."""
    lease = book(released=300, used=500, held=50, overrun=100)
    if fits:
        lease.recall_hold(amount)
    else:
        with pytest.raises(LedgerError, match=f"never had room for {amount}"):
            lease.recall_hold(amount)
    assert (lease.held, lease.reservations) == (50 + amount * fits, int(fits))


@pytest.mark.parametrize(
    ("used", "overrun", "sequence", "fits"),
    [(20, 5, 3, True), (21, 5, 3, False), (20, 6, 3, False), (20, 5, 2, True), (20, 5, 1, False)],
)
def test_a_report_of_the_log_tells_no_more_than_was_written_before_it(
    used: int, overrun: int, sequence: int, fits: bool
) -> None:
    """And follows the one before."""
    lease = book(used=20, overrun=5)
    lease.recall_report(LeaseReport(lease="one", sequence=2, used=10, held=0))
    report = LeaseReport(lease="one", sequence=sequence, used=used, held=0, overrun=overrun, released=30, would_block=4)
    if fits:
        lease.recall_report(report)
        assert (lease.sent, lease.released, lease.would_block) == (report, 30, 4)
    else:
        with pytest.raises(LedgerError, match=f"report {sequence} tells more"):
            lease.recall_report(report)


def test_the_first_report_of_the_log_may_have_any_number() -> None:
    lease = book(released=40, would_block=6)
    lease.recall_report(LeaseReport(lease="one", sequence=1, used=0, held=0, released=30, would_block=4))
    assert (lease.released, lease.would_block) == (40, 6)
