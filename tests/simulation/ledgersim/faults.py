"""
Every kind of fault and change that a history may have, as steps on the world.

Each step looks for what it can act on at that moment; where there is nothing, nothing happens and nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledgersim.workload import Fault
    from ledgersim.world import World

DAY = 86_400.0


@dataclass(frozen=True)
class Kind:
    """How often it is drawn, and what it does. True: it could act."""

    weight: int
    act: Callable[[World, Fault], bool]


def _kill_coordinator(world: World, fault: Fault) -> bool:
    cluster = world.cluster(fault.who)
    replica = cluster.leading()
    return replica is not None and cluster.kill(replica)


def _pause_coordinator(world: World, fault: Fault) -> bool:
    cluster = world.cluster(fault.who)
    replica = cluster.leading()
    if replica is None:
        return False
    replica.process.pause()
    cluster.elect_another(replica)
    world.scheduler.after(fault.seconds, replica.process.resume)
    return True


def _arm(*kinds: str) -> Callable[[World, Fault], bool]:
    def act(world: World, fault: Fault) -> bool:
        world.disk.armed.extend(kinds)
        return True

    return act


def _weather(**change: float) -> Callable[[World, Fault], bool]:
    def act(world: World, fault: Fault) -> bool:
        weather = world.network.weather
        for name, value in change.items():
            setattr(weather, name, value)
            world.scheduler.after(fault.seconds, setattr, weather, name, 0.0)
        return True

    return act


def _apart(world: World, name: str, seconds: float) -> bool:
    world.network.apart[name] += 1
    world.scheduler.after(seconds, lambda: world.network.apart.subtract([name]))
    return True


def _partition_pod(world: World, fault: Fault) -> bool:
    pod = world.pods.at(fault.who)
    return _apart(world, pod.process.name, fault.seconds)


def _partition_store(world: World, fault: Fault) -> bool:
    replica = world.cluster(fault.who).leading()
    return replica is not None and _apart(world, f"{replica.process.name}|store", fault.seconds)


def _partition_replica(world: World, fault: Fault) -> bool:
    cluster = world.cluster(fault.who)
    replica = cluster.leading()
    if replica is None:
        return False
    cluster.elect_another(replica)
    return _apart(world, replica.process.name, fault.seconds)


def _kill_sidecar(world: World, fault: Fault) -> bool:
    return world.pods.restart(world.pods.at(fault.who), keep_log=False)


def _restart_sidecar(world: World, fault: Fault) -> bool:
    return world.pods.restart(world.pods.at(fault.who), keep_log=True)


def _lose_power(world: World, fault: Fault) -> bool:
    return world.pods.lose_power(world.pods.at(fault.who))


def _stop_sidecar(world: World, fault: Fault) -> bool:
    return world.pods.stop(world.pods.at(fault.who))


def _pause_sidecar(world: World, fault: Fault) -> bool:
    process = world.pods.at(fault.who).process
    process.pause()
    world.scheduler.after(fault.seconds, process.resume)
    return True


def _delete_pod(world: World, fault: Fault) -> bool:
    return world.pods.replace(world.pods.at(fault.who), fault.seconds)


def _copy_state(world: World, fault: Fault) -> bool:
    return world.pods.copy(world.pods.at(fault.who))


def _jump(seconds: float) -> Callable[[World, Fault], bool]:
    def act(world: World, fault: Fault) -> bool:
        replica = world.cluster(fault.who).leading()
        if replica is None:
            return False
        replica.process.wall_skew += seconds * (0.05 + fault.amount)
        return True

    return act


def _jump_sidecar(world: World, fault: Fault) -> bool:
    world.pods.at(fault.who).process.wall_skew += (fault.amount - 0.5) * 2 * DAY
    return True


def _suspend(world: World, fault: Fault) -> bool:
    world.scheduler.leap(fault.amount * 2.5 * 3600)
    return True


def _back_up(world: World, fault: Fault) -> bool:
    world.disk.back_up()
    world.scheduler.after(fault.seconds, world.disk.restore)
    return True


def _scale(least: float, most: float) -> Callable[[World, Fault], bool]:
    def act(world: World, fault: Fault) -> bool:
        amounts = list(world.terms.amounts)
        index = fault.who % len(amounts)
        name, amount = amounts[index]
        amounts[index] = (name, max(1, int(amount * (least + fault.amount * (most - least)))))
        world.change_terms(replace(world.terms, amounts=tuple(amounts)))
        return True

    return act


def _delete_budget(world: World, fault: Fault) -> bool:
    name = ("org/all", "team-a/team", "team-b/team")[fault.who % 3]
    world.change_terms(replace(world.terms, deleted=world.terms.deleted | {name}))
    world.scheduler.after(
        fault.seconds, lambda: world.change_terms(replace(world.terms, deleted=world.terms.deleted - {name}))
    )
    return True


def _move(world: World, fault: Fault) -> bool:
    world.change_terms(replace(world.terms, moved=world.terms.moved ^ {fault.who % len(world.pods.all)}))
    return True


def _reprice(world: World, fault: Fault) -> bool:
    factor = 1 + int(fault.amount * 4)
    world.change_terms(replace(world.terms, input_price=factor, output_price=2 * factor + 1))
    return True


FAULTS: dict[str, Kind] = {
    "coordinator killed": Kind(3, _kill_coordinator),
    "coordinator killed before a commit": Kind(4, _arm("kill before")),
    "coordinator killed after a commit": Kind(4, _arm("kill after")),
    "coordinator paused and wakes": Kind(4, _pause_coordinator),
    "coordinator cut off": Kind(3, _partition_replica),
    "coordinator cut off from its store": Kind(3, _partition_store),
    "store conflict": Kind(2, _arm("conflict")),
    "store unavailable": Kind(2, _arm("unavailable", "unavailable")),
    "store write torn": Kind(3, _arm("torn")),
    "store answer lost": Kind(3, _arm("drop after commit")),
    "store write late": Kind(3, _arm("late write")),
    "store read stale": Kind(2, _arm("unavailable", "stale read")),
    "store restored from a backup": Kind(2, _back_up),
    "messages lost": Kind(4, _weather(loss=0.3)),
    "messages repeated": Kind(4, _weather(repetition=0.5)),
    "messages reordered": Kind(4, _weather(late=0.4)),
    "sidecar cut off": Kind(3, _partition_pod),
    "sidecar killed, its log lost": Kind(4, _kill_sidecar),
    "sidecar killed and restarted from its log": Kind(5, _restart_sidecar),
    "node without power": Kind(4, _lose_power),
    "sidecar stopped": Kind(2, _stop_sidecar),
    "sidecar paused": Kind(2, _pause_sidecar),
    "pod deleted": Kind(4, _delete_pod),
    "state copied": Kind(2, _copy_state),
    "coordinator's clock ahead": Kind(2, _jump(DAY)),
    "coordinator's clock back": Kind(2, _jump(-DAY)),
    "sidecar's clock jumps": Kind(2, _jump_sidecar),
    "all machines suspended": Kind(2, _suspend),
    "limit raised": Kind(3, _scale(1.0, 3.0)),
    "limit lowered": Kind(3, _scale(0.2, 1.0)),
    "budget deleted and applied again": Kind(3, _delete_budget),
    "hierarchy moved": Kind(2, _move),
    "price changed": Kind(3, _reprice),
}
