"""Laws of the retry budget under any order of first tries, retries, refunds and pauses."""

from __future__ import annotations

from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from spendmesh_sidecar.core.retry_budget import RetryBudget, Withdrawal
from spendmesh_sidecar.core.specs import RetrySpec


class RetryBudgetMachine(RuleBasedStateMachine):
    """Deposits, withdrawals and refunds while time passes."""

    paid = Bundle("paid")

    @initialize(
        percent=st.integers(0, 100),
        interval=st.integers(1_000, 60_000),
        count=st.integers(0, 3),
        floor_interval=st.integers(1_000, 60_000),
    )
    def start(self, percent: int, interval: int, count: int, floor_interval: int) -> None:
        self.spec = RetrySpec(
            budget_percent=percent,
            budget_interval_ms=interval,
            min_retry_count=count,
            min_retry_interval_ms=floor_interval,
        )
        self.budget = RetryBudget(self.spec)
        self.now = 1000.0
        self.began = self.now
        self.firsts: list[float] = []
        self.retries: list[tuple[float, Withdrawal]] = []

    @rule(seconds=st.floats(0, 90, allow_nan=False))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 40))
    def first_tries(self, count: int) -> None:
        for _ in range(count):
            self.budget.deposit(self.now)
            self.firsts.append(self.now)

    @rule(target=paid, attempts=st.integers(1, 10))
    def retry(self, attempts: int) -> object:
        found = [
            (self.now, withdrawal)
            for withdrawal in (self.budget.try_withdraw(self.now) for _ in range(attempts))
            if withdrawal is not None
        ]
        self.retries += found
        return multiple(*found)

    @rule(one=consumes(paid))
    def refund(self, one: tuple[float, Withdrawal]) -> None:
        self.budget.refund(one[1])
        self.retries.remove(one)

    @invariant()
    def never_more_than_percent_of_first_tries_and_the_floor(self) -> None:
        floors = self.spec.min_retry_count * (
            int((self.now - self.began) * 1000 // self.spec.min_retry_interval_ms) + 1
        )
        assert len(self.retries) * 100 <= self.spec.budget_percent * len(self.firsts) + 100 * floors

    @invariant()
    def what_the_floor_does_not_pay_is_within_percent_alone(self) -> None:
        from_ratio = sum(not withdrawal.from_floor for _, withdrawal in self.retries)
        assert from_ratio * 100 <= self.spec.budget_percent * len(self.firsts)

    @invariant()
    def the_floor_is_a_rate_and_not_a_reserve(self) -> None:
        times = [at for at, withdrawal in self.retries if withdrawal.from_floor]
        for end in times:
            begin = end - self.spec.min_retry_interval_ms / 1000 + 1e-6  # sums of floats differ in their last bits
            assert sum(begin < at <= end for at in times) <= self.spec.min_retry_count

    @invariant()
    def totals_are_what_happened(self) -> None:
        assert (self.budget.first_tries, self.budget.retries) == (len(self.firsts), len(self.retries))

    @rule()
    def a_whole_retry_in_the_balance_can_be_had(self) -> None:
        if self.budget.balance(self.now) >= 100:
            withdrawal = self.budget.try_withdraw(self.now)
            assert withdrawal is not None and not withdrawal.from_floor
            self.budget.refund(withdrawal)


RetryBudgetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRetryBudget = RetryBudgetMachine.TestCase
