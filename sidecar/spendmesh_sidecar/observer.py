"""
Tells the control server what only this sidecar sees: accounts out of money, clients that retry on their own.

Off the request path. Said when it changes, and again once a minute so that a new leader hears it; nothing is sent while
there is nothing to say.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random

from spendmesh_sidecar.control_client import ControlClient, ControlRefused, ControlUnavailable
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.protocol import MAX_OBSERVED, Observations, SpentAccount

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
        news = observations(self._plane, now)
        if now < self._not_before or (news == self._said and (news == NOTHING or now < self._again_at)):
            return
        try:
            await self._client.observe(news)
        except (ControlUnavailable, ControlRefused) as lost:
            log.debug("not told: %s", lost)
            self._not_before = now + REPAIR_SECONDS * self._rng.uniform(0.5, 1.0)
        else:
            self._said, self._again_at = news, now + AGAIN_SECONDS * self._rng.uniform(0.8, 1.0)


def observations(plane: DataPlane, now: float) -> Observations:
    """What is so now. Names of the policy and codes of providers; no key and no user value."""
    unpaid = [SpentAccount(provider=alias, code=code) for alias, code in plane.unpaid_accounts().items() if code]
    return Observations(unpaid=tuple(unpaid[:MAX_OBSERVED]), client_retries=plane.client_retries.standing(now))
