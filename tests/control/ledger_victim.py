"""A process that grants as fast as it can and says each grant that it revealed, until it is killed."""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import count
from pathlib import Path

from ledger_samples import ManualClock, SamplePublished, acquire, budget, sample_policy, want
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.stores.sqlite import SQLiteStore

PODS = 5
AMOUNT = 10**12


async def main(path: Path) -> None:
    """Grant one unit at a time to a few pods at once; a line is a total that a pod has been told."""
    published = SamplePublished(sample_policy(budget(AMOUNT)))
    settings = CoordinatorSettings(commit_interval_seconds=0.0)
    coordinator = Coordinator(SQLiteStore(path), ManualClock(), random.Random(), lambda _: published, "test", settings)
    await coordinator.start()

    async def spend(number: int) -> None:
        pod = PodIdentity("team-a", f"pod-{number}", f"uid-{number}")
        for request in count():
            reply = await coordinator.acquire(pod, acquire(f"r{request}", f"n{number}", want(1)))
            print(number, reply.leases[0].granted, flush=True)

    await asyncio.gather(*map(spend, range(PODS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
