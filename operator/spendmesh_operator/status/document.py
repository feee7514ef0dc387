"""Verdict, acknowledgements and books to the status that is written: conditions with their times. `now` is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from spendmesh_operator.compile import NEVER_VALID, Verdict
from spendmesh_operator.control.sightings import NO_TROUBLES, Troubles
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.manifests import API_VERSION
from spendmesh_operator.retries.pool import PoolView
from spendmesh_operator.status.budget import accounted, budget_fields, timestamp, within_budget
from spendmesh_operator.status.model import LimitView, Status
from spendmesh_operator.status.programmed import Programmed
from spendmesh_operator.status.shares import share_fields
from spendmesh_operator.status.troubles import trouble_conditions

_ORDER = (
    "Accepted",
    "ResolvedRefs",
    "Priced",
    "Programmed",
    "Effective",
    "WithinBudget",
    "Accounted",
    "Funded",
    "SoleRetrier",
)
_MESSAGE_MAX = 32768  # metav1.Condition


def status_of(
    verdict: Verdict,
    program: Programmed,
    *,
    limits: Sequence[LimitView] | None,
    old: Mapping[str, Any],
    now: datetime,
    observed: bool = False,
    readable: bool = True,
    differs: str = "",
    troubles: Troubles = NO_TROUBLES,
    heard_all: bool = True,
    shared: PoolView | None = None,
) -> Status:
    """
    The status of one object.

    `limits` are the books' view of a ModelBudget (None: they cannot be read), `old` the status as it is, which gives
    the times of conditions that did not change. `observed`: mode Observe; `readable`: False for a budget that never
    had a valid meaning; `differs`: how another cluster's definition does; `troubles`: what sidecars see; `heard_all`:
    False while a new leader may not have heard of all of them; `shared`: how a RetryBudget is divided among pods.
    """
    conditions: dict[str, tuple[str, str, str]] = {
        finding.type: (finding.status, finding.reason, finding.message) for finding in verdict.conditions
    }
    conditions["Programmed"] = (
        (program.status, program.reason, program.message)
        if verdict.in_force is not None
        else ("Unknown", "Invalid", NEVER_VALID)
    )
    if verdict.key.kind == "ModelBudget":
        conditions["WithinBudget"] = within_budget(limits, observed=observed, readable=readable, differs=differs)
        valid = readable and verdict.in_force is not None
        conditions["Accounted"] = accounted(limits) if valid else ("Unknown", "Invalid", NEVER_VALID)
    since = {each["type"]: each for each in old.get("conditions") or ()}
    for type_, what in trouble_conditions(verdict, troubles, since, heard_all=heard_all).items():
        conditions[type_] = what if verdict.in_force is not None else ("Unknown", "Invalid", NEVER_VALID)
    status: Status = {
        "observedGeneration": verdict.generation,
        "conditions": [
            _condition(type_, conditions[type_], _generation(type_, verdict), since.get(type_), now)
            for type_ in _ORDER
            if type_ in conditions
        ],
        "workloads": {
            "matched": len(verdict.matched),
            "effective": len(verdict.effective),
            "programmed": program.workloads,
        },
    }
    if verdict.key.kind == "ModelBudget":
        status |= budget_fields(limits or ())
    status |= share_fields(shared, now)
    return status


def apply_document(key: ObjectKey, status: Status) -> dict[str, Any]:
    """The body of a server-side apply to `/status`."""
    return {
        "apiVersion": API_VERSION,
        "kind": key.kind,
        "metadata": {"name": key.name, "namespace": key.namespace},
        "status": status,
    }


def _generation(type_: str, verdict: Verdict) -> int:
    """`kubectl wait` believes a condition of an older generation as little as one that is not there."""
    return verdict.generation if type_ == "Accepted" or verdict.in_force is None else verdict.in_force


def _condition(
    type_: str, what: tuple[str, str, str], generation: int, old: Mapping[str, Any] | None, now: datetime
) -> dict[str, Any]:
    status, reason, message = what
    same = old is not None and old.get("status") == status and old.get("lastTransitionTime")
    return {
        "type": type_,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if same and old is not None else timestamp(now),
        "reason": reason,
        "message": message if len(message) <= _MESSAGE_MAX else message[: _MESSAGE_MAX - 1] + "…",
    }
