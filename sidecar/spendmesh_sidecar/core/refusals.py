"""
Our own answers: the table of codes (contract §2) and the sentences that go with them.

Each sentence names the object, what is left, what to do, and when it resets. Never a key, a prompt or a user value.
The shell puts them into the client's own error shape; the decisions are `router`'s, `admission`'s and `exchange`'s.
"""

from __future__ import annotations

from spendmesh_sidecar.core.money import NANOS_PER_UNIT, format_nanos
from spendmesh_sidecar.core.rights import AccountState, Denial
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec
from spendmesh_sidecar.core.types import Refusal

STATUS = {
    "budget_exceeded": 402,
    "budget_in_flight": 402,
    "request_exceeds_budget": 402,
    "budget_unverifiable": 503,
    "model_unpriced": 403,
    "model_denied": 403,
    "request_invalid": 400,
    "field_not_allowed": 400,
    "no_capable_target": 400,
    "policy_missing": 503,
    "target_unavailable": 503,
    "ledger_unwritable": 503,
    "attempt_timeout": 504,
    "operation_unsupported": 404,
    "request_too_large": 413,
}

IN_FLIGHT_RETRY_SECONDS = 1.0
"""Others' calls settle within seconds; the first chance is the next commit of the coordinator."""
UNVERIFIABLE_RETRY_SECONDS = 5.0
"""About one report interval: by then the coordinator, or its successor, answers again."""


def refuse(code: str, message: str, *, param: str = "", retry_after_seconds: float | None = None) -> Refusal:
    """A refusal with the status of its code. Raises KeyError for a code that the contract does not have."""
    return Refusal(code, STATUS[code], message, param, retry_after_seconds)


def format_amount(amount: int, limit: LimitSpec) -> str:
    """An amount in the limit's unit, for people: `248.90 USD`, or `1200 TotalTokens`. What is left rounds down."""
    if limit.unit != "Cost":
        return f"{amount} {limit.unit}"
    if amount >= NANOS_PER_UNIT or amount <= 0:
        return format_nanos(amount - amount % 10**7, limit.currency, 2)
    return format_nanos(amount - amount % 10**3, limit.currency, 6)


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: `3 d 4 h`, `2 h 5 min`, `40 s`."""
    rest = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


_PRECEDENCE = ("too_large", "exhausted", "unverifiable", "unknown", "in_flight")
"""Of several denials the one that waiting helps least speaks."""


def budget_refusal(denials: tuple[Denial, ...], budgets: tuple[BudgetSpec, ...], needs: dict[str, int]) -> Refusal:
    """
    The refusal for a coordinator's denials; `needs` has the worst case of this call by `budget/limit`.

    A denial of an account that no longer is in the policy speaks as unknown.
    """
    told = {id(denial): _reason(denial, needs) for denial in denials}
    denial = min(denials, key=lambda denied: _PRECEDENCE.index(told[id(denied)]))
    reason = told[id(denial)]
    name = f"{denial.account.budget}/{denial.account.limit}"
    limit = find_limit(budgets, denial.account.budget, denial.account.limit)
    if reason == "unverifiable":
        return unverifiable(f"budget {name}: its books cannot be read, or it never had a valid meaning")
    if reason == "unknown" or limit is None:
        return unverifiable(f"budget {name} is not known to the coordinator yet (a policy change is on its way)")
    left = _left(denial.state, limit)
    need = format_amount(needs.get(name, 0), limit)
    resets = _resets(denial.state)
    if reason == "too_large":
        whole = format_amount(denial.state.amount if denial.state else limit.amount, limit)
        return refuse(
            "request_exceeds_budget",
            f"This call can take {need}, more than the whole budget {name} of {whole}. "
            "Set a smaller output maximum, send less input, or ask for a larger limit.",
        )
    if reason == "exhausted":
        return refuse(
            "budget_exceeded",
            f"Budget {name} has {left} left and this call can take {need}.{resets} "
            "Ask the budget's owner to raise it, or send a smaller call.",
        )
    return _in_flight(name, left, need)


def _reason(denial: Denial, needs: dict[str, int]) -> str:
    """The coordinator was asked for what lacks; the whole call, with the rights that are here, may say more."""
    state = denial.state
    need = needs.get(f"{denial.account.budget}/{denial.account.limit}", 0)
    if state is None or denial.reason not in ("in_flight", "exhausted"):
        return denial.reason
    if need > state.amount:
        return "too_large"
    return "exhausted" if need > state.amount - state.settled else denial.reason


def in_flight(name: str, need: int, budgets: tuple[BudgetSpec, ...]) -> Refusal:
    """What was granted for this call went to others that were faster."""
    budget, _, limit_name = name.rpartition("/")
    limit = find_limit(budgets, budget, limit_name)
    return _in_flight(name, "rights", format_amount(need, limit) if limit else str(need))


def _in_flight(name: str, left: str, need: str) -> Refusal:
    return refuse(
        "budget_in_flight",
        f"Budget {name} has {left} left, but calls in flight hold it, and this call can take {need}. "
        "Try again when they have settled.",
        retry_after_seconds=IN_FLIGHT_RETRY_SECONDS,
    )


def unverifiable(what: str) -> Refusal:
    """Nobody can say now whether the call is paid for."""
    return refuse(
        "budget_unverifiable",
        f"Cannot verify that this call is within budget: {what}. Try again shortly; nothing was sent or charged.",
        retry_after_seconds=UNVERIFIABLE_RETRY_SECONDS,
    )


def all_ejected(reopens_in_seconds: float) -> Refusal:
    """No target is healthy; the first is probed again in so many seconds."""
    wait = max(1.0, reopens_in_seconds)
    return refuse(
        "target_unavailable",
        f"Every target for this call is ejected after errors; the first is tried again in {format_duration(wait)}.",
        retry_after_seconds=wait,
    )


def find_limit(budgets: tuple[BudgetSpec, ...], budget: str, limit: str) -> LimitSpec | None:
    """The limit of a budget by names."""
    for spec in budgets:
        if spec.name == budget:
            return next((found for found in spec.limits if found.name == limit), None)
    return None


def _left(state: AccountState | None, limit: LimitSpec) -> str:
    if state is None:
        return "too little"
    return format_amount(max(0, state.amount - state.settled), limit)


def _resets(state: AccountState | None) -> str:
    return f" It resets in {format_duration(state.resets_in_ms / 1000)}." if state else ""
