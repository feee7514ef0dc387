"""A time limit ends what is inside, and nothing but that: as `asyncio.timeout` does."""

from __future__ import annotations

import asyncio

import pytest

from spendmesh_sidecar.time_limit import TimeLimit

pytestmark = pytest.mark.anyio


async def forever() -> None:
    await asyncio.Event().wait()


async def test_what_takes_too_long_ends_with_a_timeout_and_the_task_goes_on() -> None:
    with pytest.raises(TimeoutError), TimeLimit(0.01, asyncio.get_running_loop()) as limit:
        await forever()
    assert limit.expired
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await asyncio.sleep(0)  # no cancellation is left behind


async def test_what_ends_in_time_hears_nothing_of_it() -> None:
    with TimeLimit(0.01, asyncio.get_running_loop()) as limit:
        pass
    await asyncio.sleep(0.03)
    assert not limit.expired


async def test_an_error_inside_stays_that_error() -> None:
    with pytest.raises(ValueError, match="inside"), TimeLimit(0.01, asyncio.get_running_loop()):
        try:
            await forever()
        except asyncio.CancelledError:
            raise ValueError("inside") from None


async def test_a_cancellation_from_elsewhere_stays_one_even_when_the_time_is_over_too() -> None:
    entered = asyncio.Event()

    async def limited() -> None:
        with TimeLimit(3600.0, asyncio.get_running_loop()) as limit:
            entered.set()
            try:
                await forever()
            finally:
                limit._expire()

    task = asyncio.create_task(limited())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_limit_can_be_ended_at_once_and_only_once() -> None:
    with pytest.raises(TimeoutError), TimeLimit(3600.0, asyncio.get_running_loop()) as limit:
        limit.end()
        limit.end()
        await forever()
    limit.end()
    await asyncio.sleep(0)  # what is over does not end twice


async def test_the_inner_of_two_limits_ends_only_what_is_inside_of_it() -> None:
    with TimeLimit(3600.0, asyncio.get_running_loop()) as outer:
        with pytest.raises(TimeoutError), TimeLimit(0.01, asyncio.get_running_loop()):
            await forever()
        await asyncio.sleep(0)
    assert not outer.expired
