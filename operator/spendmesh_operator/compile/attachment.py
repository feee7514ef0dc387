"""Which objects apply to which pods, and which of them wins. What they say is not read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from pydantic import ValidationError

from spendmesh_operator.index import POLICY_KINDS, Entry, ObjectKey, Owner, PodInfo
from spendmesh_operator.manifests import Attachment, LabelSelector, Manifest, OrganisationAttachment

REACHING_KINDS = ("ModelBudget",)
"""Kinds that can apply to other namespaces."""

_NO_TIME = datetime.max.replace(tzinfo=UTC)


class Level(IntEnum):
    """How specific an attachment is: the higher one wins."""

    ORGANISATION = 0
    NAMESPACE = 1
    PODS = 2
    WORKLOAD = 3


@dataclass(frozen=True)
class Placed:
    """An object as compile sees it: what is in force, and where."""

    key: ObjectKey
    uid: str
    generation: int
    """Of what is in force."""
    created: datetime
    manifest: Manifest | None
    """None: unreadable, and never had a valid meaning."""
    attachment: Attachment | None
    """None for kinds that attach to nothing."""

    @property
    def level(self) -> Level:
        """How specific it is."""
        if self.reach is not None:
            return Level.ORGANISATION
        if self.attachment is None or not (self.attachment.target_refs or self.attachment.pod_selector):
            return Level.NAMESPACE
        return Level.WORKLOAD if self.attachment.target_refs else Level.PODS

    @property
    def reach(self) -> LabelSelector | None:
        """Selects the namespaces that it applies to; None: its own only."""
        return self.attachment.namespace_selector if isinstance(self.attachment, OrganisationAttachment) else None

    @property
    def is_default(self) -> bool:
        """Whether a namespace's own object takes its place."""
        return isinstance(self.attachment, OrganisationAttachment) and self.attachment.inheritance == "Default"

    @property
    def observes(self) -> bool:
        """Whether it is in mode Observe."""
        return self.attachment is not None and self.attachment.mode == "Observe"

    @property
    def seniority(self) -> tuple[datetime, str]:
        """Sort key: at one level the oldest wins, a tie goes by name (GEP-713)."""
        return self.created, self.key.name

    @property
    def ref(self) -> str:
        """`namespace/name`."""
        return f"{self.key.namespace}/{self.key.name}"


def place(entry: Entry, operator_namespace: str) -> Placed:
    """How compile sees an object of the index. Only one of the operator's namespace can reach others."""
    attachment = None
    if entry.key.kind in POLICY_KINDS:
        spec = getattr(entry.manifest, "spec", None)
        attachment = (
            spec
            if isinstance(spec, Attachment)
            else _attachment_of(
                entry.raw or {}, reaches=entry.key.kind in REACHING_KINDS and entry.key.namespace == operator_namespace
            )
        )
    return Placed(
        key=entry.key,
        uid=entry.uid,
        generation=entry.manifest.metadata.generation if entry.manifest is not None else entry.generation,
        created=entry.created or _NO_TIME,
        manifest=entry.manifest,
        attachment=attachment,
    )


def _attachment_of(raw: Mapping[str, Any], *, reaches: bool) -> Attachment:
    """As much of an unreadable object's attachment as can be read; else all pods, since it must not loosen anything."""
    spec = raw.get("spec")
    fields = spec if isinstance(spec, Mapping) else {}
    kind, more = (OrganisationAttachment, ("namespaceSelector", "inheritance")) if reaches else (Attachment, ())
    for names in (("mode", "targetRefs", "podSelector", *more), ("mode", *more), ("mode",)):
        try:
            return kind.model_validate({name: fields[name] for name in names if name in fields})
        except ValidationError:
            continue
    return Attachment()


def applies(placed: Placed, pod: PodInfo, namespace_labels: Mapping[str, str]) -> bool:
    """Whether an object applies to a pod of a namespace with these labels."""
    if placed.attachment is None or not matches(placed.attachment, pod):
        return False
    if placed.reach is None:
        return placed.key.namespace == pod.namespace
    return _selects(placed.reach, namespace_labels)


def matches(attachment: Attachment, pod: PodInfo) -> bool:
    """Whether an object that reaches the pod's namespace applies to the pod."""
    if attachment.target_refs:
        targets = {Owner(ref.kind, ref.name) for ref in attachment.target_refs}
        return not targets.isdisjoint((Owner("Pod", pod.name), *pod.owners))
    return attachment.pod_selector is None or _selects(attachment.pod_selector, pod.labels)


def _selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.match_labels or {}).items()):
        return False
    for requirement in selector.match_expressions or ():
        value, values = labels.get(requirement.key), requirement.values or ()
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[requirement.operator]
        if not holds:
            return False
    return True


def overlaps(one: Attachment, other: Attachment) -> bool:
    """Whether two objects of one level conflict on any pod that there may be, as far as names can tell."""
    if one.target_refs and other.target_refs:
        return not {(ref.kind, ref.name) for ref in one.target_refs}.isdisjoint(
            (ref.kind, ref.name) for ref in other.target_refs
        )
    return not (one.target_refs or other.target_refs) and one.pod_selector == other.pod_selector


@dataclass(frozen=True)
class Contest:
    """The objects of one kind that match a class: who decides, and who lost to whom."""

    enforced: tuple[Placed, ...]
    """At most one of each level, the most specific first."""
    observed: tuple[Placed, ...]
    """Likewise, of those in mode Observe."""
    conflicts: Mapping[ObjectKey, ObjectKey]
    """Losers at their own level, and the older object that each lost to."""


def contest(candidates: Iterable[Placed]) -> Contest:
    """Settle who wins at each level; Observe never competes with Enforce."""
    enforced: list[Placed] = []
    observed: list[Placed] = []
    conflicts: dict[ObjectKey, ObjectKey] = {}
    by_age = sorted(candidates, key=lambda placed: placed.seniority)
    for placed in sorted(by_age, key=lambda placed: -placed.level):
        side = observed if placed.observes else enforced
        if side and side[-1].level == placed.level:
            conflicts[placed.key] = side[-1].key
        else:
            side.append(placed)
    return Contest(tuple(enforced), tuple(observed), conflicts)


def beside(contested: Contest) -> Sequence[Placed]:
    """What would be in force if the observed objects were enforced: at one level the observed one comes first."""
    return sorted((*contested.observed, *contested.enforced), key=lambda placed: (-placed.level, not placed.observes))
