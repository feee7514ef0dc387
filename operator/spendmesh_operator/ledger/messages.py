"""Requests checked before the books see them, and leases as their holders are told of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from spendmesh_operator.ledger.accounts import MAX_AMOUNT, Account, BadRequest, Holder, Lease as HeldLease, LimitInForce
from spendmesh_operator.ledger.granting import Plan
from spendmesh_operator.ledger.holdings import Holdings
from spendmesh_operator.ledger.ladder import account_state
from spendmesh_sidecar.protocol import AccountRef, AccountState, AcquireReply, AcquireRequest, Denial, Lease, Want

MAX_WANTS = 64
"""Accounts of one request: a few budgets of a few limits each, in two periods."""
MAX_NAME_CHARS = 128
"""Of request ids and nonces: a ULID has 26, a UUID 36."""


def check_request(request: AcquireRequest, holder: Holder) -> None:
    """Raises BadRequest for a request that no books could answer."""
    check_name("id", request.id)
    check_name("nonce", holder.nonce)
    if not 1 <= len(request.wants) <= MAX_WANTS:
        raise BadRequest(f"{len(request.wants)} wants in one request; 1 to {MAX_WANTS} are read")
    if len({(want.account, want.period) for want in request.wants}) != len(request.wants):
        raise BadRequest("two wants on one account: add them up")
    for want in request.wants:
        if not (0 <= want.need <= MAX_AMOUNT and 0 <= want.want <= MAX_AMOUNT):
            raise BadRequest(f"need {want.need} and want {want.want} must be between 0 and 10^18")


def check_name(field: str, value: str) -> None:
    """Raises BadRequest for an id or nonce that should not be stored or logged."""
    if not (0 < len(value) <= MAX_NAME_CHARS and value.isprintable()):
        raise BadRequest(f"{field} must be 1 to {MAX_NAME_CHARS} printable characters")


def state_of(holdings: Holdings, account: Account, in_force: LimitInForce | None, now_ms: int) -> AccountState:
    """State of an account, with all that counts together with it."""
    return account_state(account, in_force, now_ms, holdings.beside(account))


def lease_message(
    holdings: Holdings,
    account: Account,
    lease: HeldLease,
    ref: AccountRef,
    in_force: LimitInForce | None,
    now_ms: int,
) -> Lease:
    """A lease as its holder is told."""
    return Lease(
        id=lease.id,
        nonce=lease.holder.nonce,
        account=ref,
        unit=account.limit.unit,
        currency=account.limit.currency,
        granted=lease.granted,
        released=lease.released,
        starts_in_ms=max(0, account.key.start * 1000 - now_ms),
        ends_in_ms=max(0, account.end * 1000 - now_ms),
        state=state_of(holdings, account, in_force, now_ms),
    )


def planned(holdings: Holdings, plans: Sequence[Plan], now_ms: int) -> tuple[Lease, ...]:
    """The answer to a request whose plans were booked."""
    return tuple(lease_message(holdings, each.account, each.lease, each.ref, each.in_force, now_ms) for each in plans)


def repeated(
    holdings: Holdings,
    holder: Holder,
    leases: Iterable[tuple[str, Want]],
    limits: Callable[[AccountRef], LimitInForce | None],
    now_ms: int,
) -> tuple[Lease, ...]:
    """The answer to a repeated request: its leases as they are now, without rights if they were closed since."""
    messages = []
    for lease_id, want in leases:
        account, in_force = holdings.account_of(lease_id), limits(want.account)
        if account is not None:
            lease = account.leases[lease_id]
            messages.append(lease_message(holdings, account, lease, want.account, in_force, now_ms))
        elif in_force is not None:
            messages.append(_closed_message(lease_id, holder, want.account, in_force))
    return tuple(messages)


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
        ref = AccountRef(budget=account.key.budget, limit=account.key.limit, per=account.key.per)
        if lease.holder.nonce == holder.nonce and not lease.quarantined and ref in asked:
            held.append(lease_message(holdings, account, lease, ref, limits(ref), now_ms))
    return AcquireReply(leases=tuple(held), denials=denials)


def _closed_message(lease_id: str, holder: Holder, ref: AccountRef, in_force: LimitInForce) -> Lease:
    """A closed lease, told to a late repetition of the request that opened it: it has no rights."""
    limit = in_force.limit
    state = AccountState(amount=limit.amount, settled=0, charged=0, resets_in_ms=0, observed=in_force.mode == "Observe")
    return Lease(
        id=lease_id,
        nonce=holder.nonce,
        account=ref,
        unit=limit.unit,
        currency=limit.currency,
        granted=0,
        ends_in_ms=0,
        state=state,
    )
