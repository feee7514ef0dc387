"""
The books as named sections of JSON, and back. Pure.

    head                 format, domain, epoch, the number of the next lease, and what time it is believed to be
    forgotten/<n>        newest period that was dropped, of each limit
    budgets/<n>          budgets as they were last valid
    pods/<n>             records of pods
    account/<id>/<n>     one page of an account: leases, and the totals of the leases that were closed in it

Each section is safe on its own: of a commit some may be stored and others not, and still nothing that was charged
and is not settled counts less. A lease stays in its page, and closing it adds to the totals of that page.
What is missing or unreadable raises `LedgerUnreadable`: damage must never be read as "nothing spent".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from spendmesh_operator.ledger.books.accounts import Account, LedgerError
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.correcting import complete_settlements
from spendmesh_operator.ledger.books.lives import grant, number_of
from spendmesh_operator.ledger.document import format_one, records
from spendmesh_operator.ledger.document.account_pages import (
    Document as Document,
    encode_page,
    read_page,
    section_name as section_name,
    stored_references,
)
from spendmesh_operator.ledger.document.moves import why_not_read
from spendmesh_operator.ledger.document.records import HEAD
from spendmesh_sidecar.core.specs import BudgetSpec

FORMAT: Final = 2


class LedgerUnreadable(LedgerError):
    """The stored books are damaged, or of a newer version: nothing is granted until a person has looked."""


@dataclass(frozen=True)
class Changes:
    """Sections to write, in the order in which they must become durable, and sections to remove after them."""

    put: Mapping[str, Document]
    drop: frozenset[str]


def encode(books: Books) -> dict[str, Document]:
    """All sections."""
    sections = [_head(books)]
    sections += _forgotten(books, range(len(books.holdings.forgotten_pages)))
    sections += _budgets(books, range(len(books.memory.pages)))
    sections += _pods(books, range(len(books.pods.pages)))
    for _, account in sorted(books.holdings.accounts.items()):
        sections += _account(account, range(len(account.pages)))
    return dict(sections)


def take_changes(books: Books) -> Changes:
    """What differs from the stored books. It counts as written from now on: if it is not, read the books again."""
    holdings = books.holdings
    put = [_head(books)] if _own(books) != books.stored_head else []
    put += _forgotten(books, holdings.forgotten_pages.take_changed())
    put += _budgets(books, books.memory.pages.take_changed())
    put += _pods(books, books.pods.pages.take_changed())
    for key in sorted(holdings.changed):
        account = holdings.accounts[key]
        put += _account(account, account.pages.take_changed())
    drop = {section_name(key, page) for key, pages in holdings.dropped.items() for page in range(pages)}
    # An account may have been opened again since it was dropped, and a store removes after it has written.
    changes = Changes(dict(put), frozenset(drop | books.superseded) - dict(put).keys())
    _all_stored(books)
    return changes


def _all_stored(books: Books) -> None:
    """Nothing of the books themselves has to be written; their pages are asked one by one."""
    books.stored_head, books.superseded = _own(books), frozenset()
    books.holdings.changed.clear()
    books.holdings.dropped.clear()


def decode(sections: Mapping[str, Document], domain: str, member: str = "") -> Books:
    """
    Read the books of `domain` for one of its clusters; no sections: new books.

    Raises LedgerUnreadable for damaged sections, a newer format, or the books of another domain.
    """
    try:
        books = _books(sections, domain)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise LedgerUnreadable(f"the books are damaged ({error!r}): restore them; nothing is granted") from error
    books.belong_to(member)
    return books


def _check_head(head: Document, domain: str, known: int) -> None:
    if why := why_not_read(head):
        raise LedgerUnreadable(why)
    if head.get("format") != known:
        raise LedgerUnreadable(
            f"ledger format {head.get('format')!r} is not {known}: upgrade the operator, or restore the ledger"
        )
    if head.get("domain") != domain:
        raise LedgerUnreadable(
            f"these are the books of domain {head.get('domain')!r}, not of {domain!r}: set the cluster name back"
        )


# --- writing ----------------------------------------------------------------------------------------------

Sections = list[tuple[str, Document]]


def _own(books: Books) -> object:
    """What of the books themselves is worth a write when it has changed."""
    heard = tuple(sorted(books.memory.heard.items()))
    return (books.epoch, books.next_lease, books.lives, books.holdings.noted_ms, heard)


def _head(books: Books) -> tuple[str, Document]:
    return HEAD, {
        "format": FORMAT,
        "domain": books.domain,
        "epoch": books.epoch,
        "believedMs": books.holdings.believed_ms,
        "nextLease": books.next_lease,
        "lives": [{"prefix": life.prefix, "first": life.first, "next": life.next} for life in books.lives],
        **({"members": books.memory.heard} if books.memory.heard else {}),
    }


def _forgotten(books: Books, pages: Iterable[int]) -> Sections:
    names, starts = books.holdings.forgotten_pages, books.holdings.forgotten_before
    return [
        (
            f"forgotten/{page}",
            {"limits": [{"budget": each[0], "limit": each[1], "start": starts[each]} for each in names.keys(page)]},
        )
        for page in pages
    ]


def _budgets(books: Books, pages: Iterable[int]) -> Sections:
    return [
        (f"budgets/{page}", {"budgets": [_budget(member, spec) for member, spec in books.memory.page(page)]})
        for page in pages
    ]


def _budget(member: str, spec: BudgetSpec) -> Document:
    return {**records.encode_budget(spec), **({"member": member} if member else {})}


def _pods(books: Books, pages: Iterable[int]) -> Sections:
    uids, known = books.pods.pages, books.pods.records
    return [
        (f"pods/{page}", {"pods": {uid: records.encode_pod(known[uid]) for uid in uids.keys(page)}}) for page in pages
    ]


def _account(account: Account, pages: Iterable[int]) -> Sections:
    return [(section_name(account.key, page), encode_page(account, page)) for page in pages]


# --- reading ----------------------------------------------------------------------------------------------


def _books(sections: Mapping[str, Document], domain: str) -> Books:
    if not sections:
        return Books(domain)
    if format_one.SECTION in sections:
        _check_head(sections[format_one.SECTION], domain, format_one.FORMAT)
        return format_one.decode(sections[format_one.SECTION], domain)
    _check_head(sections[HEAD], domain, FORMAT)
    books = Books(domain)
    records.read_head(books, sections[HEAD])
    for name in sorted(sections.keys() - {HEAD}, key=_place):
        kind, _, page = _place(name)
        _READ[kind](books, page, sections[name], name)
    _finish(books, sections)
    return books


def _place(name: str) -> tuple[str, str, int]:
    """Kind, account and page of a section's name. Raises ValueError for a name that no section has."""
    kind, *middle, page = name.split("/")
    if kind not in _READ or len(middle) != (kind == "account") or not page.isdigit():
        raise ValueError(f"unknown section {name!r}")
    return kind, "".join(middle), int(page)


