"""What people and sidecars are told about an account: amounts, the threshold it has reached, when it resets. Pure."""

from __future__ import annotations

from spendmesh_operator.ledger.accounts import Account, LimitInForce
from spendmesh_operator.ledger.rolling import NOTHING, Beside, frees_at
from spendmesh_sidecar.core.specs import LimitSpec
from spendmesh_sidecar.protocol import AccountState


def account_state(
    account: Account, in_force: LimitInForce | None, now_ms: int, others: Beside = NOTHING
) -> AccountState:
    """
    State of an account under a limit as one pod's policy has it (a Downgrade names a tier of that pod's routing).

    Without a policy the meaning that the books remember is used. `others` count with it in a rolling window.
    """
    limit = in_force.limit if in_force is not None else account.limit
    mode = in_force.mode if in_force is not None else account.mode
    settled = account.settled + others.settled
    spent = settled + account.totals.quarantined + others.quarantined
    return AccountState(
        amount=limit.amount,
        settled=settled,
        charged=account.charged + others.charged,
        max_tier=downgrade(limit, spent),
        max_output_tokens=clamp(limit, spent),
        crossed_percent=crossed_percent(limit, spent),
        resets_in_ms=max(0, frees_at(account, others) * 1000 - now_ms),
        observed=mode == "Observe",
    )


def crossed_percent(limit: LimitSpec, spent: int) -> int:
    """The highest threshold that `spent` (settled and quarantined) has reached; 100 when nothing is left."""
    if spent >= limit.amount:
        return 100
    return max((step.percent for step in limit.thresholds if _reached(step.percent, limit, spent)), default=0)


def downgrade(limit: LimitSpec, spent: int) -> str:
    """The dearest tier that is still allowed, by the last reached step that names one; empty: no Downgrade."""
    tier = ""
    for step in limit.thresholds:
        if step.max_tier and _reached(step.percent, limit, spent):
            tier = step.max_tier
    return tier


def clamp(limit: LimitSpec, spent: int) -> int:
    """The most output that a call may still ask for: the least of all reached steps that name one; 0: any."""
    named = (step.max_output_tokens for step in limit.thresholds if _reached(step.percent, limit, spent))
    return min((tokens for tokens in named if tokens), default=0)


def _reached(percent: int, limit: LimitSpec, spent: int) -> bool:
    return spent * 100 >= percent * limit.amount
