"""Accounts and leases as their holders are told of them, with what overrides add. Messages alone are `messages`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from spendmesh_operator.ledger.books.accounts import Account, Holder, Lease as HeldLease, LimitInForce
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.ladder import account_state
from spendmesh_operator.ledger.books.overrides import extra_of, in_force_for, overrides_of
from spendmesh_operator.ledger.coordinator.messages import assignments, closed_message, lease_message, ref_of
from spendmesh_sidecar.protocol import (
    AccountRef,
    AccountState,
    AcquireReply,
    AcquireRequest,
    Assigned,
    Denial,
    Lease,
    Want,
)


def state_of(holdings: Holdings, account: Account, in_force: LimitInForce | None, now_ms: int) -> AccountState:
    """An account's state together with the overrides that run beside it."""
    extra = extra_of(overrides_of(holdings, account, in_force, now_ms))
    return account_state(account, in_force, now_ms, holdings.beside(account), extra)


def told(holdings: Holdings, account: Account, lease: HeldLease, in_force: LimitInForce | None, now_ms: int) -> Lease:
    """A lease with its account's state."""
    return lease_message(account, lease, state_of(holdings, account, in_force, now_ms), now_ms)


def repeated(
    holdings: Holdings,
    holder: Holder,
    leases: Iterable[tuple[str, Want]],
    limits: Callable[[AccountRef], LimitInForce | None],
    now_ms: int,
) -> AcquireReply:
    """The answer to a repeated request: its leases as they are now, without rights if they were closed since."""
    messages: dict[str, Lease] = {}
    assigned: list[Assigned] = []
    for lease_id, want in leases:
        account, in_force = holdings.account_of(lease_id), limits(want.account)
        if account is not None:
            for each in (*overrides_of(holdings, account, in_force, now_ms), account):
                own = each.lease_of.get((holder.uid, holder.nonce))
                if own is not None:
                    own_terms = in_force_for(in_force, each.key.override)
                    messages[own] = told(holdings, each, each.leases[own], own_terms, now_ms)
            assigned += assignments(account, [want], now_ms)
        elif in_force is not None:
            messages[lease_id] = closed_message(lease_id, holder, want.account, in_force)
    return AcquireReply(leases=tuple(messages.values()), assigned=tuple(assigned))


def refused(
    holdings: Holdings,
    holder: Holder,
    request: AcquireRequest,
    denials: tuple[Denial, ...],
    limits: Callable[[AccountRef], LimitInForce | None],
    now_ms: int,
) -> AcquireReply:
    """
    A refusal, with the leases that the holder has on the accounts it asked for.

    An answer that it never heard may have brought them; it would be refused what it has already.
    """
    asked = {want.account for want in request.wants}
    held = []
    for account, lease in holdings.leases_of([holder.uid]):
        ref = ref_of(account).own
        if lease.holder.nonce == holder.nonce and not lease.quarantined and ref in asked:
            in_force = in_force_for(limits(ref), account.key.override)
            held.append(told(holdings, account, lease, in_force, now_ms))
    return AcquireReply(leases=tuple(held), denials=denials)
