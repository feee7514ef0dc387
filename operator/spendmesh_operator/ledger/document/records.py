"""
Leases, pods, limits and corrections as JSON-able records, and back. Pure.

Amounts are decimal strings, because JSON numbers lose digits above 2^53 in other hands. What is missing or
unreadable raises KeyError, TypeError, ValueError or msgspec.ValidationError: damage is never read as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from spendmesh_operator.ledger.books.accounts import (
    Closed,
    Correction,
    Holder,
    Lease,
    Milestone,
    QuarantineReason,
    SettledLease,
)
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.forecast import Pace
from spendmesh_operator.ledger.books.lives import Life
from spendmesh_operator.ledger.books.pods import PodRecord
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, Mode

HEAD: Final = "head"
"""Name of the section in which the books say of themselves what they are."""

_AMOUNTS = {
    **{name: name for name in ("granted", "released", "used", "held", "overrun", "unheld", "survival")},
    "wouldBlock": "would_block",
}
"""Of a lease: name here, name there."""


def read_head(books: Books, head: dict[str, Any]) -> None:
    """What the books say of themselves; `believedMs`, `lives`, their `next` and `members` are younger than format 1."""
    books.epoch = int(head["epoch"])
    books.holdings.resume(int(head.get("believedMs", 0)))
    books.next_lease = int(head["nextLease"])
    books.memory.heard = {member: int(at_ms) for member, at_ms in head.get("members", {}).items()}
    books.lives = _read_lives(head.get("lives", ()), books.next_lease)


def _read_lives(entries: Sequence[dict[str, Any]], next_lease: int) -> tuple[Life, ...]:
    """A life without `next` ended where the following one began."""
    ends = (*(each["first"] for each in entries[1:]), next_lease)
    pairs = zip(entries, ends, strict=False)
    return tuple(Life(each["prefix"], int(each["first"]), int(each.get("next", end))) for each, end in pairs)


def encode_correction(correction: Correction) -> dict[str, Any]:
    """A later proof, with its evidence."""
    encoded: dict[str, Any] = {
        "reference": correction.reference,
        "delta": str(correction.delta),
        "evidence": correction.evidence,
        "atMs": correction.at_ms,
    }
    if correction.settles:
        encoded["settles"] = [
            {"lease": each.id, "charge": str(each.charge), "page": each.page} for each in correction.settles
        ]
    return encoded


def decode_correction(entry: dict[str, Any]) -> Correction:
    """The opposite of `encode_correction`."""
    settles = tuple(
        SettledLease(each["lease"], amount(each["charge"]), int(each["page"])) for each in entry.get("settles", ())
    )
    return Correction(entry["reference"], amount(entry["delta"]), entry["evidence"], int(entry["atMs"]), settles)


def encode_closed(closed: Closed) -> dict[str, Any]:
    """Totals of closed leases, as members of the record that they are in."""
    return {
        "closedUsed": str(closed.used),
        "closedOverrun": str(closed.overrun),
        "closedWouldBlock": str(closed.would_block),
    }


def decode_closed(entry: dict[str, Any]) -> Closed:
    """The opposite of `encode_closed`."""
    return Closed(amount(entry["closedUsed"]), amount(entry["closedOverrun"]), amount(entry["closedWouldBlock"]))


def decode_mode(text: object) -> Mode:
    """Raises ValueError for a word that is no mode."""
    if text == "Enforce" or text == "Observe":
        return text
    raise ValueError(f"mode {text!r}")


def encode_budget(budget: BudgetSpec) -> dict[str, Any]:
    """What a budget last validly meant."""
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(budget, limits=()))
    return {**plain, "mode": budget.mode, "limits": [encode_limit(limit) for limit in budget.limits]}


def decode_budget(entry: dict[str, Any]) -> BudgetSpec:
    """The opposite of `encode_budget`."""
    limits = tuple(decode_limit(each) for each in entry["limits"])
    return msgspec.structs.replace(msgspec.convert({**entry, "limits": []}, BudgetSpec), limits=limits)


def encode_limit(limit: LimitSpec) -> dict[str, Any]:
    """A limit as an account last had it."""
    encoded: dict[str, Any] = msgspec.to_builtins(limit)
    encoded["amount"] = str(limit.amount)
    if limit.allow_cap:
        encoded["allowCap"] = str(limit.allow_cap)
    for override in encoded.get("overrides", ()):
        override["amount"] = str(override["amount"])
    return encoded


def decode_limit(entry: dict[str, Any]) -> LimitSpec:
    """The opposite of `encode_limit`."""
    overrides = [{**each, "amount": amount(each["amount"])} for each in entry.get("overrides", ())]
    amounts = {"amount": amount(entry["amount"]), "allowCap": amount(entry.get("allowCap", "0"))}
    return msgspec.convert({**entry, **amounts, "overrides": overrides}, LimitSpec)


def encode_milestones(milestones: Mapping[str, Milestone]) -> dict[str, Any]:
    """Milestones by name."""
    return {
        name: {
            "amount": str(each.amount),
            "atMs": each.at_ms,
            "told": each.told,
            **({"extra": str(each.extra)} if each.extra else {}),
        }
        for name, each in sorted(milestones.items())
    }


def decode_milestones(entries: Mapping[str, Any]) -> dict[str, Milestone]:
    """The opposite of `encode_milestones`."""
    return {
        name: Milestone(amount(each["amount"]), int(each["atMs"]), bool(each["told"]), amount(each.get("extra", "0")))
        for name, each in entries.items()
    }


def encode_pace(pace: Pace | None) -> dict[str, Any] | None:
    """The pace of an account's spend, for its forecast."""
    return None if pace is None else {"atMs": pace.at_ms, "settled": str(pace.settled), "perDay": str(pace.per_day)}


