"""How many rights are fetched ahead of calls, and given back after them: estimates that never decide about a call."""

from __future__ import annotations

import pytest

from spendmesh_sidecar.core.ledger.demand import IDLE_SECONDS, PEAK_SECONDS, Demand

LARGE = 1_000_000
"""A limit of which a call is a small part."""
SMALL = 500
"""One of which no more than 10 are held ahead of demand."""


def after(*calls: tuple[int, float]) -> Demand:
    """Demand of reservations, each with its amount and time."""
    demand = Demand(0.0)
    for amount, now in calls:
        demand.note(amount, now)
    return demand


@pytest.mark.parametrize(("amount", "asked"), [(LARGE, 10_000), (199, 1), (99, 1)])
def test_before_any_call_a_hundredth_of_the_limit_is_asked_for(amount: int, asked: int) -> None:
    assert Demand(0.0).target(5.0, amount, tight=False) == asked
    assert Demand(0.0).low_water(5.0, amount, tight=False) == 0, "what is there is enough until somebody calls"


@pytest.mark.parametrize(
    ("calls", "now", "amount", "tight", "low", "target"),
    [
        pytest.param([(100, 7.0)], 7.0, LARGE, False, 100, 300, id="one call"),
        pytest.param([(100, 7.0)], 7.0, LARGE, True, 100, 200, id="one call, little is left: room for it and one more"),
        pytest.param([(100, 7.0)] * 10, 7.0, LARGE, False, 1_000, 3_000, id="for 10 s, up to 30 s"),
        pytest.param([(100, 7.0)] * 10, 7.0, LARGE, True, 100, 300, id="for a second, up to 3, where little is left"),
        pytest.param([(100, 7.0)] * 10, 7.0, 50_000, False, 500, 1_000, id="no more than 2 % of the limit"),
        pytest.param([(100, 7.0)] * 10, 17.0, LARGE, False, 367, 1_103, id="demand is forgotten"),
        pytest.param([(100, 7.0), (100, 17.0)], 17.0, LARGE, False, 136, 410, id="also between calls"),
    ],
)
def test_rights_are_fetched_for_the_largest_call_and_the_demand_ahead(
    calls: list[tuple[int, float]], now: float, amount: int, tight: bool, low: int, target: int
) -> None:
    demand = after(*calls)
    assert demand.low_water(now, amount, tight=tight) == low
    assert demand.target(now, amount, tight=tight) == target


@pytest.mark.parametrize(
    ("calls", "peak"),
    [
        ([], 0),
        ([(100, 0.0), (10, 1.0)], 100),
        ([(100, 0.0), (10, 61.0), (10, 121.0)], 100),
        ([(100, 0.0), (10, 60.0), (10, 61.0), (10, 121.0)], 100),
        ([(100, 0.0), (10, 61.0), (10, 121.5)], 10),
        ([(100, 0.0), (0, 61.0), (0, 122.0)], 0),
    ],
)
def test_the_largest_call_is_remembered_for_one_to_two_minutes(calls: list[tuple[int, float]], peak: int) -> None:
    assert PEAK_SECONDS == 60.0
    assert after(*calls).peak == peak


@pytest.mark.parametrize(("calls", "begins"), [([], 0.0), ([(1, 5.0)], 5.0)])
def test_an_account_is_idle_some_time_after_its_last_call_or_its_beginning(
    calls: list[tuple[int, float]], begins: float
) -> None:
    demand = after(*calls)
    assert [demand.idle(begins + IDLE_SECONDS - 0.1), demand.idle(begins + IDLE_SECONDS)] == [False, True]


@pytest.mark.parametrize(
    ("free", "tight", "given_back"), [(70, False, 20), (50, False, 0), (30, False, 0), (70, True, 70), (0, True, 0)]
)
def test_an_idle_holder_keeps_its_largest_call_or_nothing_where_little_is_left(
    free: int, tight: bool, given_back: int
) -> None:
    assert after((50, 0.0)).surplus(free, IDLE_SECONDS, LARGE, tight=tight) == given_back


@pytest.mark.parametrize(
    ("held", "given_back"),
    [
        ([(0.0, 41), (19.9, 41)], 0),
        ([(0.0, 41), (20.0, 41)], 21),
        ([(0.0, 41), (10.0, 40), (20.0, 41)], 0),
        ([(15.0, 41), (20.0, 41)], 0),
        ([(0.0, 40), (20.0, 40)], 0),
    ],
)
def test_a_busy_holder_gives_back_what_was_too_much_for_long(held: list[tuple[float, int]], given_back: int) -> None:
    """More than twice the 20 that it would ask for, for 20 s without a break; those it keeps."""
    demand, found = Demand(0.0), 0
    for now, free in held:
        demand.note(10, now)
        found = demand.surplus(free, now, SMALL, tight=False)
    assert found == given_back
