"""
What counts beside one account: nothing for a calendar period, the neighboring parts for a rolling window. Pure.

Any window of real time that has the length of a rolling window touches at most `ROLLING_PARTS` + 1 parts in a row. So
the amount is kept over every such row: then it holds at every instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from spendmesh_operator.ledger.accounts import Account, AccountKey
from spendmesh_operator.ledger.periods import ROLLING_PARTS, span_at
from spendmesh_sidecar.core.rights import meaning_of


@dataclass(frozen=True, slots=True)
class Beside:
    """Accounts of the same limit that count together with one account, in the limit's unit."""

    before: tuple[Account, ...] = ()
    """Of the window that ends with it: what has been spent within one length of the window."""
    charged: int = 0
    """The most that is charged in any row of parts with it, its own charge not included."""

    @property
    def settled(self) -> int:
        """Spent in the parts before."""
        return sum(account.settled for account in self.before)

    @property
    def quarantined(self) -> int:
        """Quarantined in the parts before."""
        return sum(account.totals.quarantined for account in self.before)


NOTHING = Beside()


def beside(accounts: Mapping[AccountKey, Account], account: Account) -> Beside:
    """What counts beside `account`, which need not be one of `accounts` yet."""
    if account.limit.window.type != "Rolling":
        return NOTHING
    seconds = account.end - account.key.start
    found: dict[int, Account] = {}
    for offset in range(-ROLLING_PARTS, ROLLING_PARTS + 1):
        other = accounts.get(replace(account.key, start=account.key.start + offset * seconds)) if offset else None
        if other is not None and meaning_of(other.limit) == meaning_of(account.limit):
            found[offset] = other
    charges = {offset: other.charged for offset, other in found.items()}
    rows = (range(first, first + ROLLING_PARTS + 1) for first in range(-ROLLING_PARTS, 1))
    return Beside(
        before=tuple(other for offset, other in sorted(found.items()) if offset < 0),
        charged=max(sum(charges.get(offset, 0) for offset in row) for row in rows) if charges else 0,
    )


def window_key(account: Account) -> AccountKey:
    """The same for all parts of a rolling window: who waits in one part waits for rights in its neighbors too."""
    return replace(account.key, start=0) if account.limit.window.type == "Rolling" else account.key


def frees_at(account: Account, others: Beside) -> int:
    """When (unix seconds) something comes free: the period's end, or that of the oldest part that is charged."""
    if account.limit.window.type != "Rolling":
        return account.end
    charged = (each for each in (*others.before, account) if each.charged)
    return min((each.counts_until for each in charged), default=account.end)


def running(accounts: Iterable[Account], now_ms: int) -> list[Account]:
    """
    Accounts whose period runs.

    Of a rolling window whose running part nobody has opened yet there is an empty draft, since older parts count.
    """
    now = now_ms // 1000
    found: dict[tuple[str, str, tuple[str, ...]], Account] = {}
    for account in sorted((each for each in accounts if not each.key.override), key=lambda each: each.key.start):
        name = (account.key.budget, account.key.limit, account.key.per)
        if account.key.start <= now < account.end:
            found[name] = account
        elif account.limit.window.type == "Rolling" and account.end <= now < account.counts_until:
            part = span_at(account.limit.window, now)
            draft = Account(replace(account.key, start=part.start), part.end, account.limit, account.mode)
            found.setdefault(name, draft)
    return list(found.values())
