"""
All shared retry budgets of one term of one leader. Pure; a new term begins with nothing and learns.

Who asks is known (its pod), and which budgets it may ask about comes from its policy: a report only names one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spendmesh_operator.retries.pool import Pool, PoolView
from spendmesh_sidecar.core.failures.retry_grants import ShareGrant, ShareReport
from spendmesh_sidecar.core.specs import RetrySpec

Key = tuple[str, int]
"""Name of the RetryBudget and its interval: amounts of another interval are not comparable."""


class RetryShares:
    """`epoch` is the leader's, higher in each term; `now` is monotonic seconds."""

    def __init__(self, epoch: int, now: float) -> None:
        self.epoch = epoch
        self._started_at = now
        self._pools: dict[Key, Pool] = {}

    def ask(
        self, specs: Mapping[str, RetrySpec], uid: str, instance: str, reports: Iterable[ShareReport], now: float
    ) -> tuple[ShareGrant, ...]:
        """
        One answer for each report about a budget of `specs`; others (of a policy that is over) get none.

        `uid` is the pod, as the server knows it; `instance` its process, as that says itself.
        """
        answers = []
        for report in reports:
            spec = specs.get(report.budget)
            if spec is not None:
                answers.append(self.pool(spec).ask(spec, uid, instance, report, now))
        return tuple(answers)

    def pool(self, spec: RetrySpec) -> Pool:
        """The pool of a budget; a new one learns while the term is young."""
        key = spec.name, spec.budget_interval_ms
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(spec, self.epoch, self._started_at)
        return pool

    def tidy(self, now: float) -> None:
        """Drop budgets that nobody asks about any more."""
        for key in [key for key, pool in self._pools.items() if pool.empty(now)]:
            del self._pools[key]

    def views(self, now: float) -> tuple[PoolView, ...]:
        """How all budgets stand, by name."""
        return tuple(pool.view(now) for _, pool in sorted(self._pools.items()))
