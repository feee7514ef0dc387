"""
Which milestones people have not heard of yet, and that they have: both with the books, so that each is told once. Pure.

Of a divided limit each value is told of by name where names of the cluster are its values (namespaces, workloads), so
that there are as many as those. Of what requests say (users, features, headers), of pods and of their labels, the first
value that gets there speaks for all, and is not named.

Who tells must read these through the coordinator's writer, which shows only what is durable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final

from spendmesh_operator.ledger.books.accounts import Account, Milestone
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.rolling import window_key
from spendmesh_operator.ledger.books.views import AccountView, view_of

NAMED: Final = frozenset({"Namespace", "Workload"})
"""What a limit is divided by, if its values are told by name."""


@dataclass(frozen=True, slots=True)
class Untold:
    """One milestone of an account as it is now; `name` as in `Account.milestones`."""

    view: AccountView
    name: str
    milestone: Milestone

    @property
    def value(self) -> str:
        """For people: the value of a divided limit; empty for one that is not told, and for an undivided limit."""
        return " ".join(self.view.key.per) if all(part.type in NAMED for part in self.view.limit.per) else ""

    @property
    def id(self) -> str:
        """The same whoever tells it, after a restart too, and no other milestone's."""
        key = self.view.key
        values = [self.value] if self.value else []
        parts = (key.domain, key.budget, key.limit, *values, self.name, str(self.milestone.at_ms))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def untold(books: Books, now_ms: int) -> tuple[Untold, ...]:
    """What nobody has heard of."""
    together: dict[tuple[str, Hashable], list[tuple[Account, Milestone]]] = {}
    for account in books.holdings.accounts.values():
        for name, milestone in account.milestones.items():
            together.setdefault((name, _voice(account, milestone)), []).append((account, milestone))
    found = []
    for (name, _), reached in together.items():
        if not any(milestone.told for _, milestone in reached):
            account, milestone = min(reached, key=lambda each: (each[1].at_ms, each[0].key))
            found.append(Untold(view_of(account, books.holdings.beside(account), now_ms), name, milestone))
    return tuple(found)


def mark_told(books: Books, news: Untold) -> None:
    """People have heard it, of all that it spoke for. Not so where it was left and reached again since."""
    account = books.holdings.accounts.get(news.view.key)
    known = account.milestones.get(news.name) if account is not None else None
    if account is None or known is None or known.at_ms != news.milestone.at_ms or known.told:
        return
    for other in books.holdings.periods_of(account.key.budget, account.key.limit):
        reached = other.milestones.get(news.name)
        if reached is not None and not reached.told and _voice(other, reached) == _voice(account, known):
            other.milestones[news.name] = replace(reached, told=True)
            books.holdings.touch(other)


def _voice(account: Account, milestone: Milestone) -> Hashable:
    """The same for all that one telling speaks for: values of one period that reached a step of the same amount."""
    if all(part.type in NAMED for part in account.limit.per):
        return account.key
    return replace(window_key(account), per=()), milestone.amount
