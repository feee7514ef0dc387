"""
What sidecars and the operator ask of the books, while this replica keeps them. I/O shell of `books`.

Every change goes through `writer`, which answers only what is durable. Who leads is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import TypeVar

from spendmesh_operator.clock import Clock
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.books.accounts import AccountKey, Holder, LedgerError
from spendmesh_operator.ledger.books.books import Books, LimitsOf
from spendmesh_operator.ledger.books.correcting import correct, settle_quarantined
from spendmesh_operator.ledger.books.diverging import difference
from spendmesh_operator.ledger.books.partitions import PodPlace, named_place
from spendmesh_operator.ledger.books.restoring import Forgotten
from spendmesh_operator.ledger.books.views import AccountView, views_of
from spendmesh_operator.ledger.coordinator.committer import Committer
from spendmesh_operator.ledger.coordinator.operations import PolicyInForce, limits_of
from spendmesh_operator.ledger.coordinator.serving import (
    CoordinatorSettings as CoordinatorSettings,
    NotServing as NotServing,
    Restoration,
)
from spendmesh_operator.ledger.coordinator.telling import Untold, mark_told, untold
from spendmesh_operator.ledger.coordinator.writer import Writer
from spendmesh_operator.ledger.stores.base import LedgerStore
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.protocol import (
    AccountState,
    AcquireReply,
    AcquireRequest,
    Denial,
    ReportReply,
    ReportRequest,
)

log = logging.getLogger("spendmesh.ledger")

T = TypeVar("T")


class Coordinator:
    """
    Grants and takes reports for one ledger domain, once it is elected and `start`ed.

    `policy_of` answers the policy of a pod, None for a pod that is not known; `place_of` what limits may be divided by;
    `workload_of` the topmost owner of a pod by its uid. `committed` hears the result of each write (`ok`, `conflict`,
    `unavailable`), for a metric.
    """

    def __init__(
        self,
        store: LedgerStore,
        clock: Clock,
        rng: Random,
        policy_of: Callable[[PodIdentity], PolicyInForce | None],
        domain: str,
        settings: CoordinatorSettings | None = None,
        committed: Callable[[str], None] = lambda _: None,
        workload_of: Callable[[str], str] = lambda _: "",
        place_of: Callable[[PodIdentity], PodPlace] = named_place,
    ) -> None:
        self._clock = clock
        self._workload_of = workload_of
        self._policy_of = policy_of
        self._place_of = place_of
        self._settings = settings or CoordinatorSettings()
        self._committer = Committer(store, rng, domain, self._settings, committed)
        self._writer = Writer(self._committer, self._settings, self._now_ms)
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: dict[str, float] = {}
        self._started_at = self._swept_at = 0.0
        self._restoration = Restoration(self._settings.restored_seconds)

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Raise the epoch in the store, so that an older coordinator can write no more, and begin to serve. To be called
        by one task alone: two that begin at once would take each other's books for restored ones.

        Raises LedgerStoreError when the store does not answer, LedgerUnreadable when it holds no usable books.
        """
        await self.stop()
        restored = await self._committer.begin(self._now_ms())
        self._started_at = self._swept_at = self._clock.monotonic()
        if restored:
            log.error("the books are older than what was last written: they were restored")
            self._restoration.known(self._started_at)
        self._heard.clear()
        self._writer.begin()
        self._tasks = [
            asyncio.create_task(self._writer.run(), name="ledger-writer"),
            asyncio.create_task(self._sweep_regularly(), name="ledger-sweep"),
        ]
        log.info("serving the books of domain %s in epoch %d", self.books.domain, self.epoch)

    async def stop(self) -> None:
        """Answer what is committed, refuse what still waits, and stop. Nothing is given back."""
        self._writer.end("stopped")
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("the coordinator had failed", exc_info=outcome)

    async def wait_ended(self) -> str:
        """Wait until it no longer serves; answers why. Call `start` again while still elected."""
        return await self._writer.wait_ended()

    @property
    def serving(self) -> bool:
        """Whether changes are taken."""
        return self._writer.serving

    @property
    def epoch(self) -> int:
        """The epoch that this coordinator writes under; 0 before `start`."""
        return self._committer.epoch

    @property
    def books(self) -> Books:
        """The books as they are now, perhaps with changes that are not durable yet: to be read, never changed."""
        return self._committer.books

    # --- what sidecars ask --------------------------------------------------------------------------------

    async def acquire(self, pod: PodIdentity, request: AcquireRequest) -> AcquireReply:
        """Grant rights, durable when this returns. Raises NotServing, BadRequest, NotYours, HolderFenced."""
        self._heard[pod.uid] = self._clock.monotonic()
        holder = self._holder(pod, request.nonce)

        def change(books: Books, now_ms: int) -> AcquireReply:
            if self._restoration.freezes(self._clock.monotonic()):
                refs = (want.account for want in request.wants)
                return AcquireReply(denials=tuple(Denial(account=ref, reason="unverifiable") for ref in refs))
            return books.acquire(holder, request, self._limits_of(pod), now_ms)

        return await self._submit(change)

    async def report(self, pod: PodIdentity, request: ReportRequest) -> ReportReply:
        """Merge cumulative reports, durable when this returns. Raises NotServing, BadRequest, NotYours."""
        self._heard[pod.uid] = self._clock.monotonic()
        holder = self._holder(pod, request.nonce)

        def change(books: Books, now_ms: int) -> ReportReply:
            return books.report(holder, request, self._limits_of(pod), now_ms, self._when_forgotten())

        return await self._submit(change)

    # --- what the operator tells --------------------------------------------------------------------------

    async def pods_are(self, uids: Collection[str]) -> None:
        """
        These pods exist, and no other: charge what others hold in full. Their own final reports may still lower that.

        What is gone is read from the books each time, so that nothing is missed while nobody led or told.
        """
        known = frozenset(uids)

        def change(books: Books, _: int) -> None:
            if books.pods.mark_there(known):
                books.holdings.revision += 1
            gone = books.pods.living() - known
            books.quarantine(gone, "gone")
            for uid in gone:
                self._heard.pop(uid, None)

        await self._submit(change)

    async def remember(self, budgets: Mapping[str, BudgetSpec], exist: Collection[str]) -> None:
        """
        Keep the last valid meaning of budgets by `namespace/name`; changed amounts act at once. Call it after compile.

        `exist`: names of all budgets that there are, also of unreadable ones, which keep what they last meant.
        """
        kept, names = dict(budgets), frozenset(exist)
        await self._submit(lambda books, now_ms: books.remember(kept, names, now_ms))

    def remembered(self) -> dict[str, BudgetSpec]:
        """Last valid meanings, for compile."""
        return dict(self.books.remembered)

    async def correct(self, key: AccountKey, reference: str, delta: int, evidence: str) -> None:
        """Append a correction with its evidence, once per reference. Raises BadRequest."""
        await self._submit(lambda books, now_ms: correct(books, key, reference, delta, evidence, now_ms))

    async def settle_quarantined(self, key: AccountKey, pod: str, used: int, reference: str, evidence: str) -> None:
        """Settle a vanished pod's rights at what they cost, by proof. Raises BadRequest."""
        await self._submit(lambda books, now_ms: settle_quarantined(books, key, pod, used, reference, evidence, now_ms))

    async def raise_epoch(self, seen: int) -> None:
        """
        A sidecar has seen epoch `seen`. If that is newer than ours, the store was restored from a backup: begin an
        epoch beyond it, and for a while grant nothing and take back what holders report. Ignored if it was just done.
        """
        if self._restoration.begins(self.epoch, seen, self._clock.monotonic()):
            log.error("a sidecar has seen policies beyond epoch %d of the books: they were restored", self.epoch)
            await self._submit(lambda books, _: books.raise_epoch(seen + 1))

    async def sweep(self) -> None:
        """Quarantine silent holders, drop what has ended. Runs by itself; public for tests and tools."""
        now = self._clock.monotonic()
        elapsed_ms, self._swept_at = int((now - self._swept_at) * 1000), now

        def change(books: Books, now_ms: int) -> None:
            holders = books.holdings.holders()
            silent = [
                uid
                for uid in holders
                if books.pods.owns(uid)
                and now - self._heard.get(uid, self._started_at) > self._settings.silence_seconds
            ]
            if books.quarantine(silent, "silent"):
                log.warning("%d holders are silent: what they hold stays charged", len(silent))
            books.sweep(now_ms, elapsed_ms)

        await self._submit(change)

    async def untold(self) -> tuple[Untold, ...]:
        """Milestones that are durable and that people have not heard of."""
        return await self._submit(untold)

    async def mark_told(self, news: Untold) -> None:
        """People have heard it; durable when this returns."""
        await self._submit(lambda books, _: mark_told(books, news))

    # --- what people read ---------------------------------------------------------------------------------

    def states(self) -> dict[tuple[str, str, tuple[str, ...]], AccountState]:
        """(budget, limit, per) -> state of the running period."""
        return self.books.states(self._now_ms())

    def views(self) -> tuple[AccountView, ...]:
        """All running accounts in full, for status, metrics and reports."""
        return views_of(self.books.holdings, self._now_ms())

    def differences(self) -> dict[str, str]:
        """How budgets of this cluster differ from those of others that share the books: name -> sentence."""
        memory, now_ms = self.books.memory, self._now_ms()
        found = ((name, difference(spec, memory.elsewhere(name, now_ms))) for name, spec in memory.budgets.items())
        return {name: differs for name, differs in found if differs}

    # --- inside -------------------------------------------------------------------------------------------

    def _when_forgotten(self) -> Forgotten:
        now = self._clock.monotonic()
        if self._restoration.freezes(now):
            return "taken back"
        # Reports may come before the first sidecar says what it has seen.
        return "awaited" if now < self._started_at + self._settings.restored_seconds else "fenced"

    def _limits_of(self, pod: PodIdentity) -> LimitsOf:
        return limits_of(self._policy_of(pod), self._place_of(pod))

    async def _submit(self, change: Callable[[Books, int], T]) -> T:
        return await self._writer.submit(change)

    async def _sweep_regularly(self) -> None:
        while self.serving:
            await asyncio.sleep(self._settings.sweep_seconds)
            try:
                await self.sweep()
            except LedgerError as error:
                log.warning("sweep: %s", error)

    def _holder(self, pod: PodIdentity, nonce: str) -> Holder:
        return Holder(pod.uid, f"{pod.namespace}/{pod.name}", nonce, self._workload_of(pod.uid))

    def _now_ms(self) -> int:
        return int(self._clock.unix() * 1000)
