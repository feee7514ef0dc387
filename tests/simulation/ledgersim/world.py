"""
One history: replicas of the coordinator, pods with sidecars, a store, a provider, and what happens to them.

The world moves everything by a true time that no process sees. After the last fault it heals, lets all calls end,
stops every sidecar and asks the checker for the sums.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from ledgersim.broken import Broken
from ledgersim.checker import Checker
from ledgersim.disk import Disk
from ledgersim.faults import FAULTS
from ledgersim.loop import ProcessLoop, Scheduler
from ledgersim.network import Network
from ledgersim.pods import Pods
from ledgersim.provider import Provider
from ledgersim.replicas import DECIDED_SECONDS, VIEW_LAG_SECONDS, InForce, Replica, Replicas
from ledgersim.sidecar import Sidecar
from ledgersim.terms import Terms, group_of, policy_of
from ledgersim.workload import Call, Fault, History
from spendmesh_sidecar.core.exchange import Exchange

SETTLE_SECONDS = 30.0
"""After the last fault: longer than any call, any late message and any silence."""
LAST_REPORT_SECONDS = 2.5
STOP_SECONDS = 8.0
PATIENCE_REFUSALS = 9
"""Each takes up to two seconds: longer than an idle holder keeps what others wait for."""


class World:
    """One history from its first instant to its sums. Raises Violation."""

    def __init__(self, history: History, broken: Broken = Broken()) -> None:
        self.history, self.broken = history, broken
        self.happened: Counter[str] = Counter()
        self.scheduler = Scheduler(Random(f"world-{history.seed}"))
        self.terms = history.terms
        self.checker = Checker(self)
        self.network = Network(self.scheduler, self.happened)
        self.disk = Disk(self.scheduler, self.network, self.happened, shared=history.members > 1)
        self.disk.on_commit, self.disk.on_restore = self.checker.committed, self.checker.restored
        self.provider = Provider(self.scheduler, self.happened, self.checker.billed)
        self.processes: list[ProcessLoop] = []
        self.healed = self.verbose = False
        self._numbers = Counter[str]()
        self._refusals = Counter[Call]()
        self._digest = hashlib.blake2b(digest_size=16)
        self._policies: dict[tuple[Terms, str], InForce] = {}
        self._replaced: list[tuple[float, Terms]] = []
        self.clusters = [Replicas(self, member) for member in self.members]
        self.pods = Pods(self)
        self.disk.kill = self._kill
        self.pods.start(history.pods)

    # --- running ------------------------------------------------------------------------------------------

    def run(self) -> World:
        """Play the history and check it."""
        history, scheduler = self.history, self.scheduler
        for call in history.calls:
            scheduler.at(call.at, self._call, call)
        for fault in history.faults:
            scheduler.at(fault.at, self._fault, fault)
        try:
            self._run(history.seconds)
            self._heal()
            self._run(scheduler.now + SETTLE_SECONDS * (1 + (history.kind == "race")), self._quiet)
            self._run(scheduler.now + LAST_REPORT_SECONDS)
            stopping = self._stop_all()
            self._run(scheduler.now + STOP_SECONDS, lambda: all(task.done() for task in stopping))
            self.checker.finish()
        finally:
            for process in self.processes:
                process.bury()
        return self

    def _run(self, until: float, enough: Callable[[], bool] = lambda: False) -> None:
        checker = self.checker
        self.scheduler.run(until, lambda: checker.violation is not None or enough())
        if checker.violation is not None:
            raise checker.violation

    def trace(self, *what: object) -> None:
        """Everything that a replay must repeat."""
        line = repr((round(self.scheduler.now, 9), *what))
        self._digest.update(line.encode())
        if self.verbose:
            print(line)

    @property
    def digest(self) -> str:
        """Equal for equal histories."""
        return self._digest.hexdigest()

    def _quiet(self) -> bool:
        if any(refusals < PATIENCE_REFUSALS for refusals in self._refusals.values()):
            return False
        return not any(sidecar.waiting for sidecar in self.pods.sidecars())

    def _heal(self) -> None:
        """No new fault from here on; what was cut is joined, what was killed runs again."""
        self.healed = True
        self.disk.armed.clear()
        self.network.apart.clear()
        weather = self.network.weather
        weather.loss = weather.repetition = weather.late = 0.0
        for process in self.processes:
            if process.paused:
                process.resume()
        for cluster in self.clusters:
            if not any(replica.elected and not replica.process.dead for replica in cluster.all):
                cluster.elect(cluster.new_leader(None))

    def _stop_all(self) -> list[asyncio.Task[None]]:
        return [
            sidecar.process.create_task(sidecar.stop(STOP_SECONDS - 1), name="stop") for sidecar in self.pods.sidecars()
        ]

    def _fault(self, fault: Fault) -> None:
        if not self.healed and FAULTS[fault.kind].act(self, fault):
            self.happened[fault.kind] += 1
            self.trace(fault.kind)

    def process_failures(self) -> list[str]:
        """Exceptions that nobody in a living process caught."""
        return [failure for process in self.processes for failure in process.failures]

    def process(self, name: str, machine: ProcessLoop | None = None) -> ProcessLoop:
        """A new one, perhaps on the machine of an older one."""
        self._numbers[name] += 1
        process = ProcessLoop(self.scheduler, f"{name}-{self._numbers[name]}", self.history.base_unix)
        if machine is not None:
            process.same_machine(machine)
        self.processes.append(process)
        return process

    # --- clusters and policy ------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the clusters that share the store; one that has it for itself needs none."""
        number = self.history.members
        return ("",) if number == 1 else tuple(f"c{each}" for each in range(number))

    def cluster(self, place: int) -> Replicas:
        """The operator that serves the pods of a place."""
        return self.clusters[place % len(self.clusters)]

    def replicas(self) -> Iterator[Replica]:
        """Of all clusters."""
        return (replica for cluster in self.clusters for replica in cluster.all)

    def _kill(self, name: str) -> None:
        for cluster in self.clusters:
            cluster.kill_by_name(name)

    def policy(self, terms: Terms, place: int) -> InForce:
        """Compiled once for each group."""
        key = (terms, group_of(terms, place))
        if key not in self._policies:
            self._policies[key] = InForce(policy_of(terms, self.history.zone, key[1]))
        return self._policies[key]

    def terms_in_force(self) -> set[Terms]:
        """What some replica may still decide by: its own view, and the one that a waiting commit was decided by."""
        ran = self.scheduler.now - self.scheduler.suspended
        self._replaced = [(until, terms) for until, terms in self._replaced if ran < until]
        return {self.terms, *(replica.terms for replica in self.replicas()), *(terms for _, terms in self._replaced)}

    def change_terms(self, terms: Terms) -> None:
        """Somebody applies other manifests, the same to every cluster."""
        ran = self.scheduler.now - self.scheduler.suspended
        self._replaced.append((ran + VIEW_LAG_SECONDS + DECIDED_SECONDS, self.terms))
        self.terms = terms
        for cluster in self.clusters:
            cluster.hear(terms)

    # --- calls --------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        pod = self.pods.at(call.pod)
        alive = [each for each in pod.sidecars if not each.process.dead and not each.stopping]
        if not alive:
            self.happened["call: nobody listens"] += 1
            return
        sidecar = self.scheduler.rng.choice(alive)
        sidecar.calls += 1
        name = f"{sidecar.process.name}/{sidecar.calls}"
        sidecar.process.create_task(sidecar.call(call, name), name=name)

    def _call_again(self, call: Call, code: str) -> None:
        """A client in a race gives up when it was refused for long."""
        refusals = self._refusals[call] + 1 if code != "answered" else 0
        self._refusals[call] = refusals
        if refusals < PATIENCE_REFUSALS:
            self.scheduler.after(0.2 + 0.8 * (refusals > 0), self._call, call)

    def answered(self, sidecar: Sidecar, exchange: Exchange, call: Call, began: float) -> None:
        """A call has its answer."""
        code = exchange.refusal.code if exchange.refusal is not None else "answered"
        self.happened[f"call: {code}"] += 1
        self.trace(exchange.request_id, code)
        if self.history.kind == "race":
            self._call_again(call, code)
        if code.startswith("budget_") or code == "request_exceeds_budget":
            self.checker.refused(sidecar, exchange, call, began)
