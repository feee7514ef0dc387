"""A budget's use in its status: limits, the tightest one, and the condition WithinBudget. Coarse on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from spendmesh_operator.ledger.books.milestones import QUARANTINE_PERCENT
from spendmesh_operator.status.model import ConditionStatus, LimitView
from spendmesh_sidecar.core.prices.money import NANOS_PER_UNIT

_DECIMALS = (2, 4, 6, 9)
REFERENCE_CHARACTERS = 128
EVIDENCE_CHARACTERS = 256
_STAGES = ("Within", "Notify", "Clamp", "Downgrade", "Exhausted", "NameTaken")


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds: what metav1.Time has."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def amount_text(amount: int, limit: LimitView, *, up: bool) -> str:
    """
    An amount in the limit's unit for people: counts as they are, money with as many decimals as a percent of it needs.

    `up` rounds up (what is used), else down (what remains).
    """
    if limit.unit != "Cost":
        return str(amount)
    decimals = next((count for count in _DECIMALS if limit.amount * 10**count >= 100 * NANOS_PER_UNIT), _DECIMALS[-1])
    step = 10 ** (9 - decimals)
    shown = -(-amount // step) if up else amount // step
    sign = "-" if shown < 0 else ""
    whole, fraction = divmod(abs(shown), 10**decimals)
    return f"{sign}{whole}.{fraction:0{decimals}d}"


def full_amount(limit: LimitView) -> str:
    """The limit itself: exact, at least two decimals."""
    if limit.unit != "Cost":
        return str(limit.amount)
    whole, fraction = divmod(limit.amount, NANOS_PER_UNIT)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{whole}.{digits:0<2}"


def tightest(limits: Sequence[LimitView]) -> LimitView | None:
    """The limit nearest to its end: by stage, then by share used; a tie goes by name."""
    ranked = sorted(limits, key=lambda limit: limit.name)
    return max(ranked, key=lambda limit: (_STAGES.index(limit.stage), _share(limit)), default=None)


def _share(limit: LimitView) -> int:
    return limit.used * 10**6 // limit.amount if limit.amount else 10**6


def budget_fields(limits: Sequence[LimitView]) -> dict[str, Any]:
    """`tightest` and `limits` of a ModelBudget's status."""
    near = tightest(limits)
    if near is None:
        return {}
    shown = {
        "limit": near.name,
        "period": near.period,
        "used": amount_text(near.used, near, up=True),
        "held": amount_text(near.held, near, up=True),
        "amount": full_amount(near),
        "currency": near.currency,
        "percent": near.percent,
        "forecast": _forecast_text(near),
    }
    return {
        "tightest": {field: value for field, value in shown.items() if value != ""},
        "limits": [_limit_fields(limit) for limit in sorted(limits, key=lambda limit: limit.name)],
    }


def _limit_fields(limit: LimitView) -> dict[str, Any]:
    return {
        "name": limit.name,
        **({"values": limit.values} if limit.values else {}),
        "used": amount_text(limit.used, limit, up=True),
        "held": amount_text(limit.held, limit, up=True),
        "quarantined": amount_text(limit.quarantined, limit, up=True),
        "remaining": amount_text(max(0, limit.amount - limit.used - limit.held), limit, up=False),
        "periodStart": timestamp(limit.period_start),
        "resetsAt": timestamp(limit.resets_at),
        "percent": limit.percent,
        "stage": limit.stage,
    } | _details(limit)


def _details(limit: LimitView) -> dict[str, Any]:
    """What `kubectl describe` shows beside the sums; empty lists are left out."""
    details: dict[str, Any] = {
        "forecast": _forecast_text(limit),
        "quarantine": [
            {"reason": reason, "amount": amount_text(amount, limit, up=True)} for reason, amount in limit.quarantine
        ],
        "holderCount": limit.holder_count,
        "holders": [
            {
                "pod": holder.pod,
                "used": amount_text(holder.used, limit, up=True),
                "held": amount_text(holder.held, limit, up=True),
                "state": holder.state,
            }
            for holder in limit.holders
        ],
        "corrections": [
            {
                "reference": each.reference[:REFERENCE_CHARACTERS],
                "amount": amount_text(each.amount, limit, up=True),
                "evidence": each.evidence[:EVIDENCE_CHARACTERS],
                "time": timestamp(each.at),
            }
            for each in limit.corrections
        ],
    }
    return {name: value for name, value in details.items() if value not in ("", [], 0)}


def _forecast_text(limit: LimitView) -> str:
    return "" if limit.forecast is None else amount_text(limit.forecast, limit, up=True)


