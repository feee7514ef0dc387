"""When a changed status is worth a write, and which Events it is worth. Live numbers belong to metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spendmesh_operator.status.model import EventDraft
from spendmesh_operator.status.shares import steps

USE_SECONDS = 30
"""Between two writes for use or shares alone (api-conventions: what changes rapidly does not belong into status)."""
COUNT_SECONDS = 5
"""Between two writes for counts and messages alone, so that a rollout is one or two writes and not one for each pod."""
REST_SECONDS = 600
"""After which even a change below one percent is written."""

_MILESTONES = {"Exceeded", "Overdrawn", "Downgraded", "Clamped", "ThresholdReached"}
"""Told once by the books themselves (`status.milestones`): a condition can be written again, they cannot."""
_GOOD = {"Accepted", "ResolvedRefs", "Priced", "Programmed", "Funded", "SoleRetrier"}


def write_delay(old: Mapping[str, Any], new: Mapping[str, Any]) -> int | None:
    """Seconds since the last write after which `new` should be written; None: it says nothing new."""
    if old == new:
        return None
    if _verdict(old) != _verdict(new) or _stages(old) != _stages(new):
        return 0
    if _words(old) != _words(new):
        return COUNT_SECONDS
    return USE_SECONDS if (_percents(old), steps(old)) != (_percents(new), steps(new)) else REST_SECONDS


def changed_enough(old: Mapping[str, Any], new: Mapping[str, Any], seconds_since_write: float) -> bool:
    """Whether `new` should be written now: conditions at once, use by one percent at most every half minute."""
    delay = write_delay(old, new)
    return delay is not None and seconds_since_write >= delay


def events(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[EventDraft, ...]:
    """Events for what has changed; a first status is only worth one where something is wrong."""
    before = {each["type"]: each for each in old.get("conditions") or ()}
    drafts: list[EventDraft] = []
    for condition in new.get("conditions") or ():
        type_, status, reason = condition["type"], condition["status"], condition["reason"]
        known = before.get(type_)
        if known is not None and (known["status"], known["reason"]) == (status, reason):
            continue
        if type_ == "WithinBudget":
            if status == "False" and reason not in _MILESTONES:
                drafts.append(EventDraft("Warning", reason, condition["message"]))
        elif type_ in _GOOD and status == "False" and reason != "Pending":
            drafts.append(EventDraft("Warning", reason, condition["message"]))
        elif type_ in _GOOD and status == "True" and known is not None and known["status"] == "False":
            drafts.append(EventDraft("Normal", reason, condition["message"]))
    return tuple(drafts)


def _verdict(status: Mapping[str, Any]) -> object:
    conditions = status.get("conditions") or ()
    return status.get("observedGeneration"), [(each["type"], each["status"], each["reason"]) for each in conditions]


def _stages(status: Mapping[str, Any]) -> object:
    return [(each["name"], each.get("stage"), each.get("periodStart")) for each in status.get("limits") or ()]


def _words(status: Mapping[str, Any]) -> object:
    return [each["message"] for each in status.get("conditions") or ()], status.get("workloads")


def _percents(status: Mapping[str, Any]) -> object:
    return [(each["name"], each.get("percent")) for each in status.get("limits") or ()]
