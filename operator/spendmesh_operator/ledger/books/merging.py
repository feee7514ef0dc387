"""
One report merged into one lease: maximum for what only grows, the newest word for what is held. Pure.

Each report names its predecessor's digest, so every report states two facts: "my n-th was this" and "my n-1-th was
that". Lost, repeated and late reports contradict nothing. Two facts that differ, or a counter that fell, mean that
a state was copied and two histories go on from it (contract §4: a fork).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from spendmesh_operator.ledger.books.accounts import MAX_AMOUNT, BadRequest, InvariantViolated, Lease
from spendmesh_sidecar.protocol import LeaseReport, report_digest

_TRAIL = 4
_DIGEST_CHARS = 8


@dataclass(frozen=True, slots=True)
class Merged:
    """The lease after a report; `closes` only for its holder's own last word."""

    lease: Lease
    closes: bool = False
    verdict: Literal["", "fork", "breach"] = ""


def merge(lease: Lease, report: LeaseReport) -> Merged:
    """Merge, or tell a fork (two histories) or a breach (more used and held than granted). Raises BadRequest."""
    check_values(report)
    own = report_digest(report)[:_DIGEST_CHARS]
    before = report.previous[:_DIGEST_CHARS]
    if _contradicts(lease, report, own, before):
        after = replace(
            lease,
            used=max(lease.used, report.used),
            overrun=max(lease.overrun, report.overrun),
            held=max(lease.held, report.held),
        )
        return Merged(after, verdict="fork")
    newest = report.sequence > lease.sequence
    after = replace(
        lease,
        used=max(lease.used, report.used),
        released=max(lease.released, min(report.released, lease.granted)),
        overrun=max(lease.overrun, report.overrun),
        would_block=max(lease.would_block, report.would_block),
        unheld=max(lease.unheld, report.unheld),
        held=report.held if newest else lease.held,
        sequence=max(lease.sequence, report.sequence),
        trail=_lengthen(lease, report.sequence, own, before),
    )
    _check_growth(lease, after)
    if after.used - after.overrun + after.held > after.rights:
        return Merged(after, verdict="breach")
    return Merged(after, closes=report.closed and newest and report.held == 0)


def check_values(report: LeaseReport) -> None:
    """Raises BadRequest for values that no lease can have."""
    for name in ("used", "held", "released", "overrun", "would_block", "unheld", "granted", "ended_seconds"):
        value = getattr(report, name)
        if not 0 <= value <= MAX_AMOUNT:
            raise BadRequest(f"lease {report.lease}: {name} {value} is not between 0 and 10^18")
    if not 1 <= report.sequence <= MAX_AMOUNT:
        raise BadRequest(f"lease {report.lease}: sequence {report.sequence} is not a positive number")
    if report.overrun > report.used:
        raise BadRequest(f"lease {report.lease}: overrun {report.overrun} is more than used {report.used}")


def _contradicts(lease: Lease, report: LeaseReport, own: str, before: str) -> bool:
    age = lease.sequence - report.sequence
    if age < 0 and (report.used < lease.used or report.released < lease.released):
        return True
    if age > 0 and (report.used > lease.used or report.released > lease.released):
        return True
    return _differs(lease.trail, age, own) or _differs(lease.trail, age + 1, before)


def _differs(trail: tuple[str, ...], age: int, digest: str) -> bool:
    return 0 <= age < len(trail) and trail[age] not in ("", digest)


def _lengthen(lease: Lease, sequence: int, own: str, before: str) -> tuple[str, ...]:
    known = {lease.sequence - age: digest for age, digest in enumerate(lease.trail) if digest}
    known[sequence] = own
    known.setdefault(sequence - 1, before)
    newest = max(lease.sequence, sequence)
    trail = [known.get(newest - age, "") for age in range(_TRAIL)]
    while trail and not trail[-1]:
        trail.pop()
    return tuple(trail)


def _check_growth(before: Lease, after: Lease) -> None:
    """I5: what was settled stays settled, and the order of reports never turns back."""
    grown = after.used >= before.used and after.released >= before.released and after.sequence >= before.sequence
    if not grown or after.granted != before.granted or after.rights < 0:
        raise InvariantViolated(f"lease {before.id}: a report took settled use or rights back")
