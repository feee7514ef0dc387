"""
Which milestones people have not heard of yet, and that they have: both with the books, so that each is told once. Pure.

Who tells must read these through the coordinator's writer, which shows only what is durable.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from spendmesh_operator.ledger.accounts import Milestone
from spendmesh_operator.ledger.books import Books
from spendmesh_operator.ledger.views import AccountView, view_of


@dataclass(frozen=True, slots=True)
class Untold:
    """One milestone of an account as it is now; `name` as in `Account.milestones`."""

    view: AccountView
    name: str
    milestone: Milestone

    @property
    def id(self) -> str:
        """The same whoever tells it, after a restart too, and no other milestone's."""
        key = self.view.key
        parts = (key.domain, key.budget, key.limit, self.name, str(self.milestone.at_ms))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def untold(books: Books, now_ms: int) -> tuple[Untold, ...]:
    """What nobody has heard of. Accounts of one user or feature are left out: their values are not everybody's."""
    return tuple(
        Untold(view_of(account, books.holdings.beside(account), now_ms), name, milestone)
        for account in books.holdings.accounts.values()
        if not account.key.per
        for name, milestone in account.milestones.items()
        if not milestone.told
    )


def mark_told(books: Books, news: Untold) -> None:
    """People have heard it. Not so where it was left and reached again since."""
    account = books.holdings.accounts.get(news.view.key)
    if account is None:
        return
    known = account.milestones.get(news.name)
    if known is not None and known.at_ms == news.milestone.at_ms and not known.told:
        account.milestones[news.name] = replace(known, told=True)
        books.holdings.touch(account)
