"""What compile takes and gives: settings, policies of classes, verdicts of objects. Plain data, no decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from spendmesh_operator.index import ObjectKey
from spendmesh_sidecar.policy import Policy

ConditionType = Literal["Accepted", "ResolvedRefs", "Priced", "Effective"]
Workloads = Mapping[ObjectKey, tuple[str, ...]]
"""UIDs of pods by the workload that they belong to."""


@dataclass(frozen=True)
class CompileSettings:
    """What the operator's own configuration adds to every policy."""

    cluster: str
    """Ledger domain: the configured cluster name."""
    unbudgeted: Literal["Allow", "Deny"] = "Allow"
    watched_namespace: str = ""
    """The only one that the operator sees; empty: all."""


class ClassKey(NamedTuple):
    """A class of pods: all pods of a namespace that the same objects match share one policy."""

    namespace: str
    objects: tuple[ObjectKey, ...]
    """Sorted."""


class SecretNeed(NamedTuple):
    """A provider key that a policy needs; injection mounts exactly this item, in the sidecar only."""

    provider: str
    """Name of the ModelProvider: `ProviderSpec.key_name`, the file in the sidecar's key directory."""
    secret: str
    key: str


@dataclass(frozen=True)
class CompiledPolicy:
    """One class's policy, ready to be sent."""

    key: ClassKey
    policy: Policy
    encoded: bytes
    digest: str
    secrets: tuple[SecretNeed, ...]
    unverifiable: frozenset[str]
    """Budgets (`namespace/name`) that never had a valid meaning: grants on them are refused as unverifiable."""

    @property
    def price_table(self) -> str:
        """Digest of the price table it is priced by."""
        return self.policy.price_table


class Finding(NamedTuple):
    """One condition without its bookkeeping: `status` writes times and generations."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """What became of one object."""

    key: ObjectKey
    generation: int
    """The newest generation seen: `observedGeneration`."""
    conditions: tuple[Finding, ...]
    """One of each type that the kind has, in a fixed order."""
    matched: Workloads
    effective: Workloads
    """Matched pods on which nothing more specific or older replaces it."""
    in_force: int | None = None
    """The generation whose meaning is in force: what all conditions but Accepted are about. None: there is none."""
    cause: str = ""
    """Where compile broke on it (exception and place), for the operator's log."""

    def condition(self, type_: ConditionType) -> Finding | None:
        """The condition of one type."""
        return next((finding for finding in self.conditions if finding.type == type_), None)

    @property
    def accepted(self) -> bool:
        """Whether the newest generation is in force."""
        finding = self.condition("Accepted")
        return finding is not None and finding.status == "True"
