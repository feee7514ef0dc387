"""An account as people see it: sums, holders and why some of it is quarantined. Pure; a copy that does not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spendmesh_operator.ledger.books.accounts import Account, AccountKey, Correction, Milestone
from spendmesh_operator.ledger.books.extra import Extra
from spendmesh_operator.ledger.books.forecast import forecast
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.ladder import account_state
from spendmesh_operator.ledger.books.milestones import spent
from spendmesh_operator.ledger.books.overrides import extra_of, overrides_of
from spendmesh_operator.ledger.books.periods import counts_from
from spendmesh_operator.ledger.books.rolling import Beside, frees_at, running
from spendmesh_sidecar.core.specs import LimitSpec, Mode
from spendmesh_sidecar.protocol import AccountState


@dataclass(frozen=True, slots=True)
class HolderView:
    """One lease."""

    pod: str
    """`namespace/name`."""
    rights: int
    used: int
    held: int
    charge: int
    """What counts against the limit."""
    quarantined: str
    """Empty: the holder reports."""


@dataclass(frozen=True, slots=True)
class AccountView:
    """One limit in its running period, amounts in the limit's unit; overrides that run now are in all sums."""

    key: AccountKey
    since: int
    """Unix seconds: start of the period, or of a rolling window."""
    end: int
    """Unix seconds: end of the period, or when something of a rolling window comes free."""
    counts_until: int
    """Unix seconds: when nothing of what it holds now counts any more."""
    limit: LimitSpec
    mode: Mode
    state: AccountState
    held: int
    """Charged but neither settled nor quarantined: rights in the hands of holders."""
    quarantined: int
    overrun: int
    would_block: int
    holders: tuple[HolderView, ...]
    corrections: tuple[Correction, ...]
    milestones: Mapping[str, Milestone]
    forecast: int | None
    """Spend at the period's end, if it goes on as it does."""


def views_of(holdings: Holdings, now_ms: int) -> tuple[AccountView, ...]:
    """All accounts that count now."""
    return tuple(
        view_of(account, holdings.beside(account), now_ms, overrides_of(holdings, account, None, now_ms))
        for account in running(holdings.accounts.values(), now_ms)
    )


def view_of(account: Account, others: Beside, now_ms: int, overrides: Sequence[Account] = ()) -> AccountView:
    """Copy what is to be seen of an account, of those that count with it, and of the overrides that run now."""
    parts = (*others.before, account, *overrides)
    settled = sum(part.settled for part in parts)
    quarantined = sum(part.totals.quarantined for part in parts)
    return AccountView(
        key=account.key,
        since=counts_from(account.limit.window, account.span),
        end=frees_at(account, others),
        counts_until=account.counts_until,
        limit=account.limit,
        mode=account.mode,
        state=account_state(account, None, now_ms, others, extra_of(overrides)),
        held=sum(part.charged for part in parts) - settled - quarantined,
        quarantined=quarantined,
        overrun=sum(part.overrun for part in parts),
        would_block=sum(part.would_block for part in parts),
        holders=tuple(
            HolderView(lease.holder.name, lease.rights, lease.used, lease.held, lease.charge, lease.quarantined)
            for part in parts
            for lease in part.leases.values()
        ),
        corrections=tuple(correction for part in parts for correction in part.corrections),
        milestones=dict(account.milestones),
        forecast=_forecast(account, extra_of(overrides), now_ms),
    )


def _forecast(account: Account, extra: Extra, now_ms: int) -> int | None:
    """None for a rolling window, which has no end. The pace is the limit's own: what overrides add has a time."""
    if account.limit.window.type == "Rolling":
        return None
    return forecast(spent(account, extra=extra), account.pace, account.key.start * 1000, account.end * 1000, now_ms)
