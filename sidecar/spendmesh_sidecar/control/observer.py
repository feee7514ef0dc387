"""
Tells the control server what only this sidecar sees: accounts out of money, clients that retry on their
own, targets that it has ejected.

Off the request path. Said when it changes, and what stands again once a minute so that a new leader hears it; nothing
is sent while there is nothing to say. An ejection is said once: it runs out by itself.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random

from msgspec import structs

from spendmesh_sidecar.control.client import ControlClient, ControlRefused, ControlUnavailable
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.protocol import MAX_OBSERVED, Ejection, Observations, SpentAccount

LOOK_SECONDS = 1.0
REPAIR_SECONDS = 5.0
"""Before a lost message is sent again."""
AGAIN_SECONDS = 60.0
"""The leader forgets after three of them."""
NOTHING = Observations()

log = logging.getLogger("spendmesh.observer")


class Observer:
    """`start` and `stop`; it reads the data plane and changes nothing."""

    def __init__(self, plane: DataPlane, client: ControlClient, rng: Random) -> None:
        self._plane = plane
        self._client = client
        self._rng = rng
        self._said = NOTHING
        self._told: set[tuple[str, int]] = set()
        """Ejections that were said and last."""
        self._again_at = 0.0
        self._not_before = 0.0
        self.tasks: tuple[asyncio.Task[None], ...] = ()

    async def start(self) -> None:
        """Look until `stop`."""
        self.tasks = (asyncio.create_task(self._run(), name="observer"),)

    async def stop(self) -> None:
        """The control server forgets by itself."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Say what is new, or what has not been said for a minute."""
        now = self._plane.clock.monotonic()
        standing, ejections = standing_troubles(self._plane, now), self._plane.ejections(now)
        self._told &= ejections.keys()
        again = standing != NOTHING and now >= self._again_at
        if now < self._not_before or not (again or standing != self._said or ejections.keys() - self._told):
            return
        ejected = [Ejection(target=key, reopens_in_ms=int(left * 1000)) for (key, _), left in ejections.items()]
        try:
            await self._client.observe(structs.replace(standing, ejected=tuple(ejected[:MAX_OBSERVED])))
        except (ControlUnavailable, ControlRefused) as lost:
            log.debug("not told: %s", lost)
            self._not_before = now + REPAIR_SECONDS * self._rng.uniform(0.5, 1.0)
        else:
            self._said, self._told = standing, set(ejections)
            self._again_at = now + AGAIN_SECONDS * self._rng.uniform(0.8, 1.0)


def standing_troubles(plane: DataPlane, now: float) -> Observations:
    """What stands until it is taken back. Names of the policy and codes of providers; no key and no user value."""
    unpaid = [SpentAccount(provider=alias, code=code) for alias, code in plane.unpaid_accounts().items() if code]
    return Observations(unpaid=tuple(unpaid[:MAX_OBSERVED]), client_retries=plane.client_retries.standing(now))
