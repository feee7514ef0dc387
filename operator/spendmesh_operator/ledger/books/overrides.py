"""
Overrides of a limit: an account of their own beside the limit's, drained first while its interval runs. Pure.

An override is known by its name, so deleting it and applying it again never resets what was spent on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec.structs import replace as with_changes

from spendmesh_operator.ledger.books.accounts import Account, AccountKey, LimitInForce
from spendmesh_operator.ledger.books.extra import NO_EXTRA, Extra
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_sidecar.core.ledger.rights import meaning_of
from spendmesh_sidecar.core.specs import LimitSpec, WindowSpec

_WINDOW = WindowSpec(period="Year")
"""Stands for an override's own interval: nothing else counts with it, whatever the limit's window is."""


def limit_of(limit: LimitSpec, override: str) -> LimitSpec | None:
    """The limit as an override's account has it; None if there is no such override (any more)."""
    if not override:
        return limit
    found = next((each for each in limit.overrides if each.name == override), None)
    return (
        with_changes(limit, amount=found.amount, thresholds=(), overrides=(), survival_percent=0)
        if found is not None
        else None
    )


def in_force_for(in_force: LimitInForce | None, override: str) -> LimitInForce | None:
    """What is in force for an account of a limit: its own, or an override's."""
    limit = limit_of(in_force.limit, override) if in_force is not None else None
    return replace(in_force, limit=limit) if in_force is not None and limit is not None else None


def overrides_of(holdings: Holdings, account: Account, in_force: LimitInForce | None, now_ms: int) -> list[Account]:
    """
    Accounts of the overrides that run now beside `account`, in the order in which they are drained: none beside one of
    a period to come. Without a policy, those that the books remember.

    One that nobody has used yet is a draft, which opens with its first lease. An override whose name had another
    interval that has not ended is left out: it would reset what was spent.
    """
    key, found = account.key, list[Account]()
    in_force = in_force or LimitInForce(account.limit, account.mode)
    for override in in_force.limit.overrides if key.start * 1000 <= now_ms else ():
        if key.override or not override.starts * 1000 <= now_ms < override.ends * 1000:
            continue
        own = replace(key, start=override.starts, override=override.name)
        extra, spec = holdings.accounts.get(own), in_force_for(in_force, override.name)
        assert spec is not None  # it is one of the limit's
        if extra is not None:
            if meaning_of(extra.limit) == meaning_of(spec.limit):
                holdings.refresh(extra, spec)
        elif _taken(holdings, own, now_ms):
            continue
        else:
            extra = Account(key=own, end=override.ends, limit=spec.limit, mode=spec.mode)
        same = extra.end == override.ends and meaning_of(extra.limit) == meaning_of(spec.limit)
        if own not in holdings.frozen and same:
            found.append(extra)
    return found


def extra_of(accounts: Sequence[Account]) -> Extra:
    """Sums over the accounts of overrides."""
    if not accounts:
        return NO_EXTRA
    return Extra(
        amount=sum(account.limit.amount for account in accounts),
        settled=sum(account.settled for account in accounts),
        charged=sum(account.charged for account in accounts),
        quarantined=sum(account.totals.quarantined for account in accounts),
        room=sum(max(0, account.remaining) for account in accounts),
    )


def _taken(holdings: Holdings, key: AccountKey, now_ms: int) -> bool:
    others = holdings.periods_of(key.budget, key.limit)
    same = (each for each in others if each.key.override == key.override and each.key.per == key.per)
    forgotten = holdings.forgotten_before.get(key.lineage, -1)
    return key.start <= forgotten or any(each.end * 1000 > now_ms and each.key.start != key.start for each in same)
