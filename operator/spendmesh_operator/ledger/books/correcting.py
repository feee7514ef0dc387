"""What later proof does to the books: an amount added or taken back, quarantined rights settled at their cost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection

from spendmesh_operator.ledger.books.accounts import Account, AccountKey, BadRequest, Correction, Lease, SettledLease
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.milestones import corrected
from spendmesh_operator.ledger.books.overrides import extra_of, overrides_of


def correct(books: Books, key: AccountKey, reference: str, delta: int, evidence: str, now_ms: int) -> None:
    """
    Append a correction, once per reference.

    Raises BadRequest for an account that is not known, or if closed leases would have used less than nothing.
    """
    account = _account(books, key)
    if _booked(account, reference):
        return
    if account.closed_used + account.corrected + delta < 0:
        raise BadRequest(f"correction {reference}: {delta} takes back more than {account.name} has settled")
    account.corrections.append(Correction(reference, delta, evidence, now_ms))
    _lowered(books, account, now_ms)


def settle_quarantined(
    books: Books, key: AccountKey, pod: str, used: int, reference: str, evidence: str, now_ms: int
) -> None:
    """
    Settle what vanished incarnations of `pod` (`namespace/name`) hold in quarantine at `used`, once per reference.

    Each such lease is closed at its whole charge, and one correction takes back what was not used: a late report
    finds the lease closed and changes nothing. Raises BadRequest, changing nothing, where there is nothing to settle,
    where the pod is merely silent and may come back, or for less than was reported.
    """
    account = _account(books, key)
    if _booked(account, reference):
        return
    leases = _quarantined(account, pod)
    charge, reported = sum(lease.charge for lease in leases), sum(lease.used for lease in leases)
    if not reported <= used <= charge:
        raise BadRequest(f"{pod} reported {reported} and is charged {charge}: what it used lies between")
    settles = tuple(SettledLease(lease.id, lease.charge, account.pages.page_of(lease.id)) for lease in leases)
    account.corrections.append(Correction(reference, used - charge, evidence, now_ms, settles))
    for lease in leases:
        books.holdings.close(account, lease, lease.charge)
    _lowered(books, account, now_ms)


def complete_settlements(books: Books, stored: Callable[[Account], Collection[str]]) -> None:
    """
    Of a settlement of which a store kept a part, all counts: the leases that it names and that are still there are
    closed at what it says that they were charged. `stored`: references of the corrections that page 0 has.
    """
    for account in books.holdings.accounts.values():
        for correction in account.corrections:
            there = [each for each in correction.settles if each.id in account.leases]
            for each in there:
                books.holdings.close(account, account.leases[each.id], each.charge)
            if there or (correction.settles and correction.reference not in stored(account)):
                _lowered(books, account, correction.at_ms)


def _lowered(books: Books, account: Account, now_ms: int) -> None:
    extra = extra_of(overrides_of(books.holdings, account, None, now_ms))
    corrected(account, books.holdings.beside(account), extra)
    books.holdings.touch(account)


def _quarantined(account: Account, pod: str) -> list[Lease]:
    leases = [lease for lease in account.leases.values() if lease.holder.name == pod and lease.quarantined]
    if not leases:
        raise BadRequest(f"{pod} has nothing in quarantine on {account.name} in the running period")
    if any(lease.quarantined == "silent" for lease in leases):
        raise BadRequest(f"{pod} is silent, but exists: it may come back and spend. Delete the pod first")
    return leases


def _account(books: Books, key: AccountKey) -> Account:
    account = books.holdings.accounts.get(key)
    if account is None:
        raise BadRequest(f"{key.budget}/{key.limit} has no account of the period that starts at {key.start}")
    return account


def _booked(account: Account, reference: str) -> bool:
    return any(correction.reference == reference for correction in account.corrections)
