"""A rolling limit in the sidecar: what was known of the window is not forgotten where a part of it ends."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, USD, World, budget, chat, limit, policy, success
from fake_bank import Held
from spendmesh_sidecar.core.ledger.rights import AccountState, Lease, LeaseState
from spendmesh_sidecar.core.specs import LimitSpec, ThresholdSpec, WindowSpec

STEPS = (ThresholdSpec(percent=80, max_tier="economy"),)
ROLLING = replace(limit("monthly", USD, steps=STEPS), window=WindowSpec(type="Rolling", duration_seconds=3600))
CALENDAR = limit("monthly", USD, steps=STEPS)


def told(of: LimitSpec) -> World:
    """A world that was told of 90 % in a part of 150 seconds, and has closed its lease there."""
    mesh = World(policy(budgets=(budget(of),)))
    state = AccountState(
        amount=USD, settled=USD * 9 // 10, charged=USD * 9 // 10, max_tier="economy", resets_in_ms=10**6
    )
    lease = Lease(
        id="part-1",
        nonce="holder",
        account=MONTH,
        unit="Cost",
        currency="USD",
        granted=9,
        ends_in_ms=150_000,
        state=state,
    )
    mesh.ledger.merge(lease, mesh.now)
    mesh.now += 150
    [report] = mesh.ledger.reports(mesh.now)
    assert report.closed
    mesh.ledger.acknowledged([LeaseState(lease="part-1", sequence=report.sequence, state=state)], mesh.now)
    return mesh


def test_a_downgrade_outlives_the_part_in_which_it_was_told() -> None:
    """Most of the window still counts; in a calendar the new period begins at zero."""
    for of, tier in ((ROLLING, "economy"), (CALENDAR, "standard")):
        mesh = told(of)
        assert mesh.run(chat(), [success()]).headers["x-spendmesh-tier"] == tier


def test_another_window_forgets_what_was_told() -> None:
    """With another meaning nothing is taken over."""
    mesh = told(ROLLING)
    other = replace(ROLLING, window=WindowSpec(type="Rolling", duration_seconds=7200))
    mesh.ledger.set_budgets((budget(other),), mesh.now)
    [account] = mesh.ledger.accounts.values()
    assert account.state(mesh.now) is None


def test_a_spent_window_says_when_a_part_of_it_comes_free() -> None:
    """It never resets as a whole."""
    mesh = World(policy(budgets=(budget(ROLLING),)))
    mesh.bank.leases[(MONTH, "other")] = Held("other", granted=USD, used=USD, closed=True)
    assert "A part of it comes free in 1 h." in mesh.run(chat()).message


@pytest.mark.parametrize(
    ("of", "charged", "asks"),
    [(ROLLING, USD // 2, True), (ROLLING, USD * 95 // 100, False), (CALENDAR, USD * 95 // 100, True)],
)
def test_near_the_end_of_a_rolling_limit_no_rights_are_set_aside_for_the_next_part(
    of: LimitSpec, charged: int, asks: bool
) -> None:
    """They would be missing in this one; a calendar's next period has an amount of its own."""
    mesh = World(policy(budgets=(budget(of),)))
    state = AccountState(amount=USD, settled=0, charged=charged, resets_in_ms=20_000)
    lease = Lease(
        id="a",
        nonce="holder",
        account=MONTH,
        unit="Cost",
        currency="USD",
        granted=USD // 50,
        ends_in_ms=20_000,
        state=state,
    )
    mesh.ledger.merge(lease, mesh.now)
    mesh.run(chat(), [success()])
    assert ("next" in [want.period for want in mesh.ledger.wants(mesh.now)]) is asks
