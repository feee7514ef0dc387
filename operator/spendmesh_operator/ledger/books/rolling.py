"""
What counts beside one account: nothing for a calendar period, the neighboring parts for a rolling window. Pure.

Any window of real time that has the length of a rolling window touches at most `ROLLING_PARTS` + 1 parts in a row. So
the amount is kept over every such row: then it holds at every instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from spendmesh_operator.ledger.books.accounts import Account, AccountKey
from spendmesh_operator.ledger.books.periods import ROLLING_PARTS, span_at
from spendmesh_sidecar.core.ledger.rights import meaning_of


@dataclass(frozen=True, slots=True)
class Beside:
    """Accounts of the same limit that count together with one account, in the limit's unit."""

    before: tuple[Account, ...] = ()
    """Of the window that ends with it: what has been spent within one length of the window."""
    charged: int = 0
    """The most that is charged in any row of parts with it, its own charge not included."""
    followed_at: int = 0
    """Unix seconds, of a part of a rolling window: when the next part that is open begins, or it counts no more."""

    def at(self, now_ms: int) -> Beside:
        """Without the parts that have left the window by now, where no part of it runs that is open."""
        return replace(self, before=tuple(each for each in self.before if now_ms < each.counts_until * 1000))

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
    key, seconds = account.key, account.end - account.key.start
    before: list[Account] = []
    charges: list[int] = []
    followed_at = account.counts_until
    for start in range(key.start - ROLLING_PARTS * seconds, key.start + (ROLLING_PARTS + 1) * seconds, seconds):
        other = accounts.get(AccountKey(key.domain, key.budget, key.limit, key.per, start, key.override))
        if other is None or start == key.start or meaning_of(other.limit) != meaning_of(account.limit):
            charges.append(0)
            continue
        charges.append(other.charged)
        if start < key.start:
            before.append(other)
        else:
            followed_at = min(followed_at, start)
    return Beside(tuple(before), _most_in_a_row(charges), followed_at)


def _most_in_a_row(charges: list[int]) -> int:
    """Of `ROLLING_PARTS` + 1 neighbors."""
    most = row = sum(charges[: ROLLING_PARTS + 1])
    for left, joins in zip(charges, charges[ROLLING_PARTS + 1 :], strict=False):
        row += joins - left
        most = max(most, row)
    return most


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
