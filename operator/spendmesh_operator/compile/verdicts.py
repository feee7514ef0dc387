"""What became of each object, in conditions that say what is wrong and what to do; `status` writes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spendmesh_operator.compile.attachment import Placed
from spendmesh_operator.compile.classes import ClassResult
from spendmesh_operator.compile.model import ConditionType, Finding, Verdict
from spendmesh_operator.index import Entry, ObjectKey, PodInfo

_SHOWN_MAX = 5
"""Messages joined in one condition; a hundred would not be read."""


NEVER_VALID = "it cannot be read, so there is nothing to say: see condition Accepted"

_WELL: Mapping[str, str] = {
    "ResolvedRefs": "everything that it names exists",
    "Priced": "every model that it names has a price",
}


@dataclass
class Evidence:
    """What the classes say about one object, gathered."""

    matched: defaultdict[ObjectKey, list[str]] = field(default_factory=lambda: defaultdict(list))
    effective: defaultdict[ObjectKey, list[str]] = field(default_factory=lambda: defaultdict(list))
    lost_to: set[ObjectKey] = field(default_factory=set)
    """Older objects of its own level that it met, with or without pods."""
    overridden_by: set[ObjectKey] = field(default_factory=set)
    findings: set[Finding] = field(default_factory=set)
    cause: str = ""
    kept: bool = False
    """The books know what it last validly meant, although it is unreadable now."""

    def take(self, key: ObjectKey, result: ClassResult, pods: Iterable[PodInfo]) -> None:
        """Add what one class says about the object `key`."""
        for pod in pods:
            self.matched[pod.workload].append(pod.uid)
            if key in result.effective:
                self.effective[pod.workload].append(pod.uid)
        if key in result.conflicts:
            self.lost_to.add(result.conflicts[key])
        if key in result.overridden:
            self.overridden_by.add(result.overridden[key])
        self.findings.update(finding for about, finding in result.notes if about == key)


def verdict(
    entry: Entry, placed: Placed, evidence: Evidence, findings: Iterable[Finding] = (), good: Placed | None = None
) -> Verdict:
    """
    The verdict on one object from its entry in the index and from the evidence of all classes.

    `good`: what it meant when it last compiled, which is in force where it breaks compile now.
    """
    found = evidence.findings | set(findings)
    means = good if evidence.cause else placed
    in_force = means.generation if means is not None and means.manifest is not None else None
    types: list[ConditionType] = ["ResolvedRefs"]
    if entry.key.kind in ("RoutingPolicy", "ModelBudget"):
        types.append("Priced")
    about = [_joined(type_, found, _WELL[type_]) if in_force is not None else _unknown(type_) for type_ in types]
    return Verdict(
        key=entry.key,
        generation=entry.generation,
        conditions=(_accepted(entry, evidence), *about, _effective(entry, placed, evidence)),
        matched=_frozen(evidence.matched),
        effective=_frozen(evidence.effective),
        in_force=in_force,
        cause=evidence.cause,
    )


def _unknown(type_: ConditionType) -> Finding:
    return Finding(type_, "Unknown", "Invalid", NEVER_VALID)


def _frozen(pods: Mapping[ObjectKey, list[str]]) -> dict[ObjectKey, tuple[str, ...]]:
    return {workload: tuple(sorted(uids)) for workload, uids in sorted(pods.items())}


def _accepted(entry: Entry, evidence: Evidence) -> Finding:
    stays = _what_stays(entry, evidence)
    if entry.errors:
        return Finding("Accepted", "False", "Invalid", f"{'; '.join(str(error) for error in entry.errors)}. {stays}")
    if evidence.cause:
        return Finding(
            "Accepted",
            "False",
            "CompileError",
            f"the operator cannot compile it ({evidence.cause}). This is a defect of Spendmesh: please report it with "
            f"the manifest. What it last validly meant stays in force{_refusing(entry.key)}",
        )
    if not evidence.lost_to:
        return Finding("Accepted", "True", "Accepted", "valid and in use")
    older = ", ".join(f"{key.namespace}/{key.name}" for key in sorted(evidence.lost_to))
    if evidence.effective:
        return Finding(
            "Accepted",
            "True",
            "PartiallyConflicted",
            f"in use on {len(evidence.effective)} of {len(evidence.matched)} workloads; on the others {older} stays, "
            "which is older and attached in the same way: narrow one of the two selectors",
        )
    return Finding(
        "Accepted",
        "False",
        "Conflicted",
        f"{older} is older and attached in the same way to the same pods, so it stays: delete one of the two, or "
        "attach this one more specifically with podSelector or targetRefs",
    )


def _what_stays(entry: Entry, evidence: Evidence) -> str:
    if entry.manifest is not None:
        return f"Generation {entry.manifest.metadata.generation} stays in force until this is corrected"
    if evidence.kept:
        return "What it last validly meant stays in force until this is corrected"
    if entry.key.kind == "ModelBudget":
        return "It never had a valid meaning, so the calls that it applies to are refused until this is corrected"
    return "It has no effect until this is corrected"


def _refusing(key: ObjectKey) -> str:
    return "; without one, the calls that it applies to are refused" if key.kind == "ModelBudget" else ""


def _joined(type_: ConditionType, findings: set[Finding], well: str) -> Finding:
    """All findings of one type as one condition: what is wrong, or else what should be known."""
    mine = sorted(finding for finding in findings if finding.type == type_)
    wrong = [finding for finding in mine if finding.status != "True"]
    if not wrong:
        return Finding(type_, "True", type_, "; ".join(finding.message for finding in mine) or well)
    more = f"; and {len(wrong) - _SHOWN_MAX} more" if len(wrong) > _SHOWN_MAX else ""
    return Finding(type_, "False", wrong[0].reason, "; ".join(each.message for each in wrong[:_SHOWN_MAX]) + more)


def _effective(entry: Entry, placed: Placed, evidence: Evidence) -> Finding:
    matched, effective = len(evidence.matched), len(evidence.effective)
    if not matched:
        return Finding("Effective", "False", "NoMatchingWorkload", _nothing_matched(entry, placed))
    if not effective and entry.manifest is None:
        return Finding("Effective", "False", "Invalid", "nothing of it is in force: see condition Accepted")
    if not effective:
        others = _names(evidence.overridden_by | evidence.lost_to)
        reason = "Conflicted" if evidence.lost_to and not evidence.overridden_by else "Overridden"
        replaced = f"{others} replaces it on all {matched} workloads" if others else "nothing of it is in force"
        return Finding("Effective", "False", reason, replaced)
    if placed.observes:
        return Finding(
            "Effective",
            "False",
            "Observing",
            f"computed and recorded on {effective} workloads; it changes nothing until mode is Enforce",
        )
    known = "".join(f"; {finding.message}" for finding in sorted(evidence.findings) if finding.type == "Effective")
    if evidence.overridden_by and effective < matched:
        known = f"; {_names(evidence.overridden_by)} replaces it on the others{known}"
    return Finding("Effective", "True", "Effective", f"in force on {effective} of {matched} workloads{known}")


def _names(keys: Iterable[ObjectKey]) -> str:
    names = [f"{key.namespace}/{key.name}" for key in sorted(keys)]
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return ", ".join(names[:_SHOWN_MAX]) + more


def _nothing_matched(entry: Entry, placed: Placed) -> str:
    namespace = entry.key.namespace
    attachment = placed.attachment
    if attachment is None:
        return f"no running workload uses it: name it in a RoutingPolicy in namespace {namespace} that matches pods"
    if placed.reach is not None:
        return (
            "spec.namespaceSelector: no pod with a sidecar that it selects runs in a namespace with these labels: "
            "compare with `kubectl get namespaces --show-labels`"
        )
    label = "label spendmesh.io/inject: enabled on the namespace or the pod"
    injected = f"with a sidecar ({label}) in namespace {namespace}"
    if attachment.target_refs:
        names = ", ".join(f"{ref.kind}/{ref.name}" for ref in attachment.target_refs)
        return f"spec.targetRefs: no pod of {names} runs {injected}: check kind and name"
    if attachment.pod_selector is not None:
        return f"spec.podSelector: no pod {injected} has these labels: compare with `kubectl get pods --show-labels`"
    return f"no pod runs {injected}"
