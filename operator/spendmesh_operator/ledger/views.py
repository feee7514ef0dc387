"""An account as people see it: sums, holders and why some of it is quarantined. Pure; a copy that does not change."""

from __future__ import annotations

from dataclasses import dataclass

from spendmesh_operator.ledger.accounts import Account, AccountKey, Correction
from spendmesh_operator.ledger.ladder import account_state
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
    quarantined: str
    """Empty: the holder reports."""


@dataclass(frozen=True, slots=True)
class AccountView:
    """One limit in its running period, amounts in the limit's unit."""

    key: AccountKey
    end: int
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


def view_of(account: Account, now_ms: int) -> AccountView:
    """Copy what is to be seen of an account."""
    return AccountView(
        key=account.key,
        end=account.end,
        limit=account.limit,
        mode=account.mode,
        state=account_state(account, None, now_ms),
        held=account.charged - account.settled - account.totals.quarantined,
        quarantined=account.totals.quarantined,
        overrun=account.overrun,
        would_block=account.would_block,
        holders=tuple(
            HolderView(lease.holder.name, lease.rights, lease.used, lease.held, lease.quarantined)
            for lease in account.leases.values()
        ),
        corrections=tuple(account.corrections),
    )
