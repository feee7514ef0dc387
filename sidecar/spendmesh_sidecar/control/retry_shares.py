"""
Shares of retry budgets that all pods have in common, fetched off the request path.

The I/O around `core.failures.retry_share`.

One loop asks every `refreshInterval` give or take a fifth, and once in between where a retry was just not paid for.
Where no RetryBudget of the policy has scope Cluster nothing is sent at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from spendmesh_sidecar import protocol
from spendmesh_sidecar.clock import Clock
from spendmesh_sidecar.control.client import ControlClient, ControlRefused, ControlUnavailable
from spendmesh_sidecar.core.failures.retry_share import SharedRetryBudget

LOOK_SECONDS = 0.5
"""How often the loop looks whether there is something to do; it costs one comparison then."""
EARLY_SECONDS = 1.0
"""After a share was asked for, the soonest that it is asked for again because it is used up; once, then as usual."""
JITTER = 0.2
"""Of the refresh interval, either way, so that a fleet does not ask as one."""
GOODBYE_SECONDS = 1.0

log = logging.getLogger("spendmesh.retries")


class RetrySharing:
    """Keeps one sidecar's shared retry budgets supplied. `budgets` answers those of the policy in force."""

    def __init__(
        self,
        client: ControlClient,
        budgets: Callable[[], tuple[SharedRetryBudget, ...]],
        clock: Clock,
        rng: Random,
        instance: str,
    ) -> None:
        self._client = client
        self._budgets = budgets
        self._clock = clock
        self._rng = rng
        self._instance = instance
        self._asked_at = float("-inf")
        self._due_at = float("-inf")
        self._early = False
        self._asked_for: tuple[SharedRetryBudget, ...] = ()
        self.tasks: list[asyncio.Task[None]] = []
        self.reachable = False

    async def start(self) -> None:
        """Ask at once if there is something to ask for, off everybody's way, and keep asking until `stop`."""
        self.tasks = [asyncio.create_task(self._loop(), name="retry-shares")]

    async def stop(self) -> None:
        """Give the shares back, for a bounded time; what nobody hears runs out by itself."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        budgets = tuple(each for each in self._budgets() if each.held.number)
        if budgets:
            try:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._ask(budgets, leaving=True)
            except TimeoutError:
                log.info("shares of retry budgets were not given back; they run out by themselves")

    async def _loop(self) -> None:
        while True:
            budgets = self._budgets()
            if budgets and self._due(budgets):
                await self._ask(budgets)
            await asyncio.sleep(LOOK_SECONDS)

    def _due(self, budgets: tuple[SharedRetryBudget, ...]) -> bool:
        now = self._clock.monotonic()
        if now >= self._due_at or not all(each in self._asked_for for each in budgets):
            self._early = True
            return True
        if self._early and now >= self._asked_at + EARLY_SECONDS and any(each.short for each in budgets):
            self._early = False
            return True
        return False

    async def _ask(self, budgets: tuple[SharedRetryBudget, ...], *, leaving: bool = False) -> None:
        now = self._clock.monotonic()
        refresh_seconds = min(each.spec.cluster.refresh_ms for each in budgets) / 1000
        self._asked_at, self._asked_for = now, budgets
        self._due_at = now + refresh_seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
        reports = tuple(each.report(now, leaving=leaving) for each in budgets)
        try:
            reply = await self._client.share(protocol.ShareRequest(instance=self._instance, reports=reports))
        except ControlUnavailable as error:
            self._missed(f"the coordinator does not answer: {error}")
            return
        except ControlRefused as refused:
            self._missed(str(refused))
            return
        self.reachable = True
        by_name = {grant.budget: grant for grant in reply.grants}
        for budget in budgets:
            grant = by_name.get(budget.spec.name)
            if grant is not None:
                budget.heard(grant, now)

    def _missed(self, why: str) -> None:
        if self.reachable:
            log.warning("no share of the retry budget: %s", why)
        self.reachable = False
