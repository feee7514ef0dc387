"""Which workloads really obey an object: the condition Programmed, from the acknowledgements of their sidecars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spendmesh_operator.compile import Compiled, Verdict
from spendmesh_operator.status.model import ConditionStatus, PodState

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
    keys: set[str] = set()
    done = 0
    for workload, uids in verdict.effective.items():
        complete = True
        for uid in uids:
            state = pods.get(uid, _NOTHING)
            policy = compiled.policy_of(uid)
            current = policy is not None and state.digest == policy.digest
            missing = _missing(verdict, state) if current else set()
            refusals |= {state.error} if state.error and not current else set()
            keys |= missing
            complete = complete and current and not missing
        done += complete
        if not complete:
            behind.append(f"{workload.kind}/{workload.name}")
    return _condition(verdict, done, behind, refusals, keys)


def _missing(verdict: Verdict, state: PodState) -> set[str]:
    """Keys that matter to this object: a budget needs none."""
    if verdict.key.kind == "ModelProvider":
        return {verdict.key.name} & set(state.missing_keys)
    return set(state.missing_keys) if verdict.key.kind == "RoutingPolicy" else set()


def _condition(verdict: Verdict, done: int, behind: list[str], refusals: set[str], keys: set[str]) -> Programmed:
    total = len(verdict.effective)
    if not total:
        return Programmed(0, "True", "Programmed", "no running workload needs it; pods get it when they start")
    where = ", ".join(sorted(behind)[:5]) + (f" and {len(behind) - 5} more" if len(behind) > 5 else "")
    if refusals:
        reasons = "; ".join(sorted(refusals)[:3])
        return Programmed(done, "False", "Rejected", f"{where}: the sidecars keep the policy they had: {reasons}")
    if keys:
        names = ", ".join(sorted(keys))
        return Programmed(
            done,
            "False",
            "RestartRequired",
            f"{where}: no key for ModelProvider {names}: check that the Secret it names exists in the pods' namespace "
            "and has the item; if it does, restart the workload, which began before the policy named that provider",
        )
    if behind:
        return Programmed(done, "False", "Pending", f"{done} of {total} workloads have it; waiting for {where}")
    return Programmed(done, "True", "Programmed", f"all {total} workloads have it")
