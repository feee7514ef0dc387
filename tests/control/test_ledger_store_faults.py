"""Every store behind faults: nothing that was acknowledged is lost, nothing counts twice, nothing is guessed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from coordinator_samples import charged, coordinator
from ledger_proxies import Faults
from ledger_samples import acquire, want
from ledger_stores import KINDS, Kind
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings, NotServing
from spendmesh_operator.ledger.stores.base import Commit, Conflict, Fenced, LedgerStore, LedgerStoreError, Unavailable

T = TypeVar("T")
SEEDS = (1, 2, 3)
INCREMENTS = 25
GRANTS = 12
PATIENCE_SECONDS = 60.0
"""None of these faults is silence: an answer that is only slow is waited for."""
RETRY_SECONDS = 0.01
SETTINGS = CoordinatorSettings(
    commit_interval_seconds=0.0, sweep_seconds=3600.0, store_timeout_seconds=PATIENCE_SECONDS, recover_seconds=3.0
)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param(request)
    return made


async def patiently(work: Awaitable[T]) -> T:
    """As the coordinator waits for a store."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await work
    except TimeoutError as error:
        raise Unavailable("silent") from error


async def increment(store: LedgerStore, number: int) -> None:
    """Add one to a counter, as often as it takes until it is known to be done exactly once."""
    ids: list[str] = []
    while True:
        try:
            stored = await patiently(store.read())
            if stored.commits & set(ids):
                return
            ids.append(f"{number}-{len(ids)}")
            count = stored.sections.get("head", {"count": 0})["count"] + 1
            put = {"head": {"count": count}, f"note/{number}": {"count": count}}
            await patiently(store.write(Commit(ids[-1], 1, stored.version, put)))
        except LedgerStoreError as error:
            assert not isinstance(error, Fenced), error
            continue
        return


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_acknowledged_is_stored_and_stored_once(kind: Kind, seed: int) -> None:
    """A counter that is read, raised and written behind faults: an unknown outcome is resolved by the commit's id, and
    a stale read never leads to a lost update."""

    async def scenario() -> tuple[int, int, Faults]:
        faults = Faults(seed, kind.faults)
        async with kind.broken(faults) as store:
            for number in range(INCREMENTS):
                await increment(store, number)
        async with kind.opened() as store:
            sections = (await store.read()).sections
        return sections["head"]["count"], len([name for name in sections if name.startswith("note/")]), faults

    count, notes, faults = asyncio.run(scenario())

    assert (count, notes) == (INCREMENTS, INCREMENTS)
    assert len(faults.happened) >= 2, faults.happened


async def keep_serving(at: Coordinator) -> None:
    """Start it whenever it does not serve: one at a time, as the leader does."""
    while True:
        try:
            await at.start()
        except LedgerStoreError:
            continue
        await at.wait_ended()


async def granted_at_last(at: Coordinator, pod: PodIdentity, number: int) -> int:
    """Repeat one request under its id until it is answered."""
    while True:
        try:
            reply = await at.acquire(pod, acquire(f"r{number}", f"n-{pod.uid}", want(1)))
        except NotServing:
            await asyncio.sleep(RETRY_SECONDS)
            continue
        return reply.leases[0].granted


@pytest.mark.parametrize("seed", SEEDS)
def test_behind_faults_every_grant_that_was_told_is_charged_and_none_twice(kind: Kind, seed: int) -> None:
    """Rows 1, 2, 9 and 12, through coordinator and store together."""

    async def scenario() -> tuple[int, int]:
        pods = [PodIdentity("team-a", f"support-{each}", f"uid-{each}") for each in (1, 2)]
        told: dict[str, int] = {}
        async with kind.broken(Faults(seed, kind.faults, rate=0.3)) as store:
            at = coordinator(store, seed, settings=SETTINGS)
            leader = asyncio.create_task(keep_serving(at))
            for number in range(GRANTS):
                results = await asyncio.gather(*(granted_at_last(at, pod, number) for pod in pods))
                told |= {pod.uid: granted for pod, granted in zip(pods, results, strict=True)}
            leader.cancel()
            await asyncio.gather(leader, return_exceptions=True)
            await at.stop()
        async with kind.opened() as store:
            again = coordinator(store, 99, settings=SETTINGS)
            await again.start()
            found = charged(again)
            await again.stop()
        return sum(told.values()), found

    told, found = asyncio.run(scenario())

    assert told == found == 2 * GRANTS


def test_a_store_that_comes_back_is_used_again(kind: Kind) -> None:
    """After an hour of nothing but faults nobody has to restart anything."""

    async def scenario() -> int:
        faults = Faults(1, kind.faults)
        async with kind.broken(faults) as store:
            await increment(store, 0)
            faults.rate = 1.0
            for number in range(5):
                with pytest.raises((Conflict, Unavailable, StopAsyncIteration)):
                    await patiently(failing(store, number))
            faults.rate = 0.0
            await increment(store, 1)
        async with kind.opened() as store:
            return int((await store.read()).sections["head"]["count"])

    assert asyncio.run(scenario()) >= 2


async def failing(store: LedgerStore, number: int) -> None:
    stored = await store.read()
    await store.write(Commit(f"x{number}", 1, stored.version, {"x": {"count": number}}))
    raise StopAsyncIteration
