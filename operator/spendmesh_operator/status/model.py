"""What goes into a status beside the verdict: what pods acknowledged and what the books say. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from spendmesh_operator.workloads import MountedKey
from spendmesh_sidecar.core.specs import Unit

Status = dict[str, Any]
"""The `status` of an object, as JSON."""
ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class PodState:
    """What one pod's sidecar said about its policy last."""

    digest: str
    """Digest that it obeys; empty: nothing heard yet."""
    error: str = ""
    """Why it refused the policy that it was sent last (NACK)."""
    missing_keys: tuple[str, ...] = ()
    """ModelProviders whose key the sidecar does not find."""
    mounted: frozenset[MountedKey] | None = None
    """What the pod was given when it was made; None: not known."""


@dataclass(frozen=True)
class HolderLine:
    """One pod that holds rights, or whose rights are in quarantine."""

    pod: str
    used: int
    held: int
    """Charged beyond what it has reported as used."""
    state: str
    """`Reporting`, or why it is in quarantine."""


@dataclass(frozen=True)
class CorrectionLine:
    """One correction of the books."""

    reference: str
    amount: int
    evidence: str
    at: datetime


@dataclass(frozen=True)
class LimitView:
    """One limit of a budget in its current period, as the books have it. Amounts in the limit's unit (nano-units)."""

    name: str
    unit: Unit
    currency: str
    amount: int
    period: str
    """`Month`, or `Rolling 24h`."""
    settled: int
    """Spent by closed leases and reported by open ones."""
    quarantined: int
    """Rights of sidecars that vanished before they reported."""
    held: int
    """Leased or reserved, and neither settled nor quarantined."""
    period_start: datetime
    resets_at: datetime
    crossed_percent: int = 0
    """The highest threshold that is reached; 100 when exhausted."""
    max_tier: str = ""
    """Downgrade in force."""
    max_output_tokens: int = 0
    """Clamp in force; 0: none."""
    quarantine_alert: int = 0
    """What is quarantined of the value with most of it, if that is more than should be; see `ledger.milestones`."""
    forecast: int | None = None
    """Spend at the period's end, if it goes on as it does; None: too early to say."""
    holders: tuple[HolderLine, ...] = ()
    """Those that hold most, first."""
    holder_count: int = 0
    quarantine: tuple[tuple[str, int], ...] = ()
    """What is in quarantine by reason."""
    corrections: tuple[CorrectionLine, ...] = ()
    """The last ones, the newest first."""
    values: int = 0
    """Of a divided limit: how many values were used in the period. All other figures are of the fullest one."""
    taken_until: datetime | None = None
    """A limit of this name that meant something else has a running period: nothing is granted before it ends."""

    @property
    def used(self) -> int:
        """What counts towards thresholds."""
        return self.settled + self.quarantined

    @property
    def percent(self) -> int:
        """`used` in percent of the amount, rounded down."""
        return self.used * 100 // self.amount if self.amount else 100

    @property
    def stage(self) -> Literal["Within", "Notify", "Clamp", "Downgrade", "Exhausted", "NameTaken"]:
        """What the limit does now."""
        if self.taken_until is not None:
            return "NameTaken"
        if self.used >= self.amount or self.crossed_percent >= 100:
            return "Exhausted"
        if self.max_tier:
            return "Downgrade"
        if self.max_output_tokens:
            return "Clamp"
        return "Notify" if self.crossed_percent else "Within"


@dataclass(frozen=True)
class EventDraft:
    """A Kubernetes Event without its bookkeeping."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
