"""What people and sidecars are told about an account: amounts, the threshold it has reached, when it resets. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from spendmesh_operator.ledger.books.accounts import Account, LimitInForce
from spendmesh_operator.ledger.books.extra import NO_EXTRA, Extra
from spendmesh_operator.ledger.books.milestones import spent, stands
from spendmesh_operator.ledger.books.rolling import NOTHING, Beside, frees_at
from spendmesh_sidecar.protocol import AccountState


def account_state(
    account: Account,
    in_force: LimitInForce | None,
    now_ms: int,
    others: Beside = NOTHING,
    extra: Extra = NO_EXTRA,
) -> AccountState:
    """
    State of an account under a limit as one pod's policy has it (a Downgrade names a tier of that pod's routing), with
    what overrides add to it now: steps are reached by all that was spent, of all that may be.

    Without a policy the meaning that the books remember is used. `others` count with it in a rolling window. The last
    standing step that names a tier gives it; exhaustion is what is true now, since rights that leave quarantine can be
    spent again.
    """
    limit = in_force.limit if in_force is not None else account.limit
    mode = in_force.mode if in_force is not None else account.mode
    if extra.amount:
        limit = replace(limit, amount=limit.amount + extra.amount)
    used = spent(account, others, extra)
    standing = [step for step in limit.thresholds if stands(account, limit, step.percent, used)]
    return AccountState(
        amount=limit.amount,
        settled=account.settled + others.settled + extra.settled,
        charged=account.charged + others.charged + extra.charged,
        survival=account.totals.survival,
        max_tier=next((step.max_tier for step in reversed(standing) if step.max_tier), ""),
        max_output_tokens=min((step.max_output_tokens for step in standing if step.max_output_tokens), default=0),
        crossed_percent=100 if used >= limit.amount else max((step.percent for step in standing), default=0),
        resets_in_ms=max(0, frees_at(account, others) * 1000 - now_ms),
        observed=mode == "Observe",
    )
