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
from ledgersim.workload import Terms, budgets, group_of, policy_of
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.accounts import LedgerError
from spendmesh_operator.ledger.coordinator import CoordinatorSettings
from spendmesh_operator.ledger.store import LedgerStoreError
from spendmesh_sidecar.policy import Policy

if TYPE_CHECKING:
    from ledgersim.world import World

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

    def __init__(self, world: World, number: int, process: ProcessLoop) -> None:
        self.world, self.number, self.process = world, number, process
        self.elected = False
        self.terms = world.terms
        rng = Random(world.scheduler.rng.getrandbits(32))
        self.coordinator = world.broken.coordinator(
            DiskClient(world.disk, process, world.history.fast_store),
            process,
            rng,
            self._policy_of,
            DOMAIN,
            CoordinatorSettings(
                commit_interval_seconds=0.0 if world.history.fast_store else 1.0,
                silence_seconds=6.0,
                store_timeout_seconds=1.0,
                recover_seconds=2.0,
                restored_seconds=5.0,
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
            await self.coordinator.pods_are(self.world.pods.known())
        except LedgerError:
            pass  # told again soon

    def _policy_of(self, pod: PodIdentity) -> InForce | None:
        place = self.world.pods.place_of.get(pod.uid)
        return None if place is None else self.world.replicas.policy(self.terms, place)


class Replicas:
    """All of them, dead ones too."""

    def __init__(self, world: World) -> None:
        self._world, self._scheduler = world, world.scheduler
        self._policies: dict[tuple[Terms, str], InForce] = {}
        self._replaced: list[tuple[float, Terms]] = []
        self.all = [self._new(number) for number in range(world.history.replicas)]
        self.elect(self.all[0])

    # --- who leads ----------------------------------------------------------------------------------------

    def _new(self, number: int) -> Replica:
        return Replica(self._world, number, self._world.process(f"replica-{number}"))

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

    def policy(self, terms: Terms, place: int) -> InForce:
        """Compiled once for each group."""
        key = (terms, group_of(terms, place))
        if key not in self._policies:
            self._policies[key] = InForce(policy_of(terms, self._world.history.zone, key[1]))
        return self._policies[key]

    def terms_in_force(self) -> set[Terms]:
        """What some replica may still decide by: its own view, and the one that a waiting commit was decided by."""
        now = self._scheduler.now
        self._replaced = [(until, terms) for until, terms in self._replaced if now < until]
        return {self._world.terms, *(replica.terms for replica in self.all), *(terms for _, terms in self._replaced)}

    def change_terms(self, terms: Terms) -> None:
        """Somebody applies other manifests; replicas hear of it one after the other."""
        self._replaced.append((self._scheduler.now + VIEW_LAG_SECONDS + DECIDED_SECONDS, self._world.terms))
        self._world.terms = terms
        for replica in self.all:
            self._scheduler.after(self._scheduler.rng.random() * VIEW_LAG_SECONDS, self._tell, replica, terms)

    def _tell(self, replica: Replica, terms: Terms) -> None:
        if replica.process.paused:
            self._scheduler.after(1.0, self._tell, replica, terms)
        elif self._world.terms is terms:
            replica.terms = terms
