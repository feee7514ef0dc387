"""The bill of a budget as data: the same sums as in its status, exact and complete. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation

import msgspec

from spendmesh_operator.ledger.books.accounts import BadRequest
from spendmesh_operator.ledger.books.views import AccountView
from spendmesh_operator.status.books import limit_views
from spendmesh_operator.status.budget import timestamp
from spendmesh_operator.status.model import LimitView
from spendmesh_sidecar.core.prices.money import NANOS_PER_UNIT
from spendmesh_sidecar.core.specs import BudgetSpec, Unit

HOLDERS_BILLED = 1000


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the quarantined sum."""

    reason: str
    amount: str


class BilledHolder(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pod with rights; `held` is what is charged beyond `used`."""

    pod: str
    used: str
    held: str
    state: str


class BilledCorrection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One correction."""

    reference: str
    amount: str
    evidence: str
    time: str


class BillLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """
    One limit, or one value of a partitioned one, in its running period. Amounts are exact decimals in the limit's unit.

    `used` is settled and quarantined; `remaining` can still be granted; `forecast` is empty where it is too early.
    """

    budget: str
    limit: str
    per: tuple[str, ...]
    mode: str
    unit: str
    currency: str
    period: str
    period_start: str
    resets_at: str
    amount: str
    used: str
    held: str
    quarantined: str
    remaining: str
    percent: int
    forecast: str
    stage: str
    quarantine: tuple[Part, ...]
    holder_count: int
    holders: tuple[BilledHolder, ...]
    corrections: tuple[BilledCorrection, ...]


class Bill(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All lines that were asked for, by budget and limit."""

    at: str
    lines: tuple[BillLine, ...]


def bill(budgets: Mapping[str, BudgetSpec], accounts: Iterable[AccountView], now: datetime) -> Bill:
    """The bill of these budgets by `namespace/name`."""
    found = sorted(accounts, key=lambda account: account.key)
    lines: list[BillLine] = []
    for name, budget in sorted(budgets.items()):
        for limit in sorted(budget.limits, key=lambda limit: limit.name):
            alone = msgspec.structs.replace(budget, limits=(limit,))
            mine = [one for one in found if (one.key.budget, one.key.limit) == (name, limit.name)]
            for accounts_of_line in [[one] for one in mine] or [[]]:
                (view,) = limit_views(alone, accounts_of_line, now, HOLDERS_BILLED)
                per = accounts_of_line[0].key.per if accounts_of_line else ()
                lines.append(_line(name, budget.mode, per, view))
    return Bill(at=timestamp(now), lines=tuple(lines))


def _line(budget: str, mode: str, per: tuple[str, ...], view: LimitView) -> BillLine:
    def text(amount: int) -> str:
        return exact_text(amount, view.unit)

    return BillLine(
        budget=budget,
        limit=view.name,
        per=per,
        mode=mode,
        unit=view.unit,
        currency=view.currency,
        period=view.period,
        period_start=timestamp(view.period_start),
        resets_at=timestamp(view.resets_at),
        amount=text(view.amount),
        used=text(view.used),
        held=text(view.held),
        quarantined=text(view.quarantined),
        remaining=text(max(0, view.amount - view.used - view.held)),
        percent=view.percent,
        forecast="" if view.forecast is None else text(view.forecast),
        stage=view.stage,
        quarantine=tuple(Part(reason=reason, amount=text(amount)) for reason, amount in view.quarantine),
        holder_count=view.holder_count,
        holders=tuple(
            BilledHolder(pod=each.pod, used=text(each.used), held=text(each.held), state=each.state)
            for each in view.holders
        ),
        corrections=tuple(
            BilledCorrection(
                reference=each.reference, amount=text(each.amount), evidence=each.evidence, time=timestamp(each.at)
            )
            for each in view.corrections
        ),
    )


def exact_text(amount: int, unit: Unit) -> str:
    """An amount of the books as people write it: at least two decimals for money, never rounded."""
    if unit != "Cost":
        return str(amount)
    whole, fraction = divmod(abs(amount), NANOS_PER_UNIT)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{'-' if amount < 0 else ''}{whole}.{digits:0<2}"


def exact_amount(text: str, unit: Unit) -> int:
    """The inverse of `exact_text`. Raises BadRequest for anything that the books cannot count."""
    try:
        amount = Decimal(text) * (NANOS_PER_UNIT if unit == "Cost" else 1)
        if not amount.is_finite() or amount != int(amount) or abs(amount) > NANOS_PER_UNIT**2:
            raise InvalidOperation
    except InvalidOperation:
        example = "-1.25, with at most nine decimals" if unit == "Cost" else "-12, a whole number"
        raise BadRequest(f"amount {text[:40]!r} cannot be counted: write for example {example}") from None
    return int(amount)
