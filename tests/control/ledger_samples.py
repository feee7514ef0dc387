"""Small budgets, policies and clocks for the tests of the books and of the control server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from spendmesh_operator.ledger.books.accounts import LimitInForce
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, Mode, ThresholdSpec, WindowSpec
from spendmesh_sidecar.policy import Policy, digest, encode
from spendmesh_sidecar.protocol import AccountRef, AcquireRequest, LeaseReport, Want, report_digest

BUDGET = "team-a/team"
HOUR = WindowSpec(period="Hour")
REF = AccountRef(budget=BUDGET, limit="hourly")
START_MS = 1_767_607_200_000
"""2026-01-05T10:00:00Z, the first instant of an hour."""


def limit(amount: int = 1000, *, window: WindowSpec = HOUR, name: str = "hourly", max_tier: str = "") -> LimitSpec:
    """A limit with thresholds at 80 % and, naming a tier, 90 %."""
    steps = (ThresholdSpec(percent=80, notify=True), ThresholdSpec(percent=90, max_tier=max_tier))
    return LimitSpec(name=name, currency="USD", amount=amount, window=window, thresholds=steps)


def budget(amount: int = 1000, *, mode: Mode = "Enforce", limits: tuple[LimitSpec, ...] = ()) -> BudgetSpec:
    """One budget, of one hourly limit unless told otherwise."""
    return BudgetSpec(name=BUDGET, mode=mode, limits=limits or (limit(amount),))


def limits_of(*budgets: BudgetSpec) -> Callable[[AccountRef], LimitInForce | None]:
    """What a pod's policy would answer."""
    known = {(each.name, one.name): LimitInForce(one, each.mode) for each in budgets for one in each.limits}
    return lambda ref: known.get((ref.budget, ref.limit))


def want(need: int, useful: int | None = None, ref: AccountRef = REF) -> Want:
    """Rights on the sample account."""
    return Want(account=ref, need=need, want=need if useful is None else useful)


def acquire(request_id: str, nonce: str, *wants: Want) -> AcquireRequest:
    """A request for rights."""
    return AcquireRequest(id=request_id, nonce=nonce, wants=wants)


def report(lease: str, used: int, *, held: int = 0, after: LeaseReport | None = None, **more: int) -> LeaseReport:
    """The report that follows `after`."""
    closed = bool(more.pop("closed", 0))
    sequence = after.sequence + 1 if after is not None else 1
    previous = report_digest(after) if after is not None else ""
    return LeaseReport(lease=lease, sequence=sequence, previous=previous, used=used, held=held, closed=closed, **more)


def sample_policy(*budgets: BudgetSpec, cluster: str = "test") -> Policy:
    """A policy that only has budgets."""
    return Policy(cluster=cluster, namespace="team-a", price_table="0" * 64, budgets=tuple(budgets))


@dataclass(frozen=True)
class SamplePublished:
    """Stands where `compile.CompiledPolicy` does."""

    policy: Policy
    unverifiable: frozenset[str] = frozenset()

    @property
    def encoded(self) -> bytes:
        return encode(self.policy)

    @property
    def digest(self) -> str:
        return digest(self.encoded)


@dataclass
class ManualClock:
    """Time that only a test moves."""

    unix_seconds: float = START_MS / 1000
    elapsed: float = field(default=0.0)

    def monotonic(self) -> float:
        return self.elapsed

    def unix(self) -> float:
        return self.unix_seconds + self.elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed += seconds
