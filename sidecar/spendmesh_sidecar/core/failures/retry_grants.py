"""
What a sidecar and the coordinator say to each other about a RetryBudget that all its pods share (scope Cluster).

Amounts are hundredths of a retry in one `budget.interval`. A report tells how things stand, not what has changed, so
that a lost or repeated one does no harm and a new coordinator knows at once what the last one knew. Times are relative.
"""

from __future__ import annotations

from spendmesh_sidecar.core.ledger.rights import Message

FULL_RETRY = 100
"""Hundredths in a retry: 33 % of one call is 33, and nothing is rounded."""
MAX_CALLS_PER_SECOND = 2_000
"""More than one sidecar can make; what a report claims beyond it is not believed."""


class ShareReport(Message, frozen=True, kw_only=True):
    """One sidecar, one budget, now."""

    budget: str
    """Name of the RetryBudget. The server takes what it means from its own policy for the pod."""
    sequence: int
    """Grows with each report of this sidecar: one that comes late says nothing any more."""
    epoch: int = 0
    """Of the coordinator that granted what is held; 0: nothing was ever granted."""
    heard: int = 0
    """Number of the newest grant that came in, in that epoch. Older ones are never spent from again."""
    has: int = 0
    """The share that is held and has not run out."""
    wants: int = 0
    """Retries wanted in an interval, paid or not, as an average that rises at once and falls slowly."""
    deposits: int = 0
    """Calls of the last interval that earn."""
    withdrawals: int = 0
    """Taken out of the share within the last interval."""
    leaving: bool = False
    """The sidecar stops: its share is free, save what is withdrawn."""


class ShareGrant(Message, frozen=True, kw_only=True):
    """What one sidecar may withdraw in any interval until it runs out. It replaces every grant of a lower number."""

    budget: str
    epoch: int
    """Of the coordinator. A sidecar obeys the highest one that it has heard, so that a deposed one changes nothing."""
    number: int
    interval_ms: int
    """The interval that amounts are for; a sidecar whose policy has another one by now waits for the next grant."""
    share: int = 0
    safe: int = 0
    """What may be withdrawn in any interval after the share ran out, until a coordinator answers again."""
    expires_in_ms: int
    """Counted from the moment when the report left, so that a slow answer never makes it longer."""
    refresh_in_ms: int
