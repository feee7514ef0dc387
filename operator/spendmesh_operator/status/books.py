"""From the books' accounts to the limits of one budget's status; a limit that nobody has used yet shows as zero."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from spendmesh_operator.ledger.periods import period_at
from spendmesh_operator.ledger.views import AccountView
from spendmesh_operator.status.model import LimitView
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec


def limit_views(budget: BudgetSpec, accounts: Iterable[AccountView], now: datetime) -> tuple[LimitView, ...]:
    """Every limit of `budget` in its running period. Raises UnknownZone."""
    known = {account.key.limit: account for account in accounts if account.key.budget == budget.name}
    return tuple(
        _used(limit, known[limit.name]) if limit.name in known else _unused(limit, now) for limit in budget.limits
    )


def _used(limit: LimitSpec, account: AccountView) -> LimitView:
    return LimitView(
        name=limit.name,
        unit=limit.unit,
        currency=limit.currency,
        amount=limit.amount,
        period=limit.window.period,
        settled=account.state.settled,
        quarantined=account.quarantined,
        held=account.held,
        period_start=datetime.fromtimestamp(account.key.start, UTC),
        resets_at=datetime.fromtimestamp(account.end, UTC),
        crossed_percent=account.state.crossed_percent,
        max_tier=account.state.max_tier,
    )


def _unused(limit: LimitSpec, now: datetime) -> LimitView:
    span = period_at(limit.window.period, limit.window.time_zone, int(now.timestamp()))
    return LimitView(
        name=limit.name,
        unit=limit.unit,
        currency=limit.currency,
        amount=limit.amount,
        period=limit.window.period,
        settled=0,
        quarantined=0,
        held=0,
        period_start=datetime.fromtimestamp(span.start, UTC),
        resets_at=datetime.fromtimestamp(span.end, UTC),
    )
