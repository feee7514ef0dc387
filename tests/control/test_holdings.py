"""Leases, the sums of them and the periods they are in: each step by itself, without a decision."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_spec

from ledger_desk import HOUR_MS, holder
from ledger_samples import BUDGET, START_MS, limit
from spendmesh_operator.ledger.books.accounts import (
    Account,
    AccountKey,
    InvariantViolated,
    Lease,
    QuarantineReason,
    Totals,
)
from spendmesh_operator.ledger.books.granting import check_grant
from spendmesh_operator.ledger.books.holdings import DOUBT_MS, NOTE_MS, Holdings, PeriodAccounts
from spendmesh_operator.ledger.books.partitions import Division

START = START_MS // 1000
LEASE = Lease("l", holder(), granted=100)


def account_of(*leases: Lease, per: tuple[str, ...] = (), opened_by: str = "", override: str = "") -> Account:
    key = AccountKey("test", BUDGET, "hourly", per, START, override)
    account = Account(key, START + 3600, limit(), opened_by=opened_by)
    for lease in leases:
        account.put(lease)
    return account


def held(*leases: Lease) -> tuple[Holdings, Account]:
    """One account with these leases."""
    holdings, account = Holdings(), account_of()
    holdings.add_account(account)
    for lease in leases:
        holdings.put(account, lease)
    return holdings, account


# --- one lease ----------------------------------------------------------------------------------------------


def test_a_new_lease_is_of_nothing() -> None:
    lease = Lease("l", holder())
    assert (lease.granted, lease.released, lease.used, lease.held) == (0, 0, 0, 0)
    assert (lease.overrun, lease.would_block, lease.unheld, lease.survival, lease.sequence) == (0, 0, 0, 0, 0)
    assert (lease.rights, lease.charge, lease.owed, lease.unspent, lease.ahead) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("lease", "rights", "charge", "owed", "unspent", "ahead"),
    [
        (LEASE, 100, 100, 0, 100, 100),
        (replace(LEASE, released=30, used=20, held=10, survival=15), 70, 70, 0, 40, 25),
        (replace(LEASE, used=60, held=40, survival=15), 100, 100, 0, 0, 0),
        (replace(LEASE, used=90, survival=15), 100, 100, 0, 10, 0),
        (replace(LEASE, used=120, held=5, overrun=20), 100, 125, 25, 0, 0),
        (replace(LEASE, released=30, used=20, forked=True), 70, 140, 0, 50, 50),
    ],
)
def test_what_a_lease_comes_to(lease: Lease, rights: int, charge: int, owed: int, unspent: int, ahead: int) -> None:
    assert (lease.rights, lease.charge, lease.owed, lease.unspent, lease.ahead) == (
        rights,
        charge,
        owed,
        unspent,
        ahead,
    )


# --- sums ---------------------------------------------------------------------------------------------------


def test_sums_are_of_all_leases_and_of_nothing_without_any() -> None:
    """Rights ahead of use also by pod and by what shares a cap; no entry where there are none."""
    mine = replace(LEASE, used=20, survival=15)
    spent = Lease("m", holder("pod-b"), granted=50, used=50)
    gone = Lease("n", holder("pod-c"), granted=40, used=30, survival=5, quarantined="gone")
    totals = account_of(mine, spent, gone).totals

    assert (totals.charged, totals.open_used, totals.quarantined) == (190, 70, 40)
    assert (totals.survival, totals.spenders, totals.ahead) == (15, 1, 70)
    assert totals.ahead_of_pod == {"pod-a": 65, "pod-c": 5}
    assert totals.ahead_of_group == {"Pod team-a/pod-a": 65, "Pod team-a/pod-c": 5}

    for lease in (mine, spent, gone):
        totals.count(lease, -1)
    assert totals == Totals(0, 0, 0, 0, 0, 0, {}, {})


def test_a_closed_lease_counts_in_all_its_numbers() -> None:
    """Spent, billed beyond the reservations, and refused were it enforced; each of two adds up."""
    account = account_of(LEASE, Lease("m", holder("pod-b"), granted=50))
    for lease_id, used in (("l", 70), ("m", 20)):
        account.put(replace(account.leases[lease_id], overrun=used // 10, would_block=used // 5))
        account.close(lease_id, used)

    assert (account.closed_used, account.closed_overrun, account.closed_would_block) == (90, 9, 18)
    assert (account.charged, account.settled, account.remaining) == (90, 90, 910)


# --- steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "then", "changes"),
    [
        ("silent", "gone", True),
        ("silent", "replaced", True),
        ("gone", "fork", True),
        ("silent", "silent", False),
        ("gone", "silent", False),
        ("gone", "gone", False),
        ("replaced", "gone", False),
        ("fork", "breach", False),
    ],
)
def test_a_reason_that_a_sign_of_life_ends_may_get_worse(
    reason: QuarantineReason, then: QuarantineReason, *, changes: bool
) -> None:
    holdings, account = held(LEASE)
    assert holdings.quarantine(account, LEASE, reason)
    assert holdings.quarantine(account, account.leases["l"], then) == changes
    assert account.leases["l"].quarantined == (then if changes else reason)


@pytest.mark.parametrize(("used", "alarms"), [(99, 0), (100, 0), (101, 1)])
def test_closing_that_raises_what_is_charged_is_told(used: int, alarms: int) -> None:
    """100 were charged until then."""
    holdings, account = held(LEASE)
    holdings.close(account, LEASE, used)
    assert [alarm.startswith("lease l: closing it raised") for alarm in holdings.alarms] == alarms * [True]


@pytest.mark.parametrize("added", [0, 9])
def test_a_grant_of_less_than_the_need_is_a_violation(added: int) -> None:
    """I1, I5: said of the lease as it would be, whatever the arithmetic came to."""
    before = replace(LEASE, granted=100)
    check_grant(account_of(before), before, replace(before, granted=110), 10)
    with pytest.raises(InvariantViolated, match=f"{added} granted for 10"):
        check_grant(account_of(before), before, replace(before, granted=100 + added), 10)


def test_accounts_of_a_divided_period_are_counted_with_who_opened_them() -> None:
    """Overrides take no room."""
    period = PeriodAccounts()
    mine, also_mine = account_of(per=("ann",), opened_by="pod-a"), account_of(per=("bob",), opened_by="pod-a")
    extra = account_of(per=("eve",), opened_by="pod-b", override="launch")
    for account in (mine, also_mine, account_of(per=("zoe",), opened_by="pod-b"), extra):
        period.add(account)
    assert (period.division.count, dict(period.division.opened)) == (3, {"pod-a": 2, "pod-b": 1})

    period.remove(mine)
    period.remove(extra)
    assert (period.division.count, dict(period.division.opened)) == (2, {"pod-a": 1, "pod-b": 1})

    period.remove(also_mine)
    assert (period.division.count, dict(period.division.opened)) == (1, {"pod-b": 1})


# --- time ---------------------------------------------------------------------------------------------------


def test_books_that_never_said_how_far_they_are_believe_their_newest_period() -> None:
    """Empty ones the clock; what was believed before stands. None of it is told as a doubt."""
    holdings, _ = held()
    for believed in (0, START_MS - HOUR_MS):
        holdings.resume(believed)
        holdings.begin(START_MS + 2 * DOUBT_MS)
        assert holdings.believed_ms == (believed or START_MS)
    holdings.believe(START_MS + 2 * DOUBT_MS, 0)
    assert holdings.alarms == []

    empty = Holdings()
    empty.begin(START_MS)
    assert empty.believed_ms == START_MS


def test_time_that_is_believed_counts_as_a_change_after_an_hour() -> None:
    holdings, _ = held()
    holdings.resume(START_MS)
    before = holdings.revision
    holdings.believe(START_MS + NOTE_MS - 1, HOUR_MS)
    assert holdings.revision == before
    holdings.believe(START_MS + NOTE_MS, HOUR_MS)
    assert holdings.revision > before
    assert holdings.noted_ms == START_MS + NOTE_MS


def test_a_clock_that_is_ahead_by_more_than_a_day_is_told_once() -> None:
    """With whole hours; not at a day, which a long stop of the operator explains."""
    holdings, _ = held()
    holdings.resume(START_MS)
    holdings.believe(START_MS + DOUBT_MS, 0)
    assert holdings.alarms == []
    holdings.believe(START_MS + DOUBT_MS + HOUR_MS - 1, 0)
    holdings.believe(START_MS + DOUBT_MS + HOUR_MS, 0)
    assert [alarm[:43] for alarm in holdings.alarms] == ["the clock is 24 hours ahead of the books; n"]


@pytest.mark.parametrize(
    ("mine", "drafts", "room"), [(0, 0, True), (3, 0, True), (4, 0, False), (1, 1, True), (2, 1, False), (0, 2, False)]
)
def test_a_pod_opens_as_many_accounts_as_it_leaves_free(mine: int, drafts: int, *, room: bool) -> None:
    """Of 10 values 6 are open; what the same request opens counts on both sides."""
    division = Division(count=6, opened=Counter({"pod-a": mine}))
    assert division.has_room(replace_spec(limit(), max_values=10), "pod-a", drafts) == room
