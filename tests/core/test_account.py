"""One account of a sidecar: which lease is used, what is known of the whole, what to ask for and to give back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import limit
from spendmesh_sidecar.core.ledger.account import NEXT_PERIOD_LEAD_SECONDS, Account
from spendmesh_sidecar.core.ledger.demand import IDLE_SECONDS, Demand
from spendmesh_sidecar.core.ledger.lease import LeaseBook
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Denial
from spendmesh_sidecar.core.specs import LimitSpec, OverrideSpec, WindowSpec
from spendmesh_sidecar.core.types import Shortfall

REF = AccountRef(budget="team-a/team", limit="monthly")
SPEC = limit("monthly", 1_000_000)
ROLLING = replace(SPEC, window=WindowSpec(type="Rolling", duration_seconds=3600))


def account_of(*leases: LeaseBook, spec: LimitSpec = SPEC) -> Account:
    account = Account(REF, Demand(0.0))
    account.put_in_force(spec, enforced=True, now=0.0)
    for each in leases:
        account.add(each)
    return account


def book(name: str = "one", granted: int = 100, *, starts: float = 0.0, ends: float = 1_000.0) -> LeaseBook:
    return LeaseBook(name, REF, granted, starts, ends)


def whole(charged: int, *, amount: int = 1_000_000, settled: int = 0, resets_in_ms: int = 10_000_000) -> AccountState:
    return AccountState(amount=amount, settled=settled, charged=charged, resets_in_ms=resets_in_ms)


# --- leases and what is known -------------------------------------------------------------------------------


def test_a_reservation_uses_the_lease_with_the_most_free_rights_the_older_of_two() -> None:
    assert account_of(book("a", 10), book("b", 20), book("c", 15)).current(0.0).id == "b"  # type: ignore[union-attr]
    assert account_of(book("a", 20), book("b", 20)).current(0.0).id == "a"  # type: ignore[union-attr]


def test_what_a_denial_says_of_the_account_counts_until_its_period_ends() -> None:
    account, known = account_of(), whole(900)
    account.denied(Denial(account=REF, reason="exhausted", state=known), 10, 5.0)
    assert [account.state(now) for now in (5.0, 10_004.999, 10_005.0)] == [known, known, None]


def test_of_a_rolling_window_the_newest_part_that_ended_is_what_is_known() -> None:
    parts = [book("a", ends=300.0), book("b", ends=150.0)]
    for part, charged in zip(parts, (700, 800), strict=True):
        part.state = whole(charged)
    assert account_of(*parts, spec=ROLLING).state(400.0) == whole(700)
    assert account_of(*parts).state(400.0) is None, "a calendar's next period starts anew"


def test_own_use_is_settled_also_where_nothing_is_known_of_the_whole() -> None:
    lease = book()
    lease.hold(30)
    lease.settle(30, 20)
    account = account_of(lease)
    assert (account.settled(0.0), account.standing(0.0)) == (20, None)
    lease.state = whole(500, settled=400)
    assert (account.settled(0.0), account.standing(0.0)) == (420, (1_000_000, 420))


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    ("since", "now", "ended"), [(0.0, 59.9, False), (0.0, 60.0, True), (59.9, 60.0, True), (60.0, 90.0, False)]
)
def test_a_period_ends_once(since: float, now: float, *, ended: bool, closed: bool) -> None:
    """Whoever began to wait in it hears of that, also when its lease is closed; who came later does not."""
    ending = book(ends=60.0)
    account = account_of(book("older", ends=-60.0), ending, book("next", starts=60.0, ends=120.0))
    if closed:
        account.forget(ending, 60.0)
        account.forget(account.leases["older"], 60.0)

    assert account.period_ended(since, now) is ended


@pytest.mark.parametrize(("denied", "need", "stands"), [(0, 0, False), (0, 1, True), (5, 4, False), (5, 5, True)])
def test_a_denial_stands_for_calls_that_lack_as_much(denied: int, need: int, *, stands: bool) -> None:
    """Who lacks nothing lacks less than any refused call."""
    account = account_of()
    account.denied(Denial(account=REF, reason="exhausted"), denied, 5.0)
    assert (account.standing_denial(need, 5.5) is not None) == stands


# --- what to ask for ----------------------------------------------------------------------------------------


def test_a_top_up_asks_for_what_lacks_to_the_target_and_needs_nothing() -> None:
    """1 % of the limit before any call is known; at least 1, where an override has more than that already."""
    spec = replace(SPEC, overrides=(OverrideSpec(name="launch", amount=50_000, starts=0, ends=1_000),))
    extra = LeaseBook("extra", replace(REF, override="launch"), 50_000, 0.0, 1_000.0)

    [first] = account_of().wants(0.0, 0.0)
    [beside] = account_of(extra, spec=spec).wants(0.0, 0.0)
    [more] = account_of(book(granted=0)).wants(0.0, 0.0) or [None]

    assert (first.need, first.want) == (0, 10_000)
    assert (beside.need, beside.want) == (0, 1)
    assert more is None, "nobody has called: nothing is due"


@pytest.mark.parametrize(
    ("left", "spread", "asks"),
    [(30.0, 0.0, False), (29.9, 0.0, True), (45.0, 0.5, False), (44.9, 0.5, True), (15.0, 0.5, True)],
)
def test_the_next_period_is_asked_for_before_the_end(left: float, spread: float, *, asks: bool) -> None:
    """From one lead on, and up to two where sidecars are spread; also at the first instant of a short period."""
    assert NEXT_PERIOD_LEAD_SECONDS == 30.0
    account = account_of(book(granted=50_000, starts=7.0, ends=7.0 + left))
    found = [(want.period, want.need, want.want) for want in account.wants(7.0, spread)]
    assert found == ([("next", 0, 10_000)] if asks else [])


def test_rights_for_the_next_period_are_asked_for_once() -> None:
    account = account_of(book(granted=50_000, ends=20.0), book("two", starts=20.0, ends=40.0))
    assert account.wants(0.0, 0.0) == []


def lacking(*calls: tuple[int, int, int]) -> tuple[Shortfall, ...]:
    return tuple(Shortfall("team-a/team", "monthly", need, want, amount=amount) for need, want, amount in calls)


@pytest.mark.parametrize(
    ("calls", "need", "want"),
    [
        pytest.param([(50, 50, 150)], 50, 100, id="what one lacks, and room for one more"),
        pytest.param(
            [(50, 50, 150), (80, 80, 80)], 130, 210, id="what each lacks: the second has nothing that is free"
        ),
        pytest.param([(50, 50, 300)], 200, 200, id="what was free when it came is gone"),
        pytest.param([(50, 50, 151)], 51, 100, id="or one of it"),
        pytest.param([(0, 30, 20)], 0, 60, id="nobody needs anything"),
    ],
)
def test_calls_that_wait_are_asked_for_together(calls: list[tuple[int, int, int]], need: int, want: int) -> None:
    """100 are free."""
    account = account_of(book(granted=100), spec=replace(SPEC, amount=10_000))
    asked = account.want_for(lacking(*calls), 0.0)
    assert (asked.need, asked.want) == (need, want)


# --- what to give back --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("charged", "given_back"), [(900_000, 150), (900_001, 200)])
def test_an_idle_holder_keeps_nothing_where_less_than_a_tenth_is_left(charged: int, given_back: int) -> None:
    """Else it keeps its largest call, here 50."""
    lease = book(granted=200)
    lease.state = whole(charged)
    account = account_of(lease)
    account.demand.note(50, 0.0)
    account.give_back_surplus(IDLE_SECONDS)
    assert lease.released == given_back


def test_the_last_unit_is_given_back_too() -> None:
    lease = book(granted=1)
    account_of(lease).give_back_surplus(IDLE_SECONDS)
    assert lease.released == 1


def test_a_surplus_that_was_spent_in_between_is_a_new_one() -> None:
    """It is given back when it has lasted, not because there was one before."""
    lease = book(granted=1_000)
    account = account_of(lease)
    for now, held in ((0.0, 0), (10.0, 1_000), (15.0, 0), (21.0, 0)):
        lease.held = held
        account.demand.note(10, now)
        account.give_back_surplus(now)
    assert lease.released == 0


@pytest.mark.parametrize(("charged", "counted"), [(999_950, 0), (999_951, 1)])
def test_a_call_that_an_observed_limit_had_no_room_for_is_counted(charged: int, counted: int) -> None:
    """100 are free here and the call is of 150: refused if less than 50 are left."""
    lease = book()
    lease.state = whole(charged)
    account = account_of(lease)
    account.note_would_block(150, 0.0)
    account.note_would_block(100, 0.0)
    assert account.debt.would_block == counted
