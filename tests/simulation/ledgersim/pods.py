"""
Pods and the sidecars in them: started, killed with and without their log, stopped, copied, replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledgersim.log import SimLog
from ledgersim.loop import ProcessLoop
from ledgersim.sidecar import Sidecar
from spendmesh_operator.identity import PodIdentity
from spendmesh_sidecar.core.ledger.recovery import Abandoned, Here, Recovered, records_of, restore

if TYPE_CHECKING:
    from ledgersim.world import World


@dataclass
class Pod:
    """A pod and its living sidecar (and, for a while, a copy of that one)."""

    place: int
    identity: PodIdentity
    machine: ProcessLoop
    """Whose clocks all processes of the pod have."""
    boots: int = 1
    """Of the node's kernel."""
    sidecars: list[Sidecar] = field(default_factory=list)

    @property
    def process(self) -> ProcessLoop:
        return self.sidecars[0].process


class Pods:
    """One living pod in each place."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = Counter[str]()
        self._living: set[str] = set()
        self.place_of: dict[str, int] = {}
        self.all: list[Pod] = []

    def start(self, places: int) -> None:
        """The first ones."""
        self.all = [self._new(place) for place in range(places)]

    def sidecars(self) -> list[Sidecar]:
        """All that run."""
        return [sidecar for pod in self.all for sidecar in pod.sidecars if not sidecar.process.dead]

    def _new(self, place: int) -> Pod:
        self._numbers["pod"] += 1
        uid = f"uid-{self._numbers['pod']}"
        self.place_of[uid] = place
        self._living.add(uid)
        machine = self._world.process(f"machine-{place}")
        pod = Pod(place, PodIdentity("sim", f"pod-{place}", uid), machine)
        self._start(pod, b"")
        return pod

    def new_nonce(self, pod: PodIdentity) -> str:
        """Unlike any other."""
        self._numbers[pod.uid] += 1
        return self._world.broken.nonce(pod.uid, self._numbers[pod.uid])

    def _start(self, pod: Pod, log: bytes, *, copied: bool = False) -> Sidecar:
        """A process, which continues what a log says; an empty one begins anew."""
        world = self._world
        process = world.process(f"sidecar-{pod.place}", pod.machine)
        now = process.monotonic()
        here = Here(pod.identity.uid, f"boot-{pod.boots}", world.history.durability, now, process.unix())
        new_log = SimLog(process, here)
        recovered = self._recover(log, here) if log else None
        nonce = recovered.nonce if recovered is not None else self.new_nonce(pod.identity)
        ledger = world.broken.ledger(world.checker, nonce, now, new_log)
        if recovered is not None:
            restore(ledger, recovered, now)
            if not copied:
                world.checker.recovered(recovered.in_flight)
        new_log.start(lambda: (ledger.nonce, records_of(ledger)))
        sidecar = Sidecar(world, process, pod.identity, pod.place, ledger, new_log)
        pod.sidecars.append(sidecar)
        sidecar.start()
        return sidecar

    def _recover(self, log: bytes, here: Here) -> Recovered | None:
        try:
            return self._world.broken.recover(log, here)
        except Abandoned:
            self._world.happened["log abandoned"] += 1
            return None

    def at(self, who: int) -> Pod:
        """One of the pods."""
        return self.all[who % len(self.all)]

    def known(self, member: str) -> Collection[str]:
        """As the informer of a cluster says."""
        members = self._world.members
        return tuple(sorted(uid for uid in self._living if members[self.place_of[uid] % len(members)] == member))

    def restart(self, pod: Pod, *, keep_log: bool) -> bool:
        """Kill -9, and the kubelet starts it again."""
        old = pod.sidecars.pop(0)
        if old.process.dead:
            pod.sidecars.insert(0, old)
            return False
        self._world.happened["killed in flight"] += old.ledger.open_reservations > 0
        old.process.kill()
        self._succeed(pod, old, old.log.written if keep_log else b"")
        return True

    def lose_power(self, pod: Pod) -> bool:
        """The node stops and starts again: other clocks, another boot, and of the log what had reached the disk."""
        old = pod.sidecars[0]
        if old.process.dead or len(pod.sidecars) > 1:
            return False
        world = self._world
        pod.sidecars.clear()
        old.process.kill()
        skew, pod.boots = pod.machine.wall_skew, pod.boots + 1
        pod.machine = world.process(f"machine-{pod.place}")
        pod.machine.wall_skew = skew
        continued = self._succeed(pod, old, old.log.after_power_loss(world.scheduler.rng))
        world.happened["log continued after a power loss"] += continued
        return True

    def _succeed(self, pod: Pod, old: Sidecar, log: bytes) -> bool:
        """Start again with this log. Answers whether it was continued."""
        new, checker = self._start(pod, log), self._world.checker
        pod.sidecars.remove(new)
        pod.sidecars.insert(0, new)
        if continued := new.ledger.nonce == old.ledger.nonce:
            checker.forgotten(old.process.name)
        else:
            checker.abandoned(pod.identity.uid, old.ledger.nonce)
        return continued

    def stop(self, pod: Pod) -> bool:
        """A graceful restart."""
        old = pod.sidecars[0]
        if old.process.dead or old.stopping or old.process.paused:
            return False

        async def stop_and_leave() -> None:
            await old.stop(2.0)
            self._world.checker.abandoned(pod.identity.uid, old.ledger.nonce)
            old.process.kill()
            pod.sidecars.remove(old)
            pod.sidecars.insert(0, self._start(pod, b""))
            pod.sidecars.pop()

        old.process.create_task(stop_and_leave(), name="leave")
        return True

    def replace(self, pod: Pod, informed_seconds: float) -> bool:
        """The pod is deleted with its log; another one with a new uid takes its place. The news travels slowly."""
        for sidecar in pod.sidecars:
            sidecar.process.kill()
            self._world.checker.abandoned(pod.identity.uid, sidecar.ledger.nonce)
        self._world.scheduler.after(min(informed_seconds, 4.0), self._living.discard, pod.identity.uid)
        self.all[pod.place] = self._new(pod.place)
        return True

    def copy(self, pod: Pod) -> bool:
        """A copy of the log is continued by a second process, for a while."""
        old = pod.sidecars[0]
        if old.process.dead or len(pod.sidecars) > 1:
            return False
        self._world.checker.copied(old.ledger.nonce)
        copy = self._start(pod, old.log.written, copied=True)

        def end() -> None:
            if copy in pod.sidecars and len(pod.sidecars) > 1:
                copy.process.kill()
                self._world.checker.abandoned(pod.identity.uid, copy.ledger.nonce)
                pod.sidecars.remove(copy)

        self._world.scheduler.after(self._world.scheduler.rng.uniform(2.0, 8.0), end)
        return True
