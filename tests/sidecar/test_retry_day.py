"""A fiftieth of the day of failures through a real sidecar: `make sim-retries` without the calls that say nothing."""

from __future__ import annotations

from random import Random

import pytest

from retryday import scaled
from retryday.figure import CLASSES, NAIVE, NAIVE_TRULY
from sidecar_world import World

pytestmark = pytest.mark.anyio


async def test_one_retry_budget_makes_the_calls_that_the_arithmetic_counts(empty_world: World) -> None:
    """2,200 for what is not malformed; of ten malformed requests seven never reach the provider, and three do once."""
    await scaled.start(empty_world)
    ours = await scaled.ours(empty_world, Random(1))
    assert ours.transient * scaled.FACTOR == CLASSES
    assert (ours.refused, ours.malformed) == (42, 18)
    assert ours.lost * scaled.FACTOR == 200
    assert ours.usd == pytest.approx(22)


@pytest.mark.parametrize(("recover", "figure"), [(True, NAIVE), (False, NAIVE_TRULY)])
async def test_a_double_retry_makes_the_calls_that_the_arithmetic_counts(
    empty_world: World, recover: bool, figure: int
) -> None:
    await empty_world.start(sidecar=False, control=False)
    naive = await scaled.naive(empty_world, Random(1), malformed_recover=recover, sound=scaled.SOUND_FIRST)
    assert naive.failed == figure
