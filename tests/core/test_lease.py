"""One lease's arithmetic, and what it refuses to do."""

from __future__ import annotations

import pytest

from spendmesh_sidecar.core.lease import LeaseBook, LedgerError
from spendmesh_sidecar.core.rights import AccountRef, LeaseReport, LeaseState, report_digest

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


@pytest.mark.parametrize(("asked", "returned"), [(-5, 0), (0, 0), (300, 300), (301, 300)])
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
