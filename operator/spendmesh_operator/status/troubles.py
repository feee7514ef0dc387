"""Conditions about what only sidecars see: whether a provider's account pays, and whether clients retry as well."""

from __future__ import annotations

from collections.abc import Mapping, Set as AbstractSet
from typing import Any

from spendmesh_operator.compile import Verdict
from spendmesh_operator.control.sightings import Troubles

What = tuple[str, str, str]
"""Status, reason and message of a condition."""

_SHOWN_MAX = 5
_FIX = {
    "marked": "SDKs of OpenAI and Anthropic take max_retries=0",
    "unmarked": "loops around them repeat a failed call without saying so: LiteLLM takes num_retries=0",
}


def trouble_conditions(
    verdict: Verdict, troubles: Troubles, old: Mapping[str, Any], *, heard_all: bool
) -> dict[str, What]:
    """
    By type, for the kinds that have one. `old`: the conditions as they are, by type.

    `heard_all`: False while a new leader may not have heard of a trouble that stands; nothing is taken back then.
    """
    found: dict[str, What] = {}
    if verdict.key.kind == "ModelProvider":
        found["Funded"] = _funded(verdict, troubles)
    elif verdict.key.kind == "RetryBudget":
        found["SoleRetrier"] = _sole_retrier(verdict, troubles)
    for type_, (status, _, _) in found.items():
        if not heard_all and status == "True" and (known := old.get(type_)) and known["status"] == "False":
            found[type_] = (known["status"], known["reason"], known["message"])
    return found


def _funded(verdict: Verdict, troubles: Troubles) -> What:
    spent = troubles.unpaid.get(f"{verdict.key.namespace}/{verdict.key.name}", {})
    if not spent:
        return "True", "Funded", "no sidecar reports that its account is out of money"
    codes = ", ".join(sorted(set(spent.values()))[:_SHOWN_MAX])
    return (
        "False",
        "SpendLimitReached",
        f"its account is out of money ({codes}), say sidecars of {_workloads(verdict, spent.keys())}: no call goes "
        "there with this key, save one each retry.unpaidProbeInterval that asks again; top the account up, raise its "
        "limit, or add a target of another account to the tier",
    )


def _sole_retrier(verdict: Verdict, troubles: Troubles) -> What:
    retrying = troubles.client_retries.keys() & {uid for uids in verdict.effective.values() for uid in uids}
    if not retrying:
        return "True", "SoleRetrier", "no client is seen to retry on its own beside the sidecar"
    ways = sorted({how for uid in retrying for how in troubles.client_retries[uid]})
    return (
        "False",
        "ClientsRetry",
        f"clients in {_workloads(verdict, retrying)} retry on their own beside the sidecar, so that a failure is paid "
        f"several times: switch that off ({'; '.join(_FIX[how] for how in ways)})",
    )


def _workloads(verdict: Verdict, uids: AbstractSet[str]) -> str:
    """Of these pods, as far as the object is about them."""
    names = sorted(f"{key.kind}/{key.name}" for key, pods in verdict.effective.items() if not uids.isdisjoint(pods))
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return ", ".join(names[:_SHOWN_MAX]) + more if names else f"{len(uids)} pods"
