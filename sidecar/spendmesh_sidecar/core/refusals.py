"""
Our own answers: the table of codes (contract §2) and the sentences that go with them.

Each sentence names the object, what is left, what to do, and when it resets. Never a key, a prompt or a user value.
The shell puts them into the client's own error shape; the decisions are `router`'s, `admission`'s and `exchange`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from spendmesh_sidecar.core.ledger.rights import AccountState, Denial
from spendmesh_sidecar.core.prices.money import NANOS_PER_UNIT, format_nanos
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, RetrySpec
from spendmesh_sidecar.core.types import Outcome, Refusal, Shortfall

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
    "idempotency_key_reused": 422,
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


LargestOutput = Callable[[str, int], int | None]
"""(`budget/limit`, amount) -> the output maximum, in tokens, at which the call fits so much; None: it has none."""


def budget_refusal(
    denials: tuple[Denial, ...], budgets: tuple[BudgetSpec, ...], needs: dict[str, int], largest: LargestOutput
) -> Refusal:
    """
    The refusal for a coordinator's denials; `needs` has the worst case of this call by `budget/limit`.

    A denial of an account that no longer is in the policy speaks as unknown.
    """
    told = {id(denial): _reason(denial, needs) for denial in denials}
    denial = min(denials, key=lambda denied: _PRECEDENCE.index(told[id(denied)]))
    reason = told[id(denial)]
    name = denial.account.name
    limit = find_limit(budgets, denial.account.budget, denial.account.limit)
    if reason == "unverifiable":
        return unverifiable(
            f"budget {name}: {denial.why or 'its books cannot be read, or it never had a valid meaning'}"
        )
    if reason == "unknown" or limit is None:
        return unverifiable(f"budget {name} is not known to the coordinator yet (a policy change is on its way)")
    if reason == "in_flight":
        return in_flight(name, limit, needs.get(name, 0), denial.state)
    state = denial.state
    whole = state.amount if state else limit.amount
    left = max(0, state.amount - state.settled) if state else None
    need = format_amount(needs.get(name, 0), limit)
    smaller = _smaller(limit, whole if left is None else left, largest(name, whole if left is None else left))
    if reason == "too_large":
        remains = f", of which {format_amount(left, limit)} is left" if left is not None else ""
        return refuse(
            "request_exceeds_budget",
            f"This call {_takes(limit)} {need}, more than the whole budget {name} of "
            f"{format_amount(whole, limit)}{remains}."
            f"{_resets(state, limit)}{smaller} Ask the budget's owner for a larger limit if it has to be this large.",
        )
    return refuse(
        "budget_exceeded",
        f"Budget {name} has {'too little' if left is None else format_amount(left, limit)} left and this call "
        f"{_takes(limit)} {need}.{_resets(state, limit)}{smaller} Ask the budget's owner to raise it if that is not "
        "enough.",
    )


def _smaller(limit: LimitSpec, amount: int, largest_output: int | None) -> str:
    """What would fit into so much of a limit."""
    if amount <= 0 or limit.unit == "Requests":
        return ""
    if largest_output:
        return f" With an output maximum of {largest_output} tokens it fits."
    return " Send less input: with any output it takes more." if limit.unit != "OutputTokens" else ""


def _reason(denial: Denial, needs: dict[str, int]) -> str:
    """The coordinator was asked for what lacks; the whole call, with the rights that are here, may say more."""
    state = denial.state
    need = needs.get(denial.account.name, 0)
    if state is None or denial.reason not in ("in_flight", "exhausted"):
        return denial.reason
    if need > state.amount:
        return "too_large"
    return "exhausted" if need > state.amount - state.settled - state.survival else denial.reason


def in_flight(name: str, limit: LimitSpec, need: int, state: AccountState | None) -> Refusal:
    """It would fit if the calls under way, here and elsewhere, settled at less than they may take."""
    left, held = "rights", "them"
    if state is not None:
        left = format_amount(max(0, state.amount - state.settled), limit)
        held = f"{format_amount(max(0, state.charged - state.settled), limit)} of it"
    return refuse(
        "budget_in_flight",
        f"Budget {name} has {left} left, but calls in flight hold {held}, and this call {_takes(limit)} "
        f"{format_amount(need, limit)}. Try again when they have settled.{_resets(state, limit)}",
        retry_after_seconds=IN_FLIGHT_RETRY_SECONDS,
    )


def unverifiable(what: str) -> Refusal:
    """Nobody can say now whether the call is paid for."""
    return refuse(
        "budget_unverifiable",
        f"Cannot verify that this call is within budget: {what}. Try again shortly; nothing was sent or charged.",
        retry_after_seconds=UNVERIFIABLE_RETRY_SECONDS,
    )


def unanswered(shortfalls: tuple[Shortfall, ...]) -> Refusal:
    """The coordinator was asked for what lacks, and did not answer in time."""
    lacking = ", ".join(sorted(f"{lack.budget}/{lack.limit}" for lack in shortfalls))
    return unverifiable(f"the coordinator did not answer for budget {lacking}")


def unwritable(why: str) -> Refusal:
    """What a call may cost cannot be written down, so it would be forgotten by the next start."""
    return refuse(
        "ledger_unwritable",
        f"The sidecar cannot keep account of this call: {why}. Nothing was sent or charged. See the space and the "
        "permissions of its state folder (in a pod: the volume spendmesh-state); it goes on by itself.",
        retry_after_seconds=UNVERIFIABLE_RETRY_SECONDS,
    )


def out_of_reach(why: str, reopens_in_seconds: float) -> Refusal:
    """No target may be called now, for these reasons; the first may be in so many seconds."""
    wait = max(1.0, reopens_in_seconds)
    return refuse(
        "target_unavailable",
        f"No target takes this call now{f' ({why})' if why else ''}. Come back in {format_duration(wait)}.",
        retry_after_seconds=wait,
    )


def out_of_time() -> Refusal:
    """The call waited too long, for rights or for a pause."""
    return refuse("attempt_timeout", "The call's time was over before it could be sent; nothing more was sent for it.")


def retries_unpaid(outcome: Outcome, target: str, spec: RetrySpec) -> Refusal:
    """Another try might have helped, but the RetryBudget does not pay for it, and wants that said (`onExhausted`)."""
    hint = outcome.retry_after_seconds or spec.min_retry_interval_ms / 1000
    ended = f"ended as {outcome.kind.value}" + (f" ({outcome.status})" if outcome.status else "")
    return refuse(
        "target_unavailable",
        f"The last try at {target} {ended}, and {_retry_budget(spec)} pays for no further one now. Come back in "
        f"{format_duration(max(1.0, hint))}, or raise its retryConstraint.",
        retry_after_seconds=hint,
    )


def client_retry_unpaid(number: int, spec: RetrySpec) -> Refusal:
    """The client retries on its own, beside us, more than the RetryBudget pays for."""
    return refuse(
        "target_unavailable",
        f"This is retry {number} of the client's own, and {_retry_budget(spec)} does not pay for it now. Retries are "
        "made here: set max_retries=0 in the client.",
        retry_after_seconds=spec.min_retry_interval_ms / 1000,
    )


def client_retries_spent(number: int, tries: int, spec: RetrySpec) -> Refusal:
    """The client retries a call whose every try was made, and whose answer nobody has any more."""
    made = f"{tries} {'try' if tries == 1 else 'tries'}"
    return refuse(
        "target_unavailable",
        f"This is retry {number} of the client's own, and the {made} that {_retry_budget(spec)} gives a call "
        "were made before it. Send it as a first try if it is to be made anew, and set max_retries=0 in the client.",
        retry_after_seconds=spec.min_retry_interval_ms / 1000,
    )


def key_reused() -> Refusal:
    """Two calls with one `Idempotency-Key` ask for different things: one of the two answers would be wrong."""
    return refuse(
        "idempotency_key_reused",
        "This Idempotency-Key was sent with another call before: a key stands for one operation, body and set of "
        "hints. Send a new key with a new call, and repeat a call unchanged.",
        param="Idempotency-Key",
    )


def _retry_budget(spec: RetrySpec) -> str:
    return f"RetryBudget {spec.name}" if spec.name else "the built-in retry budget"


def find_limit(budgets: tuple[BudgetSpec, ...], budget: str, limit: str) -> LimitSpec | None:
    """The limit of a budget by names."""
    for spec in budgets:
        if spec.name == budget:
            return next((found for found in spec.limits if found.name == limit), None)
    return None


def _takes(limit: LimitSpec) -> str:
    return "can take" if limit.reservation == "Strict" else "has to reserve"


def _resets(state: AccountState | None, limit: LimitSpec) -> str:
    if state is None:
        return ""
    what = "A part of it comes free" if limit.window.type == "Rolling" else "The budget resets"
    return f" {what} in {format_duration(state.resets_in_ms / 1000)}."
