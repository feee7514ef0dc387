"""From the books' accounts to the limits of one budget's status; one that nobody has used yet shows as zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from spendmesh_operator.ledger.accounts import meaning_of
from spendmesh_operator.ledger.milestones import QUARANTINE
from spendmesh_operator.ledger.periods import counts_from, span_at
from spendmesh_operator.ledger.views import AccountView
from spendmesh_operator.status.model import LimitView
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec


def limit_views(budget: BudgetSpec, accounts: Iterable[AccountView], now: datetime) -> tuple[LimitView, ...]:
    """Every limit of `budget` in its running period. Raises UnknownZone."""
    mine = [account for account in accounts if account.key.budget == budget.name]
    return tuple(_view(limit, [each for each in mine if each.key.limit == limit.name], now) for limit in budget.limits)


def _view(limit: LimitSpec, accounts: Sequence[AccountView], now: datetime) -> LimitView:
    others = [account for account in accounts if meaning_of(account.limit) != meaning_of(limit)]
    if others:
        # Contract §4: the books grant nothing under this name before the other meaning's period has ended.
        return replace(
            _unused(limit, now), taken_until=datetime.fromtimestamp(max(each.counts_until for each in others), UTC)
        )
    return used_view(limit, accounts[0]) if accounts else _unused(limit, now)


def used_view(limit: LimitSpec, account: AccountView) -> LimitView:
    """A limit as the books have it."""
    return LimitView(
        name=limit.name,
        unit=limit.unit,
        currency=limit.currency,
        amount=limit.amount,
        period=period_name(limit.window),
        settled=account.state.settled,
        quarantined=account.quarantined,
        held=account.held,
        period_start=datetime.fromtimestamp(account.since, UTC),
        resets_at=datetime.fromtimestamp(account.end, UTC),
        crossed_percent=account.state.crossed_percent,
        max_tier=account.state.max_tier,
        max_output_tokens=account.state.max_output_tokens,
        quarantine_alert=QUARANTINE in account.milestones,
    )


def period_name(window: WindowSpec) -> str:
    """For people: `Month`, or `Rolling 24h`."""
    if window.period is not None:
        return window.period
    minutes, seconds = divmod(window.duration_seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if count)
    return f"Rolling {''.join(parts)}"


def _unused(limit: LimitSpec, now: datetime) -> LimitView:
    span = span_at(limit.window, int(now.timestamp()))
    return LimitView(
        name=limit.name,
        unit=limit.unit,
        currency=limit.currency,
        amount=limit.amount,
        period=period_name(limit.window),
        settled=0,
        quarantined=0,
        held=0,
        period_start=datetime.fromtimestamp(counts_from(limit.window, span), UTC),
        resets_at=datetime.fromtimestamp(span.end, UTC),
    )
