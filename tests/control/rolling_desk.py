"""Books of one rolling limit with holders that spend what they are granted, and remember when."""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger_desk import Desk, holder
from ledger_samples import REF, START_MS, budget, limit, limits_of
from spendmesh_sidecar.core.specs import WindowSpec
from spendmesh_sidecar.protocol import Lease, LeaseReport, Want, report_digest

HOUR = WindowSpec(type="Rolling", duration_seconds=3600)
PART_MS = 150_000


@dataclass
class Rights:
    """A lease in a holder's hands."""

    message: Lease
    starts_ms: int
    ends_ms: int
    used: int = 0
    last: LeaseReport | None = None

    @property
    def free(self) -> int:
        return self.message.granted - self.used

    def report(self, *, closed: bool = False) -> LeaseReport:
        previous = report_digest(self.last) if self.last is not None else ""
        sequence = self.last.sequence + 1 if self.last is not None else 1
        self.last = LeaseReport(
            lease=self.message.id, sequence=sequence, previous=previous, used=self.used, held=0, closed=closed
        )
        return self.last


@dataclass
class Rolling:
    """Time, books, and what was spent when."""

    amount: int = 1000
    window: WindowSpec = HOUR
    desk: Desk = field(default_factory=Desk)
    rights: dict[tuple[str, str], Rights] = field(default_factory=dict)
    """By holder and lease."""
    spent: list[tuple[int, int]] = field(default_factory=list)
    """(instant in milliseconds, amount)."""

    def __post_init__(self) -> None:
        self.desk.limits = limits_of(budget(limits=(limit(self.amount, window=self.window),)))
        self.desk.now_ms = START_MS

    def ask(self, uid: str, need: int, useful: int, *periods: str) -> list[str]:
        """Ask for the running part and, if named, for the next in one request; answers the reasons of a refusal."""
        wants = [Want(account=REF, need=need, want=useful)]
        wants += [Want(account=REF, need=0, want=useful, period="next") for period in periods if period == "next"]
        reply = self.desk.ask(holder(uid), *wants)
        for lease in reply.leases:
            known = self.rights.get((uid, lease.id))
            if known is not None:
                known.message = lease
                continue
            starts = self.desk.now_ms + lease.starts_in_ms
            self.rights[uid, lease.id] = Rights(lease, starts, self.desk.now_ms + lease.ends_in_ms)
        return [denial.reason for denial in reply.denials]

    def spend(self, uid: str, most: int) -> int:
        """Spend from the lease of the running part, as a sidecar would; answers how much."""
        now = self.desk.now_ms
        for (owner, _), rights in self.rights.items():
            if owner == uid and rights.starts_ms <= now < rights.ends_ms:
                amount = min(most, rights.free)
                rights.used += amount
                self.spent.append((now, amount))
                return amount
        return 0

    def report(self, uid: str) -> None:
        """Report every lease; those whose part has ended are closed."""
        for owner, name in [key for key in self.rights if key[0] == uid]:
            rights = self.rights[owner, name]
            closed = self.desk.now_ms >= rights.ends_ms
            (state,) = self.desk.tell(holder(uid), rights.report(closed=closed))
            if closed and not state.fenced:
                del self.rights[owner, name]

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass, with the sweep that a coordinator makes."""
        self.desk.pass_time(milliseconds)

    def most_in_any_window(self) -> int:
        """The most that was spent within one length of the window, ending at any instant."""
        length = self.window.duration_seconds * 1000
        return max(
            (sum(amount for at, amount in self.spent if end - length < at <= end) for end, _ in self.spent), default=0
        )
