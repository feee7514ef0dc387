"""What is noted on an account beside its sums: corrections, and milestones that people hear of. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SettledLease:
    """A lease that was closed at its whole charge by proof, and the page that it was in."""

    id: str
    charge: int
    page: int


@dataclass(frozen=True, slots=True)
class Correction:
    """Later proof that a charge was wrong, for example from a provider's invoice. Never edited, never removed."""

    reference: str
    delta: int
    evidence: str
    at_ms: int
    settles: tuple[SettledLease, ...] = ()
    """Closed with it: neither counts without the other, so it is stored in each of their pages too."""

    def stored_in(self, page: int) -> bool:
        """Whether this page of the account has a copy, beside page 0."""
        return page != 0 and any(lease.page == page for lease in self.settles)


@dataclass(frozen=True, slots=True)
class Milestone:
    """A threshold, or too much in quarantine, was reached when the limit had this amount. `told`: people heard it."""

    amount: int
    at_ms: int
    told: bool = False
    extra: int = 0
    """Part of `amount` that overrides added."""
