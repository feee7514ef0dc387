"""Leases on the sample account, as the coordinator tells them."""

from __future__ import annotations

from exchange_world import MONTH, USD
from spendmesh_sidecar.core.ledger.charges import Charge
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Lease

HOUR = 3_600_000
"""In milliseconds."""


def state(**changes: object) -> AccountState:
    """The account as a whole: ten dollars, of which nothing is spent."""
    parts = {"amount": 10 * USD, "settled": 0, "charged": 0, "resets_in_ms": HOUR}
    return AccountState(**{**parts, **changes})  # type: ignore[arg-type]


def lease(granted: int, **changes: object) -> Lease:
    """Rights of the holder `me` for an hour."""
    parts: dict[str, object] = {
        "id": "one",
        "nonce": "me",
        "account": MONTH,
        "unit": "Cost",
        "currency": "USD",
        "granted": granted,
        "ends_in_ms": HOUR,
        "state": state(),
    }
    return Lease(**{**parts, **changes})  # type: ignore[arg-type]


def charge(amount: int, account: AccountRef = MONTH) -> tuple[Charge, ...]:
    """One enforced charge of so many nano-dollars."""
    return (Charge(account, "Cost", amount),)
