"""How large a grant is, what of it is kept, why one is refused and what is asked back: each bound where it binds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ledger_samples import BUDGET, limit
from spendmesh_operator.ledger.books.accounts import Account, AccountKey, Holder, Lease, QuarantineReason
from spendmesh_operator.ledger.books.extra import NO_EXTRA, Extra
from spendmesh_operator.ledger.books.grants import (
    kept_survival,
    recall,
    refusal,
    room_ahead,
    size_grant,
    survival_grant,
)
from spendmesh_operator.ledger.books.rolling import NOTHING, Beside

ME = Holder("me", "team-a/me", "nonce", "Deployment team-a/web")
FREE_TO_TAKE = 10**6


def account_of(*leases: Lease, amount: int = 1000, survival_percent: int = 0) -> Account:
    """One limit of 1000 with these leases: ahead of use 20 for a pod, 100 for a workload, 250 in all."""
    spec = replace(limit(amount), survival_percent=survival_percent)
    account = Account(AccountKey("test", BUDGET, "hourly", (), 0), 3600, spec)
    for lease in leases:
        account.put(lease)
    return account


def mine(granted: int, used: int = 0, *, survival: int = 0, quarantined: QuarantineReason = "") -> Lease:
    return Lease("mine", ME, granted=granted, used=used, survival=survival, quarantined=quarantined)


def others(*granted: int, used: int = 0, workload: str = "") -> list[Lease]:
    """A lease of each of some other pods."""
    return [
        Lease(f"l{number}", Holder(f"pod-{number}", f"team-a/pod-{number}", f"n{number}", workload), each, used=used)
        for number, each in enumerate(granted)
    ]


# --- size ---------------------------------------------------------------------------------------------------


def size(account: Account, *, need: int = 0, beside: Beside = NOTHING) -> int:
    """Of a grant to me, who could use any number."""
    return size_grant(account, ME, account.leases.get("mine"), need, FREE_TO_TAKE, beside)


@pytest.mark.parametrize(
    ("account", "granted"),
    [
        pytest.param(account_of(), 20, id="a fiftieth for a pod"),
        pytest.param(account_of(mine(15)), 5, id="less what it has ahead already"),
        pytest.param(account_of(*others(20, 20, 20, 20, workload=ME.workload)), 10, id="half of its workload's rest"),
        pytest.param(account_of(*others(*(12 * [20]), 5)), 5, id="a quarter for all, of which 245 are out"),
        pytest.param(account_of(*others(970, used=970)), 15, id="half of the rest to a single one"),
        pytest.param(account_of(*others(950, used=940)), 12, id="a quarter of the rest to one of two"),
        pytest.param(
            account_of(mine(120), *others(*(59 * [1])), amount=10_000), 46, id="a fair share, less what it has"
        ),
    ],
)
def test_a_grant_is_as_large_as_its_narrowest_bound(account: Account, granted: int) -> None:
    assert size(account) == granted


def test_neighbors_of_a_rolling_part_leave_less_to_divide() -> None:
    """970 of 1000 are charged beside it."""
    assert size(account_of(), beside=Beside(charged=970)) == 15


def test_a_need_is_granted_beyond_each_bound() -> None:
    """That it fits was checked before."""
    assert size(account_of(mine(15)), need=400) == 400


def test_a_holder_that_took_more_than_its_bounds_gets_nothing_in_advance() -> None:
    """The bounds are below zero then; a grant never is."""
    account = account_of(mine(300))
    assert room_ahead(account, ME) < 0
    assert size(account) == 0


# --- what is kept for silence -------------------------------------------------------------------------------


def kept(account: Account, given: int = 0, beside: Beside = NOTHING) -> int:
    return survival_grant(account, account.leases.get("mine"), given, beside)


@pytest.mark.parametrize(
    ("account", "survival"),
    [
        pytest.param(account_of(survival_percent=10), 100, id="alone, the whole share"),
        pytest.param(account_of(*others(10), survival_percent=10), 50, id="one of two"),
        pytest.param(account_of(mine(40, survival=30), *others(10), survival_percent=10), 20, id="less what it keeps"),
        pytest.param(account_of(mine(90, survival=80), *others(10), survival_percent=10), 0, id="it keeps too much"),
        pytest.param(account_of(*others(960, used=960), survival_percent=10), 40, id="what is left"),
        pytest.param(account_of(*others(1001, used=1001), survival_percent=10), 0, id="nothing is left"),
    ],
)
def test_a_holder_keeps_its_part_of_the_share_for_silence(account: Account, survival: int) -> None:
    assert kept(account) == survival


def test_what_is_kept_leaves_room_for_the_grant_and_for_the_neighbors() -> None:
    assert kept(account_of(survival_percent=10), given=30, beside=Beside(charged=950)) == 20


def test_after_the_limit_was_lowered_a_holder_keeps_its_part_of_the_lower_one() -> None:
    """200 were kept of a limit of 2000."""
    lease = mine(200, survival=200)
    assert kept_survival(account_of(lease, survival_percent=10), lease) == 100


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "need", "extra", "reason"),
    [
        (account_of(mine(1)), 999, NO_EXTRA, None),
        (account_of(mine(1)), 1000, NO_EXTRA, "in_flight"),
        (account_of(mine(1)), 1001, NO_EXTRA, "too_large"),
        (account_of(mine(100, quarantined="gone"), *others(200)), 900, NO_EXTRA, "in_flight"),
        (account_of(mine(100, quarantined="gone"), *others(200)), 901, NO_EXTRA, "exhausted"),
        (account_of(mine(1)), 1050, Extra(amount=100, charged=100, quarantined=50), "in_flight"),
        (account_of(mine(1)), 1051, Extra(amount=100, charged=100, quarantined=50), "exhausted"),
    ],
)
def test_a_refusal_says_whether_waiting_helps(account: Account, need: int, extra: Extra, reason: str | None) -> None:
    """in_flight: it fits once others settle; exhausted: only the next period; too_large: never."""
    assert refusal(account, need, extra=extra) == reason


# --- what is asked back -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lease", "more", "asked", "back"),
    [
        pytest.param(mine(500), 0, 0, 0, id="nobody waits"),
        pytest.param(mine(500), 0, 600, 100, id="what a waiting call lacks"),
        pytest.param(mine(500, survival=30), 480, 600, 470, id="all but what is kept for silence"),
        pytest.param(mine(500, 480, survival=30), 480, 600, 0, id="less is left than is kept"),
        pytest.param(mine(500, 100, survival=30), 501, 0, 400, id="all, where one unit is overdrawn"),
    ],
)
def test_rights_are_asked_back_for_those_who_wait(lease: Lease, more: int, asked: int, back: int) -> None:
    """`more` are in other hands, of 1000."""
    assert recall(account_of(lease, *others(more)), lease, asked) == back
