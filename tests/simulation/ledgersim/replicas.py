"""
The operator's replicas: who leads, what each knows of policy, and what their deaths and pauses come to.

A replica does what the product's leader does around its coordinator: start it, tell it budgets and pods, begin anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from ledgersim.disk import DOMAIN, DiskClient
from ledgersim.loop import ProcessLoop
from ledgersim.terms import Terms, budgets
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.books.accounts import LedgerError
from spendmesh_operator.ledger.coordinator.coordinator import CoordinatorSettings
from spendmesh_operator.ledger.stores.base import LedgerStoreError
from spendmesh_sidecar.policy import Policy

if TYPE_CHECKING:
    from ledgersim.world import World

INTERVAL_SECONDS = {(False, True): 0.0, (False, False): 1.0, (True, True): 0.02, (True, False): 0.02}
"""Between two commits: to a file, to BudgetLedger objects, and to PostgreSQL."""
RETRY_SECONDS = 1.0
RETELL_SECONDS = 3.0
VIEW_LAG_SECONDS = 1.0
DECIDED_SECONDS = 5.0
"""From a decision to its commit: the interval between commits, and a store that must be asked again."""
STALE_ROUTE = 0.1
"""Part of the calls that still go to a replica that has led before."""


@dataclass(frozen=True)
class InForce:
    """What a replica knows of a pod's policy."""

    policy: Policy
    unverifiable: frozenset[str] = frozenset()


class Replica:
    """One process of the operator."""

    def __init__(self, world: World, member: str, process: ProcessLoop) -> None:
        self.world, self.member, self.process = world, member, process
        self.elected = False
        self.terms = world.terms
        rng = Random(world.scheduler.rng.getrandbits(32))
        self.coordinator = world.broken.coordinator(
            DiskClient(world.disk, process, member, fast=world.history.fast_store),
            process,
            rng,
            self._policy_of,
            DOMAIN,
            CoordinatorSettings(
                commit_interval_seconds=INTERVAL_SECONDS[world.disk.shared, world.history.fast_store],
                silence_seconds=6.0,
                store_timeout_seconds=1.0,
                recover_seconds=2.0,
                restored_seconds=5.0,
                member=member,
            ),
        )
        process.create_task(self._keep_books(), name="books")
        process.create_task(self._inform_books(), name="inform")

    async def _keep_books(self) -> None:
        while True:
            if not self.elected:
                if self.coordinator.serving:
                    await self.coordinator.stop()
                await asyncio.sleep(0.2)
                continue
            try:
                await self.coordinator.start()
            except LedgerStoreError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._inform()
            ended = asyncio.ensure_future(self.coordinator.wait_ended())
            while self.elected and not ended.done():
                await asyncio.sleep(0.2)
            ended.cancel()

    async def _inform_books(self) -> None:
        while True:
            await asyncio.sleep(RETELL_SECONDS)
            if self.coordinator.serving:
                await self._inform()

    async def _inform(self) -> None:
        known = budgets(self.terms, self.world.history.zone)
        exist = set(known) | {"org/all", "team-a/team", "team-b/team"} - self.terms.deleted
        try:
            await self.coordinator.remember(known, exist)
            await self.coordinator.pods_are(self.world.pods.known(self.member))
        except LedgerError:
            pass  # told again soon

    def _policy_of(self, pod: PodIdentity) -> InForce | None:
        place = self.world.pods.place_of.get(pod.uid)
        return None if place is None else self.world.policy(self.terms, place)


class Replicas:
    """All of one cluster, dead ones too."""

    def __init__(self, world: World, member: str = "") -> None:
        self._world, self._scheduler, self.member = world, world.scheduler, member
        self.all = [self._new(number) for number in range(world.history.replicas)]
        self.elect(self.all[0])

    # --- who leads ----------------------------------------------------------------------------------------

    def _new(self, number: int) -> Replica:
        return Replica(self._world, self.member, self._world.process(f"replica-{self.member}{number}"))

    def elect(self, replica: Replica) -> None:
        """It leads from now on; another one that believes the same is not asked."""
        replica.elected = True
        self.leader = replica

    def new_leader(self, old: Replica | None) -> Replica:
        """Some other living replica, or a new one."""
        for replica in self.all:
            if replica is not old and not replica.process.dead and not replica.process.paused:
                return replica
        number = len(self.all)
        self.all.append(self._new(number))
        return self.all[-1]

    def elect_another(self, old: Replica) -> None:
        """The lease of the old leader runs out; the old one hears of it some time after it is back."""
        rng = self._scheduler.rng

        def take_over() -> None:
            if self.leader is old:
                self.elect(self.new_leader(old))
                self._scheduler.after(rng.uniform(2.0, 6.0), self._resign, old)

        self._scheduler.after(rng.uniform(0.5, 3.0), take_over)

    def _resign(self, old: Replica) -> None:
        if old is not self.leader:
            old.elected = False

    def leading(self) -> Replica | None:
        """The leader, if it lives."""
        leader = self.leader
        return None if leader.process.dead or leader.process.paused else leader

    def kill(self, replica: Replica) -> bool:
        """Kill -9; another one, or a new one, takes over."""
        replica.process.kill()
        self.elect_another(replica)
        return True

    def kill_by_name(self, name: str) -> None:
        """The process that writes to the store just now."""
        for replica in self.all:
            if replica.process.name == name and not replica.process.dead:
                self.kill(replica)

    def route(self) -> Replica:
        """Whom a sidecar reaches: the leader, or now and then one that led before."""
        if len(self.all) > 1 and not self._world.healed and self._scheduler.rng.random() < STALE_ROUTE:
            return self._scheduler.rng.choice(self.all)
        return self.leader

    # --- what they know -----------------------------------------------------------------------------------

    def hear(self, terms: Terms) -> None:
        """Somebody applies other manifests; replicas hear of it one after the other."""
        for replica in self.all:
            self._scheduler.after(self._scheduler.rng.random() * VIEW_LAG_SECONDS, self._tell, replica, terms)

    def _tell(self, replica: Replica, terms: Terms) -> None:
        if replica.process.paused:
            self._scheduler.after(1.0, self._tell, replica, terms)
        elif self._world.terms is terms:
            replica.terms = terms
