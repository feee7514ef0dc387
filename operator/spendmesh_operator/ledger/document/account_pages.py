"""
One page of an account as a section of the stored books, and back. Pure.

A page is durable on its own: it says which account it is of, and what the leases that were closed in it came to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from spendmesh_operator.ledger.books.accounts import Account, AccountKey, Closed
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.document import records

Document = dict[str, Any]


def section_name(key: AccountKey, page: int) -> str:
    """Name of one page of an account. A hash, so that any namespace, limit and value gives a short plain name."""
    own = [key.override] if key.override else []
    text = json.dumps([key.budget, key.limit, key.per, key.start, *own])
    return f"account/{hashlib.sha256(text.encode()).hexdigest()[:24]}/{page}"


def encode_page(account: Account, page: int) -> Document:
    """One page: its leases and what those that were closed in it came to; page 0 has what is said of the account."""
    return {
        "budget": account.key.budget,
        "limit": account.key.limit,
        "per": list(account.key.per),
        "start": account.key.start,
        "end": account.end,
        "mode": account.mode,
        **({"openedBy": account.opened_by} if account.opened_by else {}),
        **({"override": account.key.override} if account.key.override else {}),
        "spec": records.encode_limit(account.limit),
        **records.encode_closed(account.closed.get(page, Closed())),
        "takenBack": str(account.taken_back if page == 0 else 0),
        "corrections": [records.encode_correction(each) for each in account.corrections if page == 0],
        **_settled_here(account, page),
        "pace": records.encode_pace(account.pace if page == 0 else None),
        "milestones": records.encode_milestones(account.milestones if page == 0 else {}),
        "leases": [records.encode_lease(account.leases[lease]) for lease in account.pages.keys(page)],
    }


def _settled_here(account: Account, page: int) -> Document:
    """Under a name of its own: an operator of an earlier version would count a second copy among `corrections`."""
    copies = [records.encode_correction(each) for each in account.corrections if each.stored_in(page)]
    return {"settlements": copies} if copies else {}


def read_page(books: Books, page: int, document: Document, name: str) -> None:
    """
    The opposite of `encode_page`. Pages come in order; the first one that is there says what the limit is.

    Raises ValueError, and what `records` raises, for a page that is damaged.
    """
    key = AccountKey(
        books.domain,
        document["budget"],
        document["limit"],
        tuple(document["per"]),
        int(document["start"]),
        document.get("override", ""),
    )
    if section_name(key, page) != name:
        raise ValueError(f"section {name!r} holds another account's page")
    account = books.holdings.accounts.get(key)
    if account is None:
        limit, mode = records.decode_limit(document["spec"]), records.decode_mode(document["mode"])
        opened_by = document.get("openedBy", "")
        account = Account(key=key, end=int(document["end"]), limit=limit, mode=mode, opened_by=opened_by)
        books.holdings.add_account(account)
    account.pages.reach(page)
    account.closed[page] = records.decode_closed(document)
    account.taken_back += records.amount(document["takenBack"])
    corrections = [records.decode_correction(each) for each in document["corrections"]]
    copies = [records.decode_correction(each) for each in document.get("settlements", ())]
    account.corrections += [each for each in (*corrections, *copies) if each not in account.corrections]
    account.pace = account.pace or records.decode_pace(document.get("pace"))
    account.milestones |= records.decode_milestones(document.get("milestones", {}))
    for entry in document["leases"]:
        lease = records.decode_lease(entry)
        if books.holdings.account_of(lease.id) is not None:
            raise ValueError(f"lease {lease.id!r} is in two pages")
        account.pages.place(lease.id, page)
        books.holdings.put(account, lease)


def stored_references(sections: Mapping[str, Document], account: Account) -> set[str]:
    """References of the corrections that page 0 has."""
    first = sections.get(section_name(account.key, 0), {})
    return {each["reference"] for each in first.get("corrections", ())}
