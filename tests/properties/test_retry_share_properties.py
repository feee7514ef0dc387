"""
A retry budget that all pods share stays within its bound when messages are lost, late or repeated, and processes die.

The bound for any interval: the largest capacity of each coordinator whose grants may be in use, and with
`onLeaseExpired: Safe` the floor (what sidecars that are cut off have as safe shares). With one coordinator that is at
most twice the capacity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spendmesh_operator.retries.shares import RetryShares
from spendmesh_sidecar.core.failures.retry_grants import ShareGrant, ShareReport
from spendmesh_sidecar.core.failures.retry_share import SharedRetryBudget
from spendmesh_sidecar.core.specs import ClusterShareSpec, RetrySpec

PODS = 3
LEASE_SECONDS, INTERVAL_SECONDS = 4.0, 6.0


@dataclass
class Pod:
    """One pod's process, and the messages that it has on the way."""

    budget: SharedRetryBudget
    instance: int = 0
    reports: list[tuple[int, float, ShareReport]] = field(default_factory=list)
    grants: list[tuple[int, float, ShareGrant]] = field(default_factory=list)
    leaving: bool = False


class SharesMachine(RuleBasedStateMachine):
    """One coordinator at a time, pods that call and fail, and a network that does what it likes."""

    @initialize(
        percent=st.sampled_from([0, 20]),
        floor=st.integers(1, 5),
        on=st.sampled_from(["Safe", "Deny"]),
        changes=st.booleans(),
    )
    def start(self, percent: int, floor: int, on: str, changes: bool) -> None:
        self.changes = changes
        self.spec = RetrySpec(
            name="team/shared",
            scope="Cluster",
            cluster=ClusterShareSpec(lease_ms=int(LEASE_SECONDS * 1000), refresh_ms=1000, on_lease_expired=on),
            budget_percent=percent,
            budget_interval_ms=int(INTERVAL_SECONDS * 1000),
            min_retry_count=floor,
            min_retry_interval_ms=int(INTERVAL_SECONDS * 1000),
        )
        self.now = 100.0
        self.epoch = 1
        self.shares = RetryShares(self.epoch, self.now - LEASE_SECONDS)  # it has learned that there is nothing
        self.pods = [Pod(SharedRetryBudget(self.spec)) for _ in range(PODS)]
        self.spent: list[tuple[float, int]] = []
        self.capacities: list[tuple[float, int, int]] = []
        """When, in which epoch, how much."""

    @rule(seconds=st.sampled_from([0.05, 0.7, 1.0, 3.0, 7.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(pod=st.integers(0, PODS - 1), calls=st.integers(1, 20))
    def succeed(self, pod: int, calls: int) -> None:
        for _ in range(calls):
            self.pods[pod].budget.deposit(self.now)

    @rule(pod=st.integers(0, PODS - 1), times=st.sampled_from([1, 30]), weight=st.integers(1, 3))
    def fail(self, pod: int, times: int, weight: int) -> None:
        """Retry as often as it is paid for."""
        one = self.pods[pod]
        for _ in range(0 if one.leaving else times):
            if (paid := one.budget.try_withdraw(self.now, weight)) is not None:
                self.spent.append((self.now, paid.weight))

    @rule(pod=st.integers(0, PODS - 1))
    def pay_and_not_send(self, pod: int) -> None:
        one = self.pods[pod]
        if not one.leaving and (paid := one.budget.try_withdraw(self.now, 2)) is not None:
            one.budget.refund(paid)

    @rule(reached=st.sets(st.integers(0, PODS - 1), min_size=1), rounds=st.integers(1, 5))
    def all_is_well(self, reached: set[int], rounds: int) -> None:
        """Some pods report several times, and are answered at once."""
        for _ in range(rounds):
            for each in sorted(reached):
                self.report(each)
                self.arrive(each, last=True, again=False)
                self.answer(each, last=True)
            self.now += 0.3

    @rule(first=st.integers(0, PODS - 1), second=st.integers(0, PODS - 1), dies=st.booleans())
    def one_after_the_other(self, first: int, second: int, dies: bool) -> None:
        """Each retries all that it can get, so that the share moves; the first may have begun anew by then."""
        for each in (first, second):
            self.fail(each, 30, 1)
            self.all_is_well({first, second}, 4)
            self.fail(each, 30, 1)
            if dies and each == first:
                self.crash(each)

    @rule(pod=st.integers(0, PODS - 1))
    def report(self, pod: int) -> None:
        one = self.pods[pod]
        one.reports.append((one.instance, self.now, one.budget.report(self.now, leaving=one.leaving)))

    @rule(pod=st.integers(0, PODS - 1), last=st.booleans(), again=st.booleans())
    def arrive(self, pod: int, last: bool, again: bool) -> None:
        """A report comes, in whatever order, perhaps not for the last time; its answer is on the way."""
        one = self.pods[pod]
        if not one.reports:
            return
        at = -1 if last else 0
        instance, asked_at, report = one.reports[at] if again else one.reports.pop(at)
        (grant,) = self.shares.ask({self.spec.name: self.spec}, f"pod-{pod}", str(instance), [report], self.now)
        self.capacities.append((self.now, self.epoch, self.shares.pool(self.spec).capacity(self.now)))
        one.grants.append((instance, asked_at, grant))

    @rule(pod=st.integers(0, PODS - 1), last=st.booleans())
    def answer(self, pod: int, last: bool) -> None:
        one = self.pods[pod]
        if one.grants:
            instance, asked_at, grant = one.grants.pop(-1 if last else 0)
            if instance == one.instance:
                one.budget.heard(grant, asked_at)

    @rule(pod=st.integers(0, PODS - 1))
    def lose(self, pod: int) -> None:
        self.pods[pod].reports.clear()
        self.pods[pod].grants.clear()

    @rule(pod=st.integers(0, PODS - 1))
    def crash(self, pod: int) -> None:
        """Its process dies and another begins; what it had sent may still come."""
        one = self.pods[pod]
        one.budget, one.leaving = SharedRetryBudget(self.spec), False
        one.reports.clear()
        one.instance += 1

    @rule(pod=st.integers(0, PODS - 1))
    def leave(self, pod: int) -> None:
        self.pods[pod].leaving = True

    @precondition(lambda self: self.changes)
    @rule()
    def another_leader(self) -> None:
        self.epoch += 1
        self.shares = RetryShares(self.epoch, self.now)

    @invariant()
    def retries_of_any_interval_are_within_the_bound(self) -> None:
        if not self.spent or self.spent[-1][0] != self.now:
            return
        spent = sum(charged for at, charged in self.spent if at > self.now - INTERVAL_SECONDS)
        # A share that is used now was granted a lease ago at most, or learned by then from the coordinator before.
        since = self.now - INTERVAL_SECONDS - LEASE_SECONDS * (1 if self.epoch == 1 else 3)
        largest: dict[int, int] = {}
        for at, epoch, capacity in self.capacities:
            if at >= since:
                largest[epoch] = max(capacity, largest.get(epoch, 0))
        cut_off = 100 * self.spec.min_retry_count if self.spec.cluster.on_lease_expired == "Safe" else 0
        assert spent <= sum(largest.values()) + cut_off


TestShares = SharesMachine.TestCase
TestShares.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
