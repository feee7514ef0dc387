"""Coordinators over stores that fail as planned, in real time or in time that jumps."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import looptime

from ledger_samples import BUDGET, ManualClock, SamplePublished, budget, sample_policy
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.stores.base import Commit, Fault, LedgerStore, MemoryStore, Stored
from spendmesh_sidecar.protocol import AcquireReply

POD = PodIdentity("team-a", "support-1", "uid-1")
OTHER = PodIdentity("team-a", "support-2", "uid-2")
THIRD = PodIdentity("team-a", "support-3", "uid-3")
AT_ONCE = CoordinatorSettings(commit_interval_seconds=0.0, sweep_seconds=3600.0)
T = TypeVar("T")


def virtually(scenario: Coroutine[Any, Any, T]) -> T:
    """Run with time that jumps to the next event."""
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(scenario)


def coordinator(
    store: LedgerStore,
    seed: int = 1,
    *,
    clock: ManualClock | None = None,
    settings: CoordinatorSettings = AT_ONCE,
    amount: int = 1000,
) -> Coordinator:
    published = SamplePublished(sample_policy(budget(amount)))
    return Coordinator(
        store,
        clock or ManualClock(),
        random.Random(seed),
        lambda pod: published if pod.namespace == POD.namespace else None,
        "test",
        settings,
    )


@asynccontextmanager
async def serving(*args: Any, **more: Any) -> AsyncIterator[Coordinator]:
    """A started coordinator, stopped in the end."""
    started = coordinator(*args, **more)
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


def charged(at: Coordinator) -> int:
    return at.states()[BUDGET, "hourly", ()].charged


def granted(reply: AcquireReply) -> int:
    return sum(lease.granted for lease in reply.leases)


def failing(*faults: Fault | None) -> Callable[[], Fault | None]:
    """These faults for the writes after the first, then none."""
    plan: Iterator[Fault | None] = iter((None, *faults))
    return lambda: next(plan, None)


class GatedStore(MemoryStore):
    """Writes wait until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()
        self.gate.set()

    async def write(self, commit: Commit) -> str:
        self.reached.set()
        await self.gate.wait()
        return await super().write(commit)


class RestoredStore(MemoryStore):
    """Holds a copy of what a store once held, under a version that nobody has seen."""

    def __init__(self, copy: Stored) -> None:
        super().__init__()
        self.restore(copy)

    def restore(self, copy: Stored) -> None:
        """Go back to the copy."""
        self.writes += 1
        self._stored = dataclasses.replace(copy, version=str(self.writes) if copy.sections else "")
