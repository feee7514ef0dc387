"""
What the ledger tells others: downgrades in force, what is left for the client's header, and lines for `/status`.

Reads only. Figures about a whole account are the coordinator's last word plus what this sidecar used since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import Struct

from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.charges import Subject, counts
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.partitions import account_ref
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Denial
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.refusals import format_amount
from spendmesh_sidecar.core.router import Ceiling
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, ThresholdSpec
from spendmesh_sidecar.core.types import Hints, Shortfall


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """
    One limit, in its unit. Rights are this sidecar's; `amount` and below are the whole account's.

    The accounts of a divided limit are added up, since their values are nobody else's business: `amount` is that of
    one of them, and what is known of single ones is left out.
    """

    budget: str
    limit: str
    unit: str
    currency: str
    enforced: bool
    accounts: int
    """More than one only for a divided limit: values that were used here lately."""
    granted: int
    """Rights of all leases that are not closed, less what was given back."""
    used: int
    held: int
    free: int
    """The largest reservation that fits now; of a divided limit the sum over its accounts."""
    overrun: int
    would_block: int
    leases: int
    fenced: bool
    amount: int | None
    """None: the coordinator has not said yet."""
    settled: int | None
    crossed_percent: int
    max_tier: str
    max_output_tokens: int


class Clamp(Struct, frozen=True):
    """A maximum of output in force."""

    max_output_tokens: int
    budget: str
    """`namespace/name/limit`."""


def status(ledger: Ledger, now: float) -> tuple[AccountStatus, ...]:
    """All limits that a policy in force has, as far as there are accounts of them."""
    by_limit: dict[tuple[str, str], list[Account]] = {}
    for account in ledger.accounts.values():
        if account.limit is not None:
            by_limit.setdefault((account.ref.budget, account.ref.limit), []).append(account)
    return tuple(_status(accounts, now) for accounts in by_limit.values())


def _status(accounts: list[Account], now: float) -> AccountStatus:
    first = accounts[0]
    assert first.limit is not None
    divided = bool(first.limit.per)
    state = None if divided else first.state(now)
    leases = [lease for account in accounts for lease in account.leases.values() if not lease.superseded]
    return AccountStatus(
        budget=first.ref.budget,
        limit=first.ref.limit,
        unit=first.limit.unit,
        currency=first.limit.currency,
        enforced=first.enforced,
        accounts=len(accounts),
        granted=sum(lease.granted - lease.released for lease in leases),
        used=sum(lease.used for lease in leases) + sum(account.debt.unleased for account in accounts),
        held=sum(lease.held for lease in leases),
        free=sum(account.free(now) for account in accounts),
        overrun=sum(lease.overrun for lease in leases),
        would_block=sum(lease.would_block for lease in leases) + sum(account.debt.would_block for account in accounts),
        leases=len(leases),
        fenced=any(lease.fenced for lease in leases),
        amount=first.limit.amount if divided else state.amount if state else None,
        settled=first.settled(now) if state else None,
        crossed_percent=state.crossed_percent if state else 0,
        max_tier=state.max_tier if state else "",
        max_output_tokens=state.max_output_tokens if state else 0,
    )


def ceilings(
    ledger: Ledger, budgets: tuple[BudgetSpec, ...], now: float, hints: Hints = Hints()
) -> tuple[Ceiling, ...]:
    """
    Downgrades in force for a call with these hints: those that the coordinator says, and those that our own use since
    has reached.

    Ours can only be earlier: the coordinator also counts quarantined rights and other sidecars' use.
    """
    if not stepped(budgets):
        return ()
    found: list[Ceiling] = []
    for name, _, state, reached in _stages(ledger, budgets, now, hints):
        if state.max_tier:
            found.append(Ceiling(state.max_tier, name))
        if named := [step.max_tier for step in reached if step.max_tier]:
            found.append(Ceiling(named[-1], name))
    return tuple(found)


def clamp(ledger: Ledger, budgets: tuple[BudgetSpec, ...], now: float, subject: Subject) -> Clamp | None:
    """The tightest Clamp in force, as `ceilings`, of the limits that count the subject."""
    if not stepped(budgets):
        return None
    found = [
        Clamp(tokens, name)
        for name, limit, state, reached in _stages(ledger, budgets, now, subject.hints)
        if counts(limit, subject)
        for tokens in (state.max_output_tokens, *(step.max_output_tokens for step in reached))
        if tokens
    ]
    return min(found, key=lambda each: each.max_output_tokens, default=None)


def _stages(
    ledger: Ledger, budgets: tuple[BudgetSpec, ...], now: float, hints: Hints
) -> Iterator[tuple[str, LimitSpec, AccountState, list[ThresholdSpec]]]:
    """Enforced limits with thresholds of which something is known: name, limit, state, and the steps reached."""
    for budget, limit in stepped(budgets):
        account = ledger.find(account_ref(budget, limit, hints), now)
        state = account.state(now) if account else None
        if account is None or state is None:
            continue
        settled = account.settled(now)
        reached = [step for step in limit.thresholds if settled * 100 >= step.percent * state.amount]
        yield f"{budget}/{limit.name}", limit, state, reached


@once
def stepped(budgets: tuple[BudgetSpec, ...]) -> tuple[tuple[str, LimitSpec], ...]:
    """Budget's name and limit, of those that are enforced and have thresholds."""
    return tuple(
        (budget.name, limit)
        for budget in budgets
        if budget.mode == "Enforce"
        for limit in budget.limits
        if limit.thresholds
    )


def still_in_flight(ledger: Ledger, shortfalls: tuple[Shortfall, ...], now: float) -> tuple[Denial, ...]:
    """What a call hears whose rights went to others that were faster, each time that it asked."""
    accounts = ((lack.account, ledger.find(lack.account, now)) for lack in shortfalls)
    return tuple(
        Denial(account=ref, reason="in_flight", state=account.state(now) if account else None)
        for ref, account in accounts
    )


def tightest_left(
    ledger: Ledger,
    budgets: tuple[BudgetSpec, ...],
    now: float,
    hints: Hints = Hints(),
    subject: Subject | None = None,
) -> str:
    """
    `248.90 USD; team-a/team/monthly` for the enforced limit with the smallest share left to a call with these hints, of
    those that count `subject`; of all where nothing was sent.

    Empty when nothing is known: an answer that was not checked against a budget carries no figure.
    """
    best: tuple[int, int, str, LimitSpec] | None = None
    for budget, limit, undivided in _enforced(budgets):
        if subject is not None and (limit.models or limit.providers) and not counts(limit, subject):
            continue
        if undivided is not None:
            account = ledger.accounts.get(undivided)
        else:
            account = ledger.find(account_ref(budget, limit, hints), now)
        standing = account.standing(now) if account else None
        if standing is None:
            continue
        amount, settled = standing
        left = max(0, amount - settled)
        # left / amount compared without division: a/b < c/d is a*d < c*b
        if best is None or left * best[1] < best[0] * max(1, amount):
            best = left, max(1, amount), budget, limit
    if best is None:
        return ""
    left, _, budget, limit = best
    return f"{format_amount(left, limit)}; {budget}/{limit.name}"


@once
def _enforced(budgets: tuple[BudgetSpec, ...]) -> tuple[tuple[str, LimitSpec, AccountRef | None], ...]:
    """Budget's name and limit of those that are enforced, and the account where hints do not choose it."""
    return tuple(
        (budget.name, limit, None if limit.per else account_ref(budget.name, limit, Hints()))
        for budget in budgets
        if budget.mode == "Enforce"
        for limit in budget.limits
    )
