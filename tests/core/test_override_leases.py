"""Overrides in a sidecar: what they have is spent first, and one reservation may be held in two places."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, USD, budget, limit
from lease_samples import HOUR, charge, lease as sample, state
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.demand import IDLE_SECONDS
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import Lease, LeaseState
from spendmesh_sidecar.core.ledger.view import tightest_left
from spendmesh_sidecar.core.specs import OverrideSpec

LAUNCH = OverrideSpec(name="launch", amount=USD, starts=0, ends=10**10)
BUDGETS = (budget(replace(limit("monthly", 10 * USD), overrides=(LAUNCH,))),)


WHOLE = state(amount=11 * USD, settled=2 * USD, charged=2 * USD)


def lease(granted: int, override: str = "", **changes: object) -> Lease:
    """Of the limit itself, or of an override of it."""
    ref = replace(MONTH, override=override)
    return sample(granted, **{"id": override or "own", "account": ref, "state": WHOLE, **changes})


def funded(own: int, launch: int, **changes: object) -> Ledger:
    ledger = Ledger("me", BUDGETS, 0.0)
    for message in (lease(own), lease(launch, "launch", **changes)):
        assert ledger.merge(message, 0.0)
    return ledger


def held(ledger: Ledger) -> dict[str, tuple[int, int, int]]:
    """Held, used and overrun of each lease."""
    leases = ledger.accounts[MONTH].leases
    return {name: (each.held, each.used, each.overrun) for name, each in leases.items()}


@pytest.mark.parametrize(
    ("worst", "own", "launch"), [(60, 0, 60), (100, 0, 100), (130, 30, 100), (300, 200, 100), (0, 0, 0)]
)
def test_the_override_is_held_first_and_the_rest_is_the_limits(worst: int, own: int, launch: int) -> None:
    ledger = funded(200, 100)
    assert ledger.reserve(charge(worst), "r", 0.0) == ()
    assert held(ledger) == {"own": (own, 0, 0), "launch": (launch, 0, 0)}


def test_what_both_have_together_is_what_fits() -> None:
    """A shortfall is counted after both."""
    ledger = funded(200, 100)
    assert ledger.free(MONTH, 0.0) == 300
    [lack] = ledger.reserve(charge(301), "r", 0.0)
    assert lack.need == 1
    assert held(ledger) == {"own": (0, 0, 0), "launch": (0, 0, 0)}


@pytest.mark.parametrize(
    ("billed", "own", "launch"),
    [
        (0, (0, 0, 0), (0, 0, 0)),
        (90, (0, 0, 0), (0, 90, 0)),
        (100, (0, 0, 0), (0, 100, 0)),
        (120, (0, 20, 0), (0, 100, 0)),
        (150, (0, 50, 0), (0, 100, 0)),
        (170, (0, 70, 20), (0, 100, 0)),
    ],
)
def test_a_bill_fills_the_override_first_and_an_overrun_is_the_limits(
    billed: int, own: tuple[int, int, int], launch: tuple[int, int, int]
) -> None:
    """What a provider bills above the reservation is recorded once, on the limit's own lease."""
    ledger = funded(200, 100)
    ledger.reserve(charge(150), "r", 0.0)
    ledger.settle("r", Quantities(billed, "USD"), 0.0)
    assert held(ledger) == {"own": own, "launch": launch}


def test_a_void_frees_both_parts() -> None:
    ledger = funded(200, 100)
    ledger.reserve(charge(150), "r", 0.0)
    ledger.void("r")
    assert ledger.free(MONTH, 0.0) == 300


