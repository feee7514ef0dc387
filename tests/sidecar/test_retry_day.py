"""A fiftieth of the day of failures through a real sidecar: `make sim-retries` without the calls that say nothing."""

from __future__ import annotations

from random import Random

import pytest

from retryday import scaled
from retryday.figure import CLASSES, NAIVE, NAIVE_LOOPED, NAIVE_TRULY, Name
from sidecar_world import World

pytestmark = pytest.mark.anyio


async def test_one_retry_budget_makes_the_calls_that_the_arithmetic_counts(empty_world: World) -> None:
    """2,200 for what is not malformed; of ten malformed requests seven never reach the provider, and three do once."""
    await scaled.start(empty_world, scaled.quick())
    ours = await scaled.ours(empty_world, Random(1))
    assert ours.transient * scaled.FACTOR == CLASSES
    assert (ours.refused, ours.malformed) == (42, 18)
    assert ours.lost * scaled.FACTOR == 200
    assert ours.usd == pytest.approx(22)


@pytest.mark.parametrize(
    ("name", "figure"), [(Name.FIGURE, NAIVE), (Name.NAIVE, NAIVE_TRULY), (Name.LOOPED, NAIVE_LOOPED)]
)
async def test_a_double_retry_makes_the_calls_that_the_arithmetic_counts(
    empty_world: World, name: str, figure: int
) -> None:
    """Straight at the provider; through a sidecar three of ten malformed requests reach it, each time."""
    await scaled.start(empty_world, scaled.hands_off())
    naive = await scaled.naive(empty_world, Random(1), name, sound=scaled.SOUND_FIRST)
    assert naive.failed == figure