def within_budget(
    limits: Sequence[LimitView] | None, *, observed: bool, readable: bool, differs: str = ""
) -> tuple[ConditionStatus, str, str]:
    """Status, reason and message of WithinBudget. `limits` is None while the books cannot be read."""
    if not readable:
        return "Unknown", "Unverifiable", "the budget never had a valid meaning; see condition Accepted"
    if limits is None:
        return "Unknown", "LedgerUnavailable", "the books cannot be read now; sidecars spend the rights that they hold"
    if differs:
        return "False", "DefinitionsDiffer", f"{differs}: no rights are granted in either before both are equal"
    near = tightest(limits)
    if near is None or near.stage == "Within":
        return "True", "WithinBudget", "no limit has reached a threshold"
    if near.taken_until is not None:
        what = "calls would not be counted" if observed else "calls are refused with budget_unverifiable"
        return (
            "False",
            "LimitNameTaken",
            f"limit {near.name!r} had another unit, currency, window or per before, and the period that runs under "
            f"that meaning ends at {timestamp(near.taken_until)}: {what} until then; a limit of another name starts "
            "at once",
        )
    return stage_words(near, observed=observed)


def stage_words(limit: LimitView, *, observed: bool, whose: str = "") -> tuple[ConditionStatus, str, str]:
    """
    Status, reason and message of the stage that a limit has reached, `Within` excepted.

    `whose` names a value of a divided limit; without it the figures are of the fullest.
    """
    if limit.values and not whose:
        whose = f"the fullest of {limit.values} values"
    of = _named_of(limit, whose)
    rolling = limit.period.startswith("Rolling")
    until = f"until {'a part of it comes free at ' if rolling else ''}{timestamp(limit.resets_at)}"
    if limit.stage == "Exhausted":
        calls = "its calls" if whose else "calls"
        what = f"{calls} would be refused" if observed else f"{calls} are refused with budget_exceeded"
        if limit.used > limit.amount:
            used = amount_text(limit.used, limit, up=True)
            return (
                "False",
                "Overdrawn",
                f"{of} is less than the {used} that are spent already (it was lowered, or a provider billed more than "
                f"was reserved): {what} {until}; raise spec.limits[{limit.name}].amount above {used}, or wait",
            )
        return "False", "Exceeded", f"{of} is spent: {what} {until}; raise spec.limits[{limit.name}].amount, or wait"
    reached = f"{of} has reached {limit.crossed_percent} %"
    verb = "would get" if observed else "get"
    clamped = f"calls {verb} {limit.max_output_tokens} output tokens at most" if limit.max_output_tokens else ""
    if limit.stage == "Downgrade":
        downgraded = f"calls that a policy chooses for {verb} tier {limit.max_tier!r} at most"
        return "True", "Downgraded", f"{reached}: {' and '.join(filter(None, (downgraded, clamped)))} {until}"
    if limit.stage == "Clamp":
        return "True", "Clamped", f"{reached}: {clamped} {until}"
    return "True", "ThresholdReached", f"{reached} of its amount {until}"


def named(limit: LimitView) -> str:
    """A limit and its amount, for a sentence."""
    return f"limit {limit.name!r} ({full_amount(limit)}{' ' + limit.currency if limit.currency else ' ' + limit.unit})"


def _named_of(limit: LimitView, whose: str) -> str:
    return f"{whose} of {named(limit)}" if whose else named(limit)


def accounted(limits: Sequence[LimitView] | None) -> tuple[ConditionStatus, str, str]:
    """Status, reason and message of Accounted: whether little enough is charged for pods that nobody hears of."""
    if limits is None:
        return "Unknown", "LedgerUnavailable", "the books cannot be read now"
    alerting = [
        quarantine_words(limit, "a value" if limit.values else "") for limit in limits if limit.quarantine_alert
    ]
    if alerting:
        return "False", "QuarantineHigh", "; ".join(alerting)
    return "True", "Accounted", f"at most {QUARANTINE_PERCENT} % of each limit is charged for pods that vanished"


def quarantine_words(limit: LimitView, whose: str = "") -> str:
    """Too much is charged for pods that vanished; `whose` as in `stage_words`."""
    charged = amount_text(limit.quarantine_alert, limit, up=True)
    return (
        f"{_named_of(limit, whose)}: {charged} is charged for pods that vanished before they "
        f"reported, more than {QUARANTINE_PERCENT} % of the limit; it counts as spent until they report, or until "
        f"{timestamp(limit.resets_at)}, unless a correction with evidence takes it back"
    )
