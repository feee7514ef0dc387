"""
One lease as the books know it, its holder, and the sums over many. No decisions.

All amounts are integers in the limit's unit (nano-units of the currency for Cost).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

QuarantineReason = Literal["", "silent", "gone", "replaced", "fork", "breach"]
"""
silent: no report for too long; gone: the pod was deleted; replaced: the same pod came back with a new nonce;
fork: two histories of one lease were seen; breach: more was spent than granted. A sign of life ends silent and gone.
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """One incarnation of a pod's sidecar. `name` is `namespace/pod`, for people."""

    uid: str
    name: str
    nonce: str
    workload: str = ""
    """Topmost owner of the pod, `Kind namespace/name`; empty where it is not known."""

    @property
    def group(self) -> str:
        """What shares a cap of rights ahead of use: the workload, or the pod itself where that is not known."""
        return self.workload or f"Pod {self.name}"


@dataclass(frozen=True, slots=True)
class Lease:
    """
    Rights of one holder on one account, as far as the books know; counters are cumulative and never fall.

    `trail` holds short digests of the reports `sequence`, `sequence - 1`, … ("" where none was seen).
    """

    id: str
    holder: Holder
    granted: int = 0
    released: int = 0
    used: int = 0
    held: int = 0
    overrun: int = 0
    would_block: int = 0
    unheld: int = 0
    """Part of the overrun that was spent without rights, while the coordinator was silent."""
    survival: int = 0
    """Part of the rights that its holder spends only while the coordinator is silent."""
    sequence: int = 0
    trail: tuple[str, ...] = ()
    quarantined: QuarantineReason = ""
    forked: bool = False
    """Two histories were seen: both copies may spend all rights, so both are charged."""

    @property
    def rights(self) -> int:
        """What the holder may spend in all."""
        return self.granted - self.released

    @property
    def charge(self) -> int:
        """What counts against the limit: all rights until closed, and once more for a copy."""
        return max(self.rights * (1 + self.forked), self.used + self.held)

    @property
    def owed(self) -> int:
        """What was spent beyond the rights. It is charged already, so rights for it cost nothing; without them the
        next rights would go there."""
        return max(0, self.used + self.held - self.rights)

    @property
    def unspent(self) -> int:
        """Rights that are neither used nor held by the last report."""
        return max(0, self.rights - self.used - self.held)

    @property
    def ahead(self) -> int:
        """Rights ahead of use that its holder may spend at any time."""
        return max(0, self.unspent - self.survival)

    @property
    def returns(self) -> bool:
        """Whether a sign of life of its holder opens it again."""
        return self.quarantined in ("silent", "gone")


@dataclass(slots=True)
class Totals:
    """Sums over the leases of one account, kept beside them and verified against them before each grant."""

    charged: int = 0
    open_used: int = 0
    quarantined: int = 0
    survival: int = 0
    spenders: int = 0
    """Open leases that still hold rights to spend."""
    ahead: int = 0
    """`Lease.ahead` of open and quarantined leases."""
    ahead_of_pod: dict[str, int] = field(default_factory=dict)
    """The same by uid of the pod, over all its incarnations; no entry where it is zero."""
    ahead_of_group: dict[str, int] = field(default_factory=dict)
    """The same by `Holder.group`."""

    def count(self, lease: Lease, sign: Literal[1, -1]) -> None:
        """Add a lease (1) or take it out (-1)."""
        self.charged += sign * lease.charge
        if lease.quarantined:
            self.quarantined += sign * lease.charge
        else:
            self.open_used += sign * lease.used
            self.survival += sign * lease.survival
            self.spenders += sign * (lease.rights > lease.used)
        if ahead := sign * lease.ahead:
            self.ahead += ahead
            _add(self.ahead_of_pod, lease.holder.uid, ahead)
            _add(self.ahead_of_group, lease.holder.group, ahead)


def _add(sums: dict[str, int], key: str, amount: int) -> None:
    total = sums.pop(key, 0) + amount
    if total:
        sums[key] = total
