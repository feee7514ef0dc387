"""`make sim-retries` in small: a tenth of the simulated day."""

from __future__ import annotations

from functools import cache

import pytest

from retryday.day import Day, Way, ways
from retryday.figure import CLASSES, NAIVE, NAIVE_LOOPED, NAIVE_TRULY, Name, Tally
from retryday.malformed import KINDS

WAYS = {way.name: way for way in ways()}


@cache
def day(name: str) -> Tally:
    return Day(WAYS[name], seed=1, factor=10).run()


@pytest.mark.parametrize(
    ("name", "figure"), [(Name.FIGURE, NAIVE), (Name.NAIVE, NAIVE_TRULY), (Name.LOOPED, NAIVE_LOOPED)]
)
def test_a_double_retry_makes_as_many_failed_calls_as_the_arithmetic_says(name: str, figure: int) -> None:
    assert (NAIVE, NAIVE_TRULY, NAIVE_LOOPED) == (8_750, 12_500, 6_200)
    assert day(name).failed == pytest.approx(figure, rel=0.12)


def test_the_policy_makes_as_many_failed_calls_as_the_arithmetic_says_and_refuses_most_malformed_ones() -> None:
    """What is left of malformed requests reaches the provider once: nobody asks again."""
    ours = day(Name.OURS)
    assert CLASSES == 2_200
    assert ours.transient * ours.factor == pytest.approx(CLASSES, rel=0.12)
    assert ours.refused / (ours.refused + ours.malformed) == pytest.approx(7 / len(KINDS), abs=0.1)
    assert (ours.refused + ours.malformed) * ours.factor == pytest.approx(3_000, rel=0.12)


def test_the_policy_fails_less_costs_less_and_loses_fewer_requests_than_a_double_retry() -> None:
    ours, naive = day(Name.OURS), day(Name.NAIVE)
    assert ours.failed * 3 <= naive.failed
    assert ours.usd <= 0.75 * naive.usd
    assert ours.lost <= 0.75 * naive.lost


def test_the_pause_is_what_recovers() -> None:
    """The policy without its pause loses as many requests as one retry at once does: half."""
    spec = WAYS[Name.OURS].retry
    hasty = Way("hasty", type(spec)(name=spec.name, attempts=1, codes=spec.codes, backoff_ms=0, budget_percent=100))
    assert Day(hasty, 1, factor=10).run().lost >= 3 * day(Name.OURS).lost


def test_the_same_seed_gives_the_same_day_and_another_one_another() -> None:
    first, again, other = (Day(WAYS[Name.OURS], seed, factor=50).run() for seed in (1, 1, 2))
    assert first == again != other
