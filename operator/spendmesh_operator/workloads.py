"""A pod, the controllers above it, and the keys that it was given: read from what the API server shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from spendmesh_operator.injection.names import VOLUME_KEYS

_GROUPS: Final = {
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), "apps"),
    **dict.fromkeys(("Job", "CronJob"), "batch"),
}
_OF_CRON_JOB: Final = re.compile(r"(.+)-[0-9]{8,10}")
"""The CronJob controller names a Job after the CronJob and the minute (before 1.21: second) that it was due."""


class ObjectKey(NamedTuple):
    """Identity of an object across edits and re-creation."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Owner(NamedTuple):
    """A controller above a pod, in the pod's namespace."""

    kind: str
    name: str
    foreign_group: str = ""
    """API group of a kind that is not Kubernetes' own, such as the StatefulSet of another project."""


class MountedKey(NamedTuple):
    """A provider's key that a pod was given when it was made; it can get no other."""

    provider: str
    secret: str
    item: str


@dataclass(frozen=True)
class PodInfo:
    """A running pod, with its controllers from the nearest to the topmost."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    owners: tuple[Owner, ...]
    keys: frozenset[MountedKey] | None = None
    """None: not known (there is no Kubernetes)."""

    @property
    def workload(self) -> ObjectKey:
        """The topmost owner, or the pod itself: what people count and name."""
        top = self.owners[-1] if self.owners else Owner("Pod", self.name)
        return ObjectKey(top.kind, self.namespace, top.name)


class Parents:
    """Which ReplicaSet and Job belongs to what."""

    def __init__(self) -> None:
        self._above: dict[tuple[str, str, str], Owner | None] = {}

    def add(self, kind: str, namespace: str, name: str, metadata: Mapping[str, Any]) -> bool:
        """Take one in; one that nobody controls too, so that nothing is guessed from its name. Whether it is news."""
        where, owner = (kind, namespace, name), controller_of(metadata)
        changed = where not in self._above or self._above[where] != owner
        self._above[where] = owner
        return changed

    def remove(self, kind: str, namespace: str, name: str) -> bool:
        """Forget one. Whether it was known."""
        where = (kind, namespace, name)
        known = where in self._above
        self._above.pop(where, None)
        return known

    def names_of(self, kind: str) -> list[tuple[str, str]]:
        """Namespace and name of all that are known."""
        return [(namespace, name) for known, namespace, name in self._above if known == kind]

    def climb(self, namespace: str, owner: Owner | None, labels: Mapping[str, str]) -> tuple[Owner, ...]:
        """The chain from the direct controller of a pod with these labels to the topmost one."""
        chain: list[Owner] = []
        while owner is not None and owner not in chain:
            chain.append(owner)
            where = (owner.kind, namespace, owner.name)
            if owner.foreign_group:
                owner = None
            elif where in self._above:
                owner = self._above[where]
            else:
                owner = _guessed_above(owner, labels)
        return tuple(chain)


def _guessed_above(owner: Owner, labels: Mapping[str, str]) -> Owner | None:
    """
    What is above a ReplicaSet or Job that we have not seen yet, by the names that Kubernetes' controllers give.

    A new pod can be known before its ReplicaSet is, and is nearly always admitted before its Job is; it must not run
    without its Deployment's budget, nor be made without the key that its CronJob's policy needs.
    """
    suffix = "-" + labels.get("pod-template-hash", "")
    if owner.kind == "ReplicaSet" and len(suffix) > 1 and owner.name.endswith(suffix):
        return Owner("Deployment", owner.name.removesuffix(suffix))
    scheduled = _OF_CRON_JOB.fullmatch(owner.name) if owner.kind == "Job" else None
    return Owner("CronJob", scheduled[1]) if scheduled else None


def controller_of(metadata: Mapping[str, Any]) -> Owner | None:
    """The direct controller. A reference without apiVersion is to Kubernetes' own kind of that name."""
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            kind, api_version = str(reference.get("kind")), reference.get("apiVersion")
            group = str(api_version).rpartition("/")[0] if api_version is not None else _GROUPS.get(kind, "")
            return Owner(kind, str(reference.get("name")), "" if group == _GROUPS.get(kind, "") else group or "core")
    return None


def mounted_keys(raw: Mapping[str, Any]) -> frozenset[MountedKey] | None:
    """The keys in a pod's manifest; None where it has no spec."""
    spec = raw.get("spec")
    if not isinstance(spec, Mapping):
        return None
    found: set[MountedKey] = set()
    for volume in spec.get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or () if volume.get("name") == VOLUME_KEYS else ():
            secret = source.get("secret") or {}
            for item in secret.get("items") or ():
                found.add(MountedKey(str(item.get("path")), str(secret.get("name")), str(item.get("key"))))
    return frozenset(found)
