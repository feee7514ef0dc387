"""
Whose account a call is counted on where a limit is divided (`per`): values from the request, places from the pod.

What the pod is (namespace, workload, name, labels) is taken from what the operator knows of it, never from the body.
The number of accounts is bounded: values beyond it share `other`. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.workloads import PodInfo
from spendmesh_sidecar.core.ledger.partitions import OF_THE_POD, OTHER
from spendmesh_sidecar.core.specs import LimitSpec, PerSpec


@dataclass(frozen=True, slots=True)
class PodPlace:
    """What a limit can be divided by, of the pod that asks."""

    namespace: str = ""
    workload: str = ""
    """`namespace/Kind/name` of the topmost controller, or of the pod itself."""
    pod: str = ""
    """`namespace/name`."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def value(self, part: PerSpec) -> str:
        """Empty: it has none."""
        if part.type == "Namespace":
            return self.namespace
        if part.type == "Workload":
            return self.workload
        return self.pod if part.type == "Pod" else self.labels.get(part.name, "")


NOWHERE = PodPlace()
"""Of a pod of which nothing is known."""


def named_place(pod: PodIdentity) -> PodPlace:
    """What a pod's identity says where nothing else is known."""
    return place_of(pod, None)


def place_of(pod: PodIdentity, info: PodInfo | None) -> PodPlace:
    """A pod as limits are divided by it. A pod that is not known has no labels and is its own workload."""
    name = f"{pod.namespace}/{pod.name}"
    if info is None:
        return PodPlace(pod.namespace, f"{pod.namespace}/Pod/{pod.name}", name)
    workload = info.workload
    return PodPlace(pod.namespace, f"{workload.namespace}/{workload.kind}/{workload.name}", name, info.labels)


@dataclass(slots=True)
class Division:
    """How many accounts a limit has in one period, and who opened them."""

    count: int = 0
    opened: Counter[str] = field(default_factory=Counter)
    """By the uid of the pod whose request was the first."""

    def has_room(self, limit: LimitSpec, uid: str, drafts: int) -> bool:
        """
        Whether this pod may open one more account of its own, beside the `drafts` of the same request.

        A pod may have opened at most as many as are still free: one that invents values leaves half of them to others.
        """
        return self.opened[uid] + drafts < limit.max_values - self.count - drafts


def candidates(limit: LimitSpec, asked: tuple[str, ...], place: PodPlace) -> Iterator[tuple[str, ...]]:
    """
    The values that a call may be counted under, best first: its own, then `other` for what the request says, then
    `other` altogether, which is always open.
    """
    own = tuple(
        (place.value(part) if part.type in OF_THE_POD else said) or OTHER
        for part, said in zip(limit.per, asked, strict=True)
    )
    yield own
    yield tuple(value if part.type in OF_THE_POD else OTHER for part, value in zip(limit.per, own, strict=True))
    yield (OTHER,) * len(own)


def as_asked(limit: LimitSpec, per: tuple[str, ...]) -> tuple[str, ...]:
    """An account's values as a sidecar names them: without those of the pod."""
    return tuple("" if part.type in OF_THE_POD else value for part, value in zip(limit.per, per, strict=True))


def is_of(limit: LimitSpec, per: tuple[str, ...], place: PodPlace) -> bool:
    """Whether a pod at `place` is counted on an account with these values; not so after it was relabelled."""
    parts = zip(limit.per, per, strict=True)
    return all(value in (OTHER, place.value(part)) for part, value in parts if part.type in OF_THE_POD)