def decode_pace(entry: dict[str, Any] | None) -> Pace | None:
    """The opposite of `encode_pace`."""
    return None if entry is None else Pace(int(entry["atMs"]), amount(entry["settled"]), amount(entry["perDay"]))


def encode_lease(lease: Lease) -> dict[str, Any]:
    """A lease; zero counters are left out, because most leases have few."""
    encoded: dict[str, Any] = {"id": lease.id, "pod": lease.holder.uid, "name": lease.holder.name}
    encoded["nonce"] = lease.holder.nonce
    if lease.holder.workload:
        encoded["workload"] = lease.holder.workload
    values = zip(_AMOUNTS, (getattr(lease, field) for field in _AMOUNTS.values()), strict=True)
    encoded.update({name: str(value) for name, value in values if value})
    if lease.sequence:
        encoded["sequence"] = lease.sequence
        encoded["trail"] = list(lease.trail)
    if lease.quarantined:
        encoded["quarantined"] = lease.quarantined
    if lease.forked:
        encoded["forked"] = True
    return encoded


def decode_lease(entry: dict[str, Any]) -> Lease:
    """The opposite of `encode_lease`. An unknown field is refused: it may say that something is charged."""
    unknown = set(entry) - _LEASE_FIELDS
    if unknown:
        raise ValueError(f"lease {entry.get('id')!r} has unknown fields {sorted(unknown)}")
    quarantined = entry.get("quarantined", "")
    if quarantined not in get_args(QuarantineReason):
        raise ValueError(f"lease {entry['id']!r}: quarantined {quarantined!r}")
    return Lease(
        id=entry["id"],
        holder=Holder(entry["pod"], entry["name"], entry["nonce"], entry.get("workload", "")),
        **{field: amount(entry.get(name, "0")) for name, field in _AMOUNTS.items()},
        sequence=int(entry.get("sequence", 0)),
        trail=tuple(entry.get("trail", ())),
        quarantined=quarantined,
        forked=bool(entry.get("forked", False)),
    )


def encode_pod(record: PodRecord) -> dict[str, Any]:
    """What is remembered of a pod. Denials changed nothing and are not."""
    encoded: dict[str, Any] = {"name": record.name, "nonce": record.nonce}
    if record.retired:
        encoded["retired"] = list(record.retired)
    if record.granted:
        encoded["granted"] = {request_id: list(leases) for request_id, leases in record.granted.items()}
    if record.gone:
        encoded["gone"] = True
    if record.member:
        encoded["member"] = record.member
    if record.replaced_ms:
        encoded["replacedMs"] = list(record.replaced_ms)
    return encoded


def decode_pod(entry: dict[str, Any]) -> PodRecord:
    """The opposite of `encode_pod`."""
    return PodRecord(
        name=entry["name"],
        nonce=entry["nonce"],
        retired=tuple(entry.get("retired", ())),
        granted={request_id: tuple(leases) for request_id, leases in entry.get("granted", {}).items()},
        gone=bool(entry.get("gone", False)),
        member=entry.get("member", ""),
        replaced_ms=tuple(map(int, entry.get("replacedMs", ()))),
    )


def amount(text: object) -> int:
    """An amount in its limit's unit."""
    if not isinstance(text, str):
        raise TypeError(f"amount {text!r} is not a decimal string")
    return int(text)


_LEASE_FIELDS = {"id", "pod", "name", "nonce", "workload", *_AMOUNTS, "sequence", "trail", "quarantined", "forked"}
