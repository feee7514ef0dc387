"""
The books as one JSON-able document, and back. Pure.

Versioned by `format`; amounts are decimal strings, because JSON numbers lose digits above 2^53 in other hands.
What is missing or unreadable raises `LedgerUnreadable`: a damaged document must never be read as "nothing spent".
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from spendmesh_operator.ledger.accounts import (
    Account,
    AccountKey,
    Correction,
    Holder,
    Lease,
    LedgerError,
    QuarantineReason,
)
from spendmesh_operator.ledger.books import Books
from spendmesh_operator.ledger.lives import Life
from spendmesh_operator.ledger.pods import PodRecord
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec

FORMAT = 1
_AMOUNTS = ("granted", "released", "used", "held", "overrun", "wouldBlock")


class LedgerUnreadable(LedgerError):
    """The stored document is damaged, or of a newer version: nothing is granted until a person has looked."""


def encode(books: Books) -> dict[str, Any]:
    """All that must survive the process."""
    return {
        "format": FORMAT,
        "domain": books.domain,
        "epoch": books.epoch,
        "believedMs": books.holdings.believed_ms,
        "nextLease": books.next_lease,
        "lives": [{"prefix": life.prefix, "first": life.first} for life in books.lives],
        "accounts": [_encode_account(account) for _, account in sorted(books.holdings.accounts.items())],
        "pods": {uid: _encode_pod(record) for uid, record in sorted(books.pods.records.items())},
        "forgottenBefore": [
            {"budget": budget, "limit": limit, "start": start}
            for (budget, limit), start in sorted(books.holdings.forgotten_before.items())
        ],
        "remembered": [_encode_budget(budget) for _, budget in sorted(books.remembered.items())],
    }


def decode(document: dict[str, Any], domain: str) -> Books:
    """
    Read the books of `domain`.

    Raises LedgerUnreadable for a damaged document, a newer format, or the books of another domain.
    """
    if document.get("format") != FORMAT:
        raise LedgerUnreadable(
            f"ledger format {document.get('format')!r} is not {FORMAT}: upgrade the operator, or restore the ledger"
        )
    if document.get("domain") != domain:
        raise LedgerUnreadable(
            f"these are the books of domain {document.get('domain')!r}, not of {domain!r}: set the cluster name back"
        )
    try:
        return _decode(document, domain)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise LedgerUnreadable(f"the ledger document is damaged ({error!r}): restore it; nothing is granted") from error


def _decode(document: dict[str, Any], domain: str) -> Books:
    books = Books(domain)
    books.epoch = int(document["epoch"])
    books.holdings.resume(int(document.get("believedMs", 0)))
    books.next_lease = int(document["nextLease"])
    books.lives = tuple(Life(each["prefix"], int(each["first"])) for each in document.get("lives", ()))
    books.remembered = {each["name"]: _decode_budget(each) for each in document["remembered"]}
    for entry in document["forgottenBefore"]:
        books.holdings.forgotten_before[entry["budget"], entry["limit"]] = int(entry["start"])
    for entry in document["accounts"]:
        books.holdings.add_account(_decode_account(entry, domain))
    for uid, entry in document["pods"].items():
        books.pods.restore(uid, _decode_pod(entry))
    return books


def _encode_account(account: Account) -> dict[str, Any]:
    taken_back = {"takenBack": str(account.taken_back)} if account.taken_back else {}
    return taken_back | {
        "budget": account.key.budget,
        "limit": account.key.limit,
        "per": list(account.key.per),
        "start": account.key.start,
        "end": account.end,
        "mode": account.mode,
        "spec": _encode_limit(account.limit),
        "closedUsed": str(account.closed_used),
        "closedOverrun": str(account.closed_overrun),
        "closedWouldBlock": str(account.closed_would_block),
        "corrections": [
            {"reference": each.reference, "delta": str(each.delta), "evidence": each.evidence, "atMs": each.at_ms}
            for each in account.corrections
        ],
        "leases": [_encode_lease(lease) for lease in account.leases.values()],
    }


def _decode_account(entry: dict[str, Any], domain: str) -> Account:
    if entry["mode"] not in ("Enforce", "Observe"):
        raise ValueError(f"mode {entry['mode']!r}")
    account = Account(
        key=AccountKey(domain, entry["budget"], entry["limit"], tuple(entry["per"]), int(entry["start"])),
        end=int(entry["end"]),
        limit=_decode_limit(entry["spec"]),
        mode=entry["mode"],
        closed_used=_amount(entry["closedUsed"]),
        closed_overrun=_amount(entry["closedOverrun"]),
        closed_would_block=_amount(entry["closedWouldBlock"]),
        taken_back=_amount(entry.get("takenBack", "0")),
        corrections=[
            Correction(each["reference"], _amount(each["delta"]), each["evidence"], int(each["atMs"]))
            for each in entry["corrections"]
        ],
    )
    for each in entry["leases"]:
        account.put(_decode_lease(each))
    return account


def _encode_budget(budget: BudgetSpec) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(budget, limits=()))
    return {**plain, "mode": budget.mode, "limits": [_encode_limit(limit) for limit in budget.limits]}


def _decode_budget(entry: dict[str, Any]) -> BudgetSpec:
    limits = tuple(_decode_limit(each) for each in entry["limits"])
    return msgspec.structs.replace(msgspec.convert({**entry, "limits": []}, BudgetSpec), limits=limits)


def _encode_limit(limit: LimitSpec) -> dict[str, Any]:
    encoded: dict[str, Any] = msgspec.to_builtins(limit)
    encoded["amount"] = str(limit.amount)
    return encoded


def _decode_limit(entry: dict[str, Any]) -> LimitSpec:
    return msgspec.convert({**entry, "amount": _amount(entry["amount"])}, LimitSpec)


def _encode_lease(lease: Lease) -> dict[str, Any]:
    """Zero counters are left out: most leases have few."""
    encoded: dict[str, Any] = {"id": lease.id, "pod": lease.holder.uid, "name": lease.holder.name}
    encoded["nonce"] = lease.holder.nonce
    values = (lease.granted, lease.released, lease.used, lease.held, lease.overrun, lease.would_block)
    encoded.update({name: str(value) for name, value in zip(_AMOUNTS, values, strict=True) if value})
    if lease.sequence:
        encoded["sequence"] = lease.sequence
        encoded["trail"] = list(lease.trail)
    if lease.quarantined:
        encoded["quarantined"] = lease.quarantined
    if lease.forked:
        encoded["forked"] = True
    return encoded


def _decode_lease(entry: dict[str, Any]) -> Lease:
    unknown = set(entry) - _LEASE_FIELDS
    if unknown:
        raise ValueError(f"lease {entry.get('id')!r} has unknown fields {sorted(unknown)}")
    quarantined = entry.get("quarantined", "")
    if quarantined not in get_args(QuarantineReason):
        raise ValueError(f"lease {entry['id']!r}: quarantined {quarantined!r}")
    granted, released, used, held, overrun, would_block = (_amount(entry.get(name, "0")) for name in _AMOUNTS)
    return Lease(
        id=entry["id"],
        holder=Holder(entry["pod"], entry["name"], entry["nonce"]),
        granted=granted,
        released=released,
        used=used,
        held=held,
        overrun=overrun,
        would_block=would_block,
        sequence=int(entry.get("sequence", 0)),
        trail=tuple(entry.get("trail", ())),
        quarantined=quarantined,
        forked=bool(entry.get("forked", False)),
    )


def _encode_pod(record: PodRecord) -> dict[str, Any]:
    encoded: dict[str, Any] = {"name": record.name, "nonce": record.nonce}
    if record.retired:
        encoded["retired"] = list(record.retired)
    if record.granted:
        encoded["granted"] = {request_id: list(leases) for request_id, leases in record.granted.items()}
    if record.gone:
        encoded["gone"] = True
    return encoded


def _decode_pod(entry: dict[str, Any]) -> PodRecord:
    return PodRecord(
        name=entry["name"],
        nonce=entry["nonce"],
        retired=tuple(entry.get("retired", ())),
        granted={request_id: tuple(leases) for request_id, leases in entry.get("granted", {}).items()},
        gone=bool(entry.get("gone", False)),
    )


def _amount(text: object) -> int:
    if not isinstance(text, str):
        raise TypeError(f"amount {text!r} is not a decimal string")
    return int(text)


_LEASE_FIELDS = {"id", "pod", "name", "nonce", *_AMOUNTS, "sequence", "trail", "quarantined", "forked"}
