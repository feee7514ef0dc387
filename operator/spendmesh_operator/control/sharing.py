"""
Answers sidecars about retry budgets that they share, from the leader's memory: nothing of it is written down.

A term of the books' coordinator is a term here too: its epoch tells sidecars which leader is the newer one.
"""

from __future__ import annotations

from spendmesh_operator.clock import Clock
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.books.accounts import BadRequest
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_operator.ledger.coordinator.serving import NotServing
from spendmesh_operator.retries.pool import PoolView
from spendmesh_operator.retries.shares import RetryShares
from spendmesh_sidecar.core.failures.retry_budgets import shared_specs
from spendmesh_sidecar.policy import Policy
from spendmesh_sidecar.protocol import MAX_SHARES, ShareReply, ShareRequest

MAX_INSTANCE_CHARS = 64
TIDY_SECONDS = 60.0


class RetryDesk:
    """One for each replica; it only has something to say while this one keeps the books."""

    def __init__(self, coordinator: Coordinator, clock: Clock) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._shares = RetryShares(0, 0.0)
        self._tidied_at = 0.0

    def share(self, pod: PodIdentity, policy: Policy, request: ShareRequest) -> ShareReply:
        """Take a sidecar's reports, answer its shares. Raises NotServing, BadRequest."""
        if len(request.reports) > MAX_SHARES or len(request.instance) > MAX_INSTANCE_CHARS:
            raise BadRequest(f"at most {MAX_SHARES} reports and {MAX_INSTANCE_CHARS} characters of instance")
        now, shares = self._clock.monotonic(), self._current()
        if now >= self._tidied_at + TIDY_SECONDS:
            shares.tidy(now)
            self._tidied_at = now
        specs = {spec.name: spec for spec in shared_specs(policy)}
        return ShareReply(grants=shares.ask(specs, pod.uid, request.instance, request.reports, now))

    def views(self) -> tuple[PoolView, ...]:
        """How the shared budgets stand; none where this replica does not lead."""
        return self._current().views(self._clock.monotonic()) if self._coordinator.serving else ()

    def _current(self) -> RetryShares:
        if not self._coordinator.serving:
            raise NotServing("the books are not open here: retry")
        if self._shares.epoch != self._coordinator.epoch:
            self._shares = RetryShares(self._coordinator.epoch, self._clock.monotonic())
        return self._shares
