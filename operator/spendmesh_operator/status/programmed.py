"""Which workloads really obey an object: the condition Programmed, from the acknowledgements of their sidecars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spendmesh_operator.compile import Compiled, CompiledPolicy, Verdict
from spendmesh_operator.status.model import ConditionStatus, PodState
from spendmesh_operator.workloads import MountedKey

_NOTHING = PodState(digest="")


@dataclass(frozen=True)
class Programmed:
    """How far an object has come, and what is in the way."""

    workloads: int
    """Effective workloads of which every running pod obeys the current policy."""
    status: ConditionStatus
    reason: str
    message: str


def programmed(verdict: Verdict, compiled: Compiled, pods: Mapping[str, PodState]) -> Programmed:
    """The condition of one object. `pods` holds what each pod said last, by UID."""
    behind: list[str] = []
    refusals: set[str] = set()
    never: set[str] = set()
    absent: set[str] = set()
    done = 0
    for workload, uids in verdict.effective.items():
        complete = True
        for uid in uids:
            state = pods.get(uid, _NOTHING)
            policy = compiled.policy_of(uid)
            current = policy is not None and state.digest == policy.digest
            not_given = _concerning(verdict, _not_given(policy, state))
            missing = _concerning(verdict, set(state.missing_keys)) - not_given if current else set()
            refusals |= {state.error} if state.error and not current else set()
            never |= not_given
            absent |= missing
            complete = complete and current and not (missing or not_given)
        done += complete
        if not complete:
            behind.append(f"{workload.kind}/{workload.name}")
    return _condition(verdict, done, behind, refusals, never, absent)


def _not_given(policy: CompiledPolicy | None, state: PodState) -> set[str]:
    """ModelProviders whose key the policy needs and the pod was never given: only a new pod has it (contract §3)."""
    if policy is None or state.mounted is None:
        return set()
    return {need.provider for need in policy.secrets if MountedKey(*need) not in state.mounted}


def _concerning(verdict: Verdict, keys: set[str]) -> set[str]:
    """Keys that matter to this object: a budget needs none."""
    if verdict.key.kind == "ModelProvider":
        return {verdict.key.name} & keys
    return keys if verdict.key.kind == "RoutingPolicy" else set()


def _condition(
    verdict: Verdict, done: int, behind: list[str], refusals: set[str], never: set[str], absent: set[str]
) -> Programmed:
    total = len(verdict.effective)
    if not total:
        return Programmed(0, "True", "Programmed", "no running workload needs it; pods get it when they start")
    where = ", ".join(sorted(behind)[:5]) + (f" and {len(behind) - 5} more" if len(behind) > 5 else "")
    if refusals:
        reasons = "; ".join(sorted(refusals)[:3])
        return Programmed(done, "False", "Rejected", f"{where}: the sidecars keep the policy they had: {reasons}")
    if never:
        return Programmed(
            done,
            "False",
            "RestartRequired",
            f"{where}: began before the policy named the key of ModelProvider {', '.join(sorted(never))}, and a pod "
            "that runs gets no other Secret: restart the workload",
        )
    if absent:
        return Programmed(
            done,
            "False",
            "KeyNotFound",
            f"{where}: the sidecars find no key for ModelProvider {', '.join(sorted(absent))}: create the Secret that "
            "it names in the pods' namespace, with that item; no restart is needed",
        )
    if behind:
        return Programmed(done, "False", "Pending", f"{done} of {total} workloads have it; waiting for {where}")
    return Programmed(done, "True", "Programmed", f"all {total} workloads have it")
