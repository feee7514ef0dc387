"""
The books of format 1: one document for all. Only read, to be written as sections by the next commit. Pure.

Stores hand it over as the one section `books`.
"""

from __future__ import annotations

from typing import Any, Final

from spendmesh_operator.ledger.books.accounts import Account, AccountKey
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.document import records

FORMAT: Final = 1
SECTION: Final = "books"


def decode(document: dict[str, Any], domain: str) -> Books:
    """Raises what `records` raises for a damaged document, and KeyError for one with a part missing."""
    books = Books(domain)
    records.read_head(books, document)
    books.superseded = frozenset({SECTION})
    books.remember({each["name"]: records.decode_budget(each) for each in document["remembered"]}, ())
    for entry in document["forgottenBefore"]:
        name = entry["budget"], entry["limit"]
        books.holdings.forgotten_before[name] = int(entry["start"])
        books.holdings.forgotten_pages.note(name)
    for entry in document["accounts"]:
        books.holdings.add_account(_account(entry, domain))
    for uid, entry in document["pods"].items():
        books.pods.restore(uid, records.decode_pod(entry))
    return books


def _account(entry: dict[str, Any], domain: str) -> Account:
    account = Account(
        key=AccountKey(domain, entry["budget"], entry["limit"], tuple(entry["per"]), int(entry["start"])),
        end=int(entry["end"]),
        limit=records.decode_limit(entry["spec"]),
        mode=records.decode_mode(entry["mode"]),
        closed={0: records.decode_closed(entry)},
        taken_back=records.amount(entry.get("takenBack", "0")),
        corrections=[records.decode_correction(each) for each in entry["corrections"]],
    )
    for each in entry["leases"]:
        account.put(records.decode_lease(each))
    return account
