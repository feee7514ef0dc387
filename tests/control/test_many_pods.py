"""Thousands of sidecars and objects: what each of them asks must not be computed anew, and compiling leaves time."""

from __future__ import annotations

import asyncio
import random

from control_samples import Link
from coordinator_samples import coordinator
from ledger_samples import ManualClock
from spendmesh_operator.compiling import DEBOUNCE_SECONDS, pause_after
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.control.leader import LeaderClient
from spendmesh_operator.control.stamping import Stamping
from spendmesh_operator.ledger.stores.base import MemoryStore
from spendmesh_sidecar.protocol import Stamp


class CountedView(PolicyView):
    """Counts how often somebody looks through all digests."""

    looks = 0

    def __getattribute__(self, name: str) -> object:
        if name == "digests":
            CountedView.looks += 1
        return super().__getattribute__(name)


def test_policies_are_numbered_once_for_all_streams() -> None:
    """Each stream asks for its stamp after every compilation; numbering all policies each time is n times n."""
    digests = frozenset(str(random.Random(number).random()) for number in range(50))

    async def scenario() -> tuple[list[Stamp | None], int]:
        at, hub, link = coordinator(MemoryStore()), Hub(), Link(True, None)
        await at.start()
        try:
            stamping = Stamping(hub, at, link, LeaderClient(link), ManualClock())
            hub.publish(CountedView(digests=digests))
            before = CountedView.looks
            stamps = [await stamping.stamp(digest) for digest in sorted(digests)]
            return stamps, CountedView.looks - before
        finally:
            await at.stop()

    stamps, looks = asyncio.run(scenario())
    assert len(set(stamps)) == 50 and None not in stamps
    assert looks == 1


def test_a_long_compilation_is_followed_by_a_longer_pause_up_to_a_limit() -> None:
    """Webhook, streams and health share its loop; but a new pod's sidecar waits four seconds for its policy only."""
    assert pause_after(0.0) == pause_after(0.01) == DEBOUNCE_SECONDS
    assert pause_after(0.25) == 1.0
    assert pause_after(60.0) == 2.0