def test_two_limits_of_one_call_are_filled_each_from_its_own_override() -> None:
    """What one limit's override took is not taken off another limit's bill."""
    limits = (replace(limit("monthly", 10 * USD), overrides=(LAUNCH,)), limit("weekly", 10 * USD))
    ledger = Ledger("me", (budget(*limits),), 0.0)
    week = replace(MONTH, limit="weekly")
    for message in (lease(200), lease(100, "launch"), lease(500, id="week", account=week)):
        ledger.merge(message, 0.0)
    ledger.reserve((Charge(MONTH, "Cost", 150), Charge(week, "Cost", 150)), "r", 0.0)
    ledger.settle("r", Quantities(140, "USD"), 0.0)
    assert held(ledger) == {"own": (0, 40, 0), "launch": (0, 100, 0)}
    assert ledger.accounts[week].leases["week"].used == 140


def test_the_override_that_ends_first_is_drained_first() -> None:
    late = replace(LAUNCH, name="late")
    ledger = Ledger("me", (budget(replace(BUDGETS[0].limits[0], overrides=(LAUNCH, late))),), 0.0)
    ledger.merge(lease(50, "late", ends_in_ms=HOUR), 0.0)
    ledger.merge(lease(50, "launch", ends_in_ms=HOUR // 2), 0.0)
    ledger.reserve(charge(60), "r", 0.0)
    assert held(ledger) == {"late": (10, 0, 0), "launch": (50, 0, 0)}


def test_an_override_lapses_with_its_interval_and_closes() -> None:
    """A call that it holds settles there; nothing new is taken from it."""
    ledger = funded(200, 100, ends_in_ms=60_000)
    ledger.reserve(charge(40), "r", 59.0)
    assert ledger.free(MONTH, 60.0) == 200
    ledger.settle("r", Quantities(40, "USD"), 61.0)
    reports = {report.lease: report for report in ledger.reports(61.0)}
    assert reports["launch"].closed and reports["launch"].used == 40
    assert not reports["own"].closed and reports["own"].used == 0


def test_an_override_that_has_not_begun_is_not_spent() -> None:
    ledger = funded(200, 100, starts_in_ms=60_000)
    assert ledger.free(MONTH, 59.0) == 200
    assert ledger.free(MONTH, 60.0) == 300


def test_an_override_that_is_taken_out_is_given_back_and_may_come_again() -> None:
    ledger = funded(200, 100)
    ledger.set_budgets((budget(limit("monthly", 10 * USD)),), 0.0)
    assert ledger.free(MONTH, 0.0) == 200
    ledger.set_budgets(BUDGETS, 0.0)
    assert ledger.free(MONTH, 0.0) == 300
    ledger.set_budgets((budget(limit("monthly", 10 * USD)),), 0.0)
    assert {report.lease: report.closed for report in ledger.reports(0.0)} == {"own": False, "launch": True}


def test_rights_of_an_override_that_no_policy_has_are_only_closed() -> None:
    """A message that crosses a policy change."""
    ledger = Ledger("me", (budget(limit("monthly", 10 * USD)),), 0.0)
    ledger.merge(lease(100, "launch"), 0.0)
    assert ledger.free(MONTH, 0.0) == 0
    assert [report.closed for report in ledger.reports(0.0)] == [True]


def test_an_idle_sidecar_gives_the_override_back_whole() -> None:
    """Others can spend it while it lasts."""
    ledger = funded(200, 100)
    ledger.reserve(charge(10), "r", 0.0)
    ledger.void("r")
    reports = {report.lease: report for report in ledger.reports(IDLE_SECONDS)}
    assert reports["launch"].released == 100


def test_a_client_is_told_what_is_left_of_both() -> None:
    """The coordinator's figures hold the override; what was used since is taken off, wherever it was."""
    ledger = funded(2 * USD, USD)
    ledger.reserve(charge(3 * USD), "r", 0.0)
    ledger.settle("r", Quantities(3 * USD, "USD"), 0.0)
    assert tightest_left(ledger, BUDGETS, 0.0) == "6.00 USD; team-a/team/monthly"
    ledger.acknowledged([LeaseState(lease=r.lease, sequence=r.sequence) for r in ledger.reports(0.0)], 0.0)
    assert tightest_left(ledger, BUDGETS, 0.0) == "9.00 USD; team-a/team/monthly"
