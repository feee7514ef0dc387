"""Books with a holder's short way to them, for tables of what the books do."""

from __future__ import annotations

from msgspec.structs import replace

from ledger_samples import BUDGET, START_MS, acquire, budget, limit, limits_of, want
from spendmesh_operator.ledger.books.accounts import Holder, LimitInForce
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.partitions import PodPlace
from spendmesh_sidecar.core.specs import LimitSpec, PerSpec
from spendmesh_sidecar.protocol import (
    AccountRef,
    AccountState,
    AcquireReply,
    Lease,
    LeaseReport,
    LeaseState,
    ReportRequest,
    Want,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
USER = PerSpec(type="User")
NAMESPACE = PerSpec(type="Namespace")
TEAM = PerSpec(type="PodLabel", name="team")
HERE = PodPlace("team-a", "team-a/Deployment/web", "team-a/web-1", {"team": "red"})


def holder(uid: str = "pod-a", nonce: str = "") -> Holder:
    """An incarnation of a pod."""
    return Holder(uid, f"team-a/{uid}", nonce or f"{uid}-nonce")


def begun(now_ms: int) -> Books:
    """New books, as a coordinator begins with them."""
    books = Books("test")
    books.holdings.begin(now_ms)
    return books


class Desk:
    """Books of one hourly limit, at one moment that a test may move."""

    def __init__(self, amount: int = 1000) -> None:
        self.now_ms = START_MS
        self.books = begun(self.now_ms)
        self.limits = limits_of(budget(amount))
        self._requests = 0

    def ask(self, who: Holder, *wants: Want, request_id: str = "") -> AcquireReply:
        self._requests += 1
        request = acquire(request_id or f"r{self._requests}", who.nonce, *wants)
        return self.books.acquire(who, request, self.limits, self.now_ms)

    def grant(self, who: Holder, need: int, useful: int | None = None) -> Lease:
        (lease,) = self.ask(who, want(need, useful)).leases
        return lease

    def tell(self, who: Holder, *reports: LeaseReport) -> tuple[LeaseState, ...]:
        request = ReportRequest(nonce=who.nonce, reports=reports)
        return self.books.report(who, request, self.limits, self.now_ms).leases

    def refused(self, who: Holder, *wants: Want) -> list[str]:
        return [denial.reason for denial in self.ask(who, *wants).denials]

    def pass_time(self, elapsed_ms: int) -> None:
        """Time passes, on the clock as in truth, and the books are swept."""
        self.now_ms += elapsed_ms
        self.books.sweep(self.now_ms, elapsed_ms)

    @property
    def state(self) -> AccountState:
        return self.books.states(self.now_ms)[BUDGET, "hourly", ()]


def divided(*per: PerSpec, amount: int = 1000, values: int = 1000) -> LimitSpec:
    return replace(limit(amount), per=per or (USER,), max_values=values)


def of(*values: str) -> AccountRef:
    return AccountRef(budget=BUDGET, limit="hourly", per=values)


class DividedDesk(Desk):
    """Books of one divided limit; every pod is at `place`."""

    def __init__(self, *per: PerSpec, amount: int = 1000, values: int = 1000, place: PodPlace = HERE) -> None:
        super().__init__(amount)
        self.limit = divided(*per, amount=amount, values=values)
        self.limits = lambda ref: LimitInForce(self.limit, place=self.place) if ref.budget == BUDGET else None
        self.place = place

    def take(self, who: str, *values: str, need: int = 10) -> Lease:
        [lease] = self.ask(holder(who), want(need, ref=of(*values))).leases
        return lease

    @property
    def values(self) -> set[tuple[str, ...]]:
        return {account.key.per for account in self.books.holdings.accounts.values()}
