"""Laws of the retry budget under any order of credits, retries, refunds, bills and pauses."""

from __future__ import annotations

from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from spendmesh_sidecar.core.failures.retry_budget import SLOTS, RetryBudget, Withdrawal
from spendmesh_sidecar.core.specs import RetryCostSpec, RetrySpec

Paid = tuple[float, Withdrawal]


class RetryBudgetMachine(RuleBasedStateMachine):
    """Deposits, withdrawals and refunds while time passes."""

    paid = Bundle("paid")

    @initialize(
        percent=st.integers(0, 100),
        interval=st.integers(1_000, 60_000),
        count=st.integers(0, 3),
        floor_interval=st.integers(1_000, 60_000),
        most=st.integers(0, 5_000),
    )
    def start(self, percent: int, interval: int, count: int, floor_interval: int, most: int) -> None:
        self.spec = RetrySpec(
            budget_percent=percent,
            budget_interval_ms=interval,
            min_retry_count=count,
            min_retry_interval_ms=floor_interval,
            max_retry_cost=RetryCostSpec(amount=most, currency="USD", interval_ms=interval),
        )
        self.budget = RetryBudget(self.spec)
        self.now = 1000.0
        self.credits: list[float] = []
        self.retries: list[Paid] = []
        self.cost: list[tuple[float, Withdrawal, int]] = []
        """What each retry holds or has cost, and since when."""

    @rule(seconds=st.floats(0, 90, allow_nan=False))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 40))
    def calls_succeed(self, count: int) -> None:
        for _ in range(count):
            self.budget.deposit(self.now)
            self.credits.append(self.now)

    @rule(target=paid, attempts=st.integers(1, 10), weight=st.integers(1, 3), nanos=st.integers(0, 2_000))
    def retry(self, attempts: int, weight: int, nanos: int) -> object:
        found: list[Paid] = []
        for _ in range(attempts):
            if self.budget.affordable(self.now, nanos, "USD"):
                withdrawal = self.budget.try_withdraw(self.now, weight, nanos)
                if withdrawal is not None:
                    found.append((self.now, withdrawal))
                    self.cost.append((self.now, withdrawal, nanos))
        self.retries += found
        return multiple(*found)

    @rule(one=consumes(paid))
    def refund(self, one: Paid) -> None:
        self.budget.refund(one[1])
        self.retries.remove(one)
        self._costs(one, 0)

    @rule(one=consumes(paid), part=st.floats(0, 1))
    def bill(self, one: Paid, part: float) -> None:
        """It was sent, and cost at most what was held."""
        nanos = int(one[1].cost_nanos * part)
        self.budget.settle(one[1], nanos)
        self._costs(one, nanos)

    def _costs(self, one: Paid, nanos: int) -> None:
        at = next(index for index, each in enumerate(self.cost) if each[1] is one[1])
        self.cost[at] = (one[0], one[1], nanos)

    @invariant()
    def in_any_stretch_retries_are_within_percent_of_credits_and_the_floor(self) -> None:
        """The stretch's credits are those of one interval before it too, as far as a slot reaches."""
        spec = self.spec
        reach = spec.budget_interval_ms / 1000 * (1 + 1 / SLOTS)
        for begin in {at for at, _ in self.retries}:
            stretch = [one for at, one in self.retries if at >= begin]
            credits = sum(at >= begin - reach for at in self.credits)
            floors = spec.min_retry_count * (1 + (self.now - begin) * 1000 // spec.min_retry_interval_ms)
            weighed = sum(one.weight for one in stretch if not one.from_floor)
            assert weighed * 100 <= spec.budget_percent * credits
            assert len(stretch) * 100 <= spec.budget_percent * credits + 100 * floors

    @invariant()
    def the_floor_is_a_rate_and_not_a_reserve(self) -> None:
        times = [at for at, withdrawal in self.retries if withdrawal.from_floor]
        for end in times:
            begin = end - self.spec.min_retry_interval_ms / 1000 + 1e-6  # sums of floats differ in their last bits
            assert sum(begin < at <= end for at in times) <= self.spec.min_retry_count

    @invariant()
    def the_retries_of_any_interval_cost_no_more_than_their_bound(self) -> None:
        most = self.spec.max_retry_cost
        assert most is not None
        for end in {at for at, _, _ in self.cost}:
            begin = end - most.interval_ms / 1000 + 1e-6
            assert sum(nanos for at, _, nanos in self.cost if begin < at <= end) <= most.amount

    @invariant()
    def totals_are_what_happened(self) -> None:
        assert (self.budget.deposits, self.budget.retries) == (len(self.credits), len(self.retries))

    @rule()
    def a_whole_retry_in_the_balance_can_be_had(self) -> None:
        if self.budget.balance(self.now) >= 100:
            withdrawal = self.budget.try_withdraw(self.now)
            assert withdrawal is not None and not withdrawal.from_floor
            self.budget.refund(withdrawal)


RetryBudgetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRetryBudget = RetryBudgetMachine.TestCase
