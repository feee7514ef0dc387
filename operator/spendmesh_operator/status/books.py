"""From the books' accounts to the limits of one budget's status; one that nobody has used yet shows as zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from spendmesh_operator.ledger.books.accounts import Correction
from spendmesh_operator.ledger.books.milestones import QUARANTINE
from spendmesh_operator.ledger.books.periods import counts_from, span_at
from spendmesh_operator.ledger.books.views import AccountView, HolderView
from spendmesh_operator.status.model import CorrectionLine, HolderLine, LimitView
from spendmesh_sidecar.core.ledger.rights import meaning_of
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec

HOLDERS_SHOWN: Final = 10
CORRECTIONS_SHOWN: Final = 5
"""In a status, which every watcher reads: the rest is in `spendmesh report`."""
QUARANTINE_WORDS: Final = {
    "silent": "Silent",
    "gone": "PodDeleted",
    "replaced": "LogLost",
    "fork": "StateCopied",
    "breach": "RightsExceeded",
}
"""Reasons of quarantine for people."""


def limit_views(
    budget: BudgetSpec, accounts: Iterable[AccountView], now: datetime, shown: int = HOLDERS_SHOWN
) -> tuple[LimitView, ...]:
    """Every limit of `budget` in its running period, with at most `shown` holders each. Raises UnknownZone."""
    mine = [account for account in accounts if account.key.budget == budget.name]
    return tuple(
        _view(limit, [each for each in mine if each.key.limit == limit.name], now, shown) for limit in budget.limits
    )


def _view(limit: LimitSpec, accounts: Sequence[AccountView], now: datetime, shown: int) -> LimitView:
    others = [account for account in accounts if meaning_of(account.limit) != meaning_of(limit)]
    if others:
        # Contract §4: the books grant nothing under this name before the other meaning's period has ended.
        return replace(
            _unused(limit, now), taken_until=datetime.fromtimestamp(max(each.counts_until for each in others), UTC)
        )
    if not accounts:
        return _unused(limit, now)
    fullest = max(accounts, key=_fullness)
    view = replace(used_view(limit, fullest, shown), quarantine_alert=max(map(_alerting, accounts)))
    return replace(view, values=len(accounts) if limit.per else 0)


def _fullness(account: AccountView) -> int:
    """Of the accounts of a divided limit the fullest is shown; whose it is, is nobody else's business."""
    return account.state.settled + account.quarantined


def _alerting(account: AccountView) -> int:
    return account.quarantined if QUARANTINE in account.milestones else 0


def used_view(limit: LimitSpec, account: AccountView, shown: int = HOLDERS_SHOWN) -> LimitView:
    """A limit as the books have it, with those who hold most of it."""
    holders = sorted(account.holders, key=lambda holder: (holder.used - holder.charge, holder.pod))
    return LimitView(
        name=limit.name,
        unit=limit.unit,
        currency=limit.currency,
        amount=account.state.amount,
        period=period_name(limit.window),
        settled=account.state.settled,
        quarantined=account.quarantined,
        held=account.held,
        period_start=datetime.fromtimestamp(account.since, UTC),
        resets_at=datetime.fromtimestamp(account.end, UTC),
        crossed_percent=account.state.crossed_percent,
        max_tier=account.state.max_tier,
        max_output_tokens=account.state.max_output_tokens,
        quarantine_alert=_alerting(account),
        forecast=account.forecast,
        holders=tuple(_holder_line(holder) for holder in holders[:shown]),
        holder_count=len({holder.pod for holder in holders}),
        quarantine=_by_reason(account.holders),
        corrections=tuple(_correction_line(each) for each in reversed(account.corrections[-CORRECTIONS_SHOWN:])),
    )


def period_name(window: WindowSpec) -> str:
    """For people: `Month`, or `Rolling 24h`."""
    if window.period is not None:
        return window.period
    minutes, seconds = divmod(window.duration_seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if count)
    return f"Rolling {''.join(parts)}"


def _holder_line(holder: HolderView) -> HolderLine:
    state = QUARANTINE_WORDS[holder.quarantined] if holder.quarantined else "Reporting"
    return HolderLine(holder.pod, holder.used, holder.charge - holder.used, state)


def _by_reason(holders: Iterable[HolderView]) -> tuple[tuple[str, int], ...]:
    sums: dict[str, int] = {}
    for holder in holders:
        if holder.quarantined:
            word = QUARANTINE_WORDS[holder.quarantined]
            sums[word] = sums.get(word, 0) + holder.charge
    return tuple(sorted(sums.items()))


def _correction_line(correction: Correction) -> CorrectionLine:
    at = datetime.fromtimestamp(correction.at_ms // 1000, UTC)
    return CorrectionLine(correction.reference, correction.delta, correction.evidence, at)


def _unused(limit: LimitSpec, now: datetime) -> LimitView:
    at = int(now.timestamp())
    span = span_at(limit.window, at)
    return LimitView(
        name=limit.name,
        unit=limit.unit,
        currency=limit.currency,
        amount=limit.amount + sum(each.amount for each in limit.overrides if each.starts <= at < each.ends),
        period=period_name(limit.window),
        settled=0,
        quarantined=0,
        held=0,
        period_start=datetime.fromtimestamp(counts_from(limit.window, span), UTC),
        resets_at=datetime.fromtimestamp(span.end, UTC),
    )
