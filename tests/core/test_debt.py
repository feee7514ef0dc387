"""Use without a lease: counted once, and against the cap for as long as its period runs."""

from __future__ import annotations

import pytest

from exchange_world import MONTH
from spendmesh_sidecar.core.ledger.debt import Debt
from spendmesh_sidecar.core.ledger.journal import UnleasedRecord
from spendmesh_sidecar.core.ledger.lease import LeaseBook


def fenced(used: int, unheld: int = 0) -> LeaseBook:
    return LeaseBook("one", MONTH, 100, 0.0, 60.0, used=used, unheld=unheld)


def test_what_nobody_charges_of_a_fenced_lease_is_kept_once_however_often_its_calls_end() -> None:
    debt, lease = Debt(), fenced(150, unheld=60)

    debt.keep_uncharged(lease)
    assert (debt.unleased, debt.owed) == (50, 50)

    lease.used += 20
    debt.keep_uncharged(lease)
    assert (debt.unleased, debt.owed) == (70, 60)


def test_nothing_is_credited_beyond_the_cap() -> None:
    debt = Debt()
    debt.borrow(80)
    debt.repay(80, 120)

    assert debt.credit(100, 1.0) == 0


def test_the_cap_is_whole_from_the_instant_on_at_which_the_period_ends() -> None:
    debt = Debt()
    debt.borrow(80)
    debt.repay(80, 80)
    debt.tell(fenced(0), 60.0)

    assert (debt.credit(100, 59.9), debt.credit(100, 60.0)) == (20, 100)


@pytest.mark.parametrize(("now", "lent"), [(59.9, 15), (60.0, 0)])
def test_what_closed_leases_told_is_part_of_the_cap_until_their_period_ends(now: float, lent: int) -> None:
    """Of all of them together."""
    debt = Debt()
    debt.closed(fenced(10, unheld=10), 60.0, 1.0)

    assert debt.closed(fenced(5, unheld=5), 60.0, now) == bool(lent)
    assert debt.lends(now) == bool(lent)
    assert not lent or debt.lent == lent


@pytest.mark.parametrize(("now", "used"), [(59.9, 7 + 5), (60.0, 0)])
def test_after_a_restart_the_cap_lacks_what_was_told_in_a_period_that_still_runs(now: float, used: int) -> None:
    """In leases that are closed, and in those that are not."""
    debt = Debt()
    debt.recall(UnleasedRecord(account=MONTH, amount=0, lent=5, lent_until=60.0), [(fenced(7, unheld=7), 60.0)], now)

    assert (debt.credit_used, debt.credit(100, now)) == (used, 100 - used)