def _read_forgotten(books: Books, page: int, document: Document, _: str) -> None:
    for entry in document["limits"]:
        name = entry["budget"], entry["limit"]
        books.holdings.forgotten_before[name] = int(entry["start"])
        books.holdings.forgotten_pages.place(name, page)


def _read_budgets(books: Books, page: int, document: Document, _: str) -> None:
    for entry in document["budgets"]:
        member = entry.get("member", "")
        spec = records.decode_budget({name: entry[name] for name in entry if name != "member"})
        books.memory.place(member, spec.name, spec, page)


def _read_pods(books: Books, page: int, document: Document, _: str) -> None:
    for uid, entry in document["pods"].items():
        books.pods.pages.place(uid, page)
        books.pods.restore(uid, records.decode_pod(entry))


_READ = {
    "forgotten": _read_forgotten,
    "budgets": _read_budgets,
    "pods": _read_pods,
    "account": read_page,
}


def _finish(books: Books, sections: Mapping[str, Document]) -> None:
    """What was just read is stored already; what a half-stored commit left undone is done now."""
    for pages in (books.holdings.forgotten_pages, books.memory.pages, books.pods.pages):
        pages.take_changed()
    for account in books.holdings.accounts.values():
        account.pages.take_changed()
    _all_stored(books)
    # Leases that were stored when the head was not have numbers beyond it: those of the life that granted last.
    prefix = books.lives[-1].prefix if books.lives else ""
    numbers = [number_of(lease) for lease in books.holdings.lease_ids() if lease.startswith(prefix)]
    if numbers and max(numbers) >= books.next_lease:
        books.next_lease = max(numbers) + 1
        books.lives = grant(books.lives, prefix, max(numbers))
    for uid, record in books.pods.records.items():
        for account, lease in books.holdings.leases_of([uid]):
            if lease.holder.nonce in record.retired and not lease.quarantined:
                books.holdings.quarantine(account, lease, "replaced")
    complete_settlements(books, lambda account: stored_references(sections, account))
