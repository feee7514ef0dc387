"""Requests checked before the books see them, and leases as their holders are told of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from spendmesh_operator.ledger.books.accounts import (
    MAX_AMOUNT,
    Account,
    BadRequest,
    Holder,
    Lease as HeldLease,
    LimitInForce,
)
from spendmesh_operator.ledger.books.partitions import as_asked
from spendmesh_sidecar.protocol import (
    MAX_WANTS,
    AccountRef,
    AccountState,
    AcquireRequest,
    Assigned,
    Lease,
    Want,
)

MAX_VALUE_BYTES = 512
"""Of a value that a limit is divided by: 128 characters, or 128 bytes where it is a header's."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
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
        for value in want.account.per:
            if len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES or _CONTROL.search(value):
                raise BadRequest(f"a value of per must be text of at most {MAX_VALUE_BYTES} bytes")


def check_name(field: str, value: str) -> None:
    """Raises BadRequest for an id or nonce that should not be stored or logged."""
    if not (0 < len(value) <= MAX_NAME_CHARS and value.isprintable()):
        raise BadRequest(f"{field} must be 1 to {MAX_NAME_CHARS} printable characters")


def ref_of(account: Account) -> AccountRef:
    """An account as sidecars name it."""
    key = account.key
    return AccountRef(budget=key.budget, limit=key.limit, per=as_asked(account.limit, key.per), override=key.override)


def assignments(account: Account, wants: Iterable[Want], now_ms: int) -> list[Assigned]:
    """
    What is to be told of wants that are counted on another account than they named.

    Of the running period only: the next one begins with room.
    """
    told, ends_in_ms = ref_of(account), max(0, account.end * 1000 - now_ms)
    elsewhere = (want for want in wants if want.account != told and want.period == "current")
    return [Assigned(asked=want.account, account=told, ends_in_ms=ends_in_ms) for want in elsewhere]


def lease_message(account: Account, lease: HeldLease, state: AccountState, now_ms: int) -> Lease:
    """A lease as its holder is told."""
    return Lease(
        id=lease.id,
        nonce=lease.holder.nonce,
        account=ref_of(account),
        unit=account.limit.unit,
        currency=account.limit.currency,
        granted=lease.granted,
        released=lease.released,
        starts_in_ms=max(0, account.key.start * 1000 - now_ms),
        ends_in_ms=max(0, account.end * 1000 - now_ms),
        survival=lease.survival,
        state=state,
    )


def closed_message(lease_id: str, holder: Holder, ref: AccountRef, in_force: LimitInForce) -> Lease:
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
