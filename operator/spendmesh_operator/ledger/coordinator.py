"""
The single writer of the books: a queue of changes, committed in groups, revealed only when durable. I/O shell.

One task owns the books. It applies a change in memory, writes the whole document by compare-and-swap, and only then
answers (I3). An idle store is written at once, a busy one once per `commit_interval_seconds`. When another version
is found, the books are read again and every waiting change is evaluated anew. A newer epoch ends this coordinator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from spendmesh_operator.clock import Clock
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.accounts import AccountKey, Holder, LedgerError
from spendmesh_operator.ledger.books import Books
from spendmesh_operator.ledger.committer import Committer, Ended
from spendmesh_operator.ledger.operations import Operation, PolicyInForce, limits_of
from spendmesh_operator.ledger.store import LedgerStore, LedgerStoreError
from spendmesh_operator.ledger.views import AccountView, view_of
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

MAX_WAITING = 10_000
"""Changes in the queue; each caller waits for one, and a coordinator serves a few thousand sidecars."""
RESTORES_APART_SECONDS = 60.0
FREEZES_APART_SECONDS = 3600.0
"""A pod's word alone must not stop everybody's grants again and again: a restore from a backup is rare."""
MAX_EPOCH_STEP = 1_000_000
"""How far ahead a sidecar may claim to have seen an epoch; leaders change far less often."""

T = TypeVar("T")


class NotServing(LedgerError):
    """This coordinator does not answer now (503): retry, perhaps elsewhere."""


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """How often to write, and when to stop waiting."""

    commit_interval_seconds: float = 1.0
    """Shortest time between two writes; 0 for a store of its own disk."""
    silence_seconds: float = 60.0
    """A holder without any report for this long is quarantined; sidecars report every 2 to 5 s."""
    sweep_seconds: float = 1.0
    store_timeout_seconds: float = 5.0
    recover_seconds: float = 10.0
    """How long callers wait for a store whose answer was lost."""
    restored_seconds: float = 15.0
    """No grants for this long after the store was found to be older than what sidecars have seen."""


class Coordinator:
    """
    Grants and takes reports for one ledger domain, once it is elected and `start`ed.

    `policy_of` answers the policy of a pod, None for a pod that is not known. `committed` hears the result of each
    write (`ok`, `conflict`, `unavailable`), for a metric.
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
    ) -> None:
        self._clock = clock
        self._policy_of = policy_of
        self._settings = settings or CoordinatorSettings()
        self._rng = rng
        self._committer = Committer(store, rng, domain, self._settings.store_timeout_seconds, committed)
        self._queue: asyncio.Queue[Operation] = asyncio.Queue(MAX_WAITING)
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: dict[str, float] = {}
        self._started_at = 0.0
        self._no_grants_until = 0.0
        self._restored_at = self._frozen_at = float("-inf")
        self._ended: asyncio.Future[str] | None = None

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Raise the epoch in the store, so that an older coordinator can write no more, and begin to serve.

        Raises LedgerStoreError when the store does not answer, LedgerUnreadable when it holds no usable books.
        """
        await self.stop()
        await self._committer.begin()
        self._started_at = self._clock.monotonic()
        self._heard.clear()
        self._ended = asyncio.get_running_loop().create_future()
        self._tasks = [
            asyncio.create_task(self._serve(), name="ledger-writer"),
            asyncio.create_task(self._sweep_regularly(), name="ledger-sweep"),
        ]
        log.info("serving the books of domain %s in epoch %d", self.books.domain, self.epoch)

    async def stop(self) -> None:
        """Answer what is committed, refuse what still waits, and stop. Nothing is given back."""
        self._end("stopped")
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("the coordinator had failed", exc_info=outcome)

    async def wait_ended(self) -> str:
        """Wait until it no longer serves; answers why. Call `start` again while still elected."""
        return "not started" if self._ended is None else await asyncio.shield(self._ended)

    @property
    def serving(self) -> bool:
        """Whether changes are taken."""
        return self._ended is not None and not self._ended.done()

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
        holder = _holder(pod, request.nonce)

        def change(books: Books, now_ms: int) -> AcquireReply:
            if self._clock.monotonic() < self._no_grants_until:
                refs = (want.account for want in request.wants)
                return AcquireReply(denials=tuple(Denial(account=ref, reason="unverifiable") for ref in refs))
            return books.acquire(holder, request, limits_of(self._policy_of(pod)), now_ms)

        return await self._submit(change)

    async def report(self, pod: PodIdentity, request: ReportRequest) -> ReportReply:
        """Merge cumulative reports, durable when this returns. Raises NotServing, BadRequest, NotYours."""
        self._heard[pod.uid] = self._clock.monotonic()
        holder = _holder(pod, request.nonce)
        return await self._submit(
            lambda books, now_ms: books.report(holder, request, limits_of(self._policy_of(pod)), now_ms)
        )

    # --- what the operator tells --------------------------------------------------------------------------

    async def pod_gone(self, uid: str) -> None:
        """The pod was deleted: charge what it holds in full. Its own final report may still lower that."""
        self._heard.pop(uid, None)
        await self._submit(lambda books, _: books.quarantine([uid], "gone"))

    async def remember(self, budgets: Mapping[str, BudgetSpec], exist: Collection[str]) -> None:
        """
        Keep the last valid meaning of budgets by `namespace/name`; changed amounts act at once. Call it after compile.

        `exist`: names of all budgets that there are, also of unreadable ones, which keep what they last meant.
        """
        kept, names = dict(budgets), frozenset(exist)
        await self._submit(lambda books, _: books.remember(kept, names))

    def remembered(self) -> dict[str, BudgetSpec]:
        """Last valid meanings, for compile."""
        return dict(self.books.remembered)

    async def correct(self, key: AccountKey, reference: str, delta: int, evidence: str) -> None:
        """Append a correction with its evidence, once per reference. Raises BadRequest."""
        await self._submit(lambda books, now_ms: books.correct(key, reference, delta, evidence, now_ms))

    async def raise_epoch(self, seen: int) -> None:
        """
        A sidecar has seen epoch `seen`. If that is newer than ours, the store was restored from a backup: begin an
        epoch beyond it, and grant nothing for a while, so that holders report first. Ignored if it was just done.
        """
        now = self._clock.monotonic()
        if not self.epoch < seen <= self.epoch + MAX_EPOCH_STEP or now < self._restored_at + RESTORES_APART_SECONDS:
            return
        log.error("a sidecar has seen epoch %d, the books are of %d: they were restored", seen, self.epoch)
        self._restored_at = now
        if now >= self._frozen_at + FREEZES_APART_SECONDS:
            self._frozen_at, self._no_grants_until = now, now + self._settings.restored_seconds
        await self._submit(lambda books, _: books.raise_epoch(seen + 1))

    async def sweep(self) -> None:
        """Quarantine silent holders, drop what has ended. Runs by itself; public for tests and tools."""
        now = self._clock.monotonic()

        def change(books: Books, now_ms: int) -> None:
            holders = books.holdings.holders()
            silent = [
                uid for uid in holders if now - self._heard.get(uid, self._started_at) > self._settings.silence_seconds
            ]
            if books.quarantine(silent, "silent"):
                log.warning("%d holders are silent: what they hold stays charged", len(silent))
            books.sweep(now_ms)

        await self._submit(change)

    # --- what people read ---------------------------------------------------------------------------------

    def states(self) -> dict[tuple[str, str, tuple[str, ...]], AccountState]:
        """(budget, limit, per) -> state of the running period."""
        return self.books.states(self._now_ms())

    def views(self) -> tuple[AccountView, ...]:
        """All running accounts in full, for status, metrics and reports."""
        return tuple(view_of(account, self._now_ms()) for account in self.books.current(self._now_ms()))

    # --- the one task that writes -------------------------------------------------------------------------

    async def _submit(self, change: Callable[[Books, int], T]) -> T:
        if not self.serving:
            raise NotServing("no coordinator serves here: retry")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(Operation(change, answer))
        except asyncio.QueueFull as error:
            raise NotServing(f"{MAX_WAITING} changes wait already: retry later") from error
        return await answer

    async def _serve(self) -> None:
        waiting: list[Operation] = []
        try:
            while True:
                waiting.clear()
                await self._gather(waiting)
                await self._commit(waiting)
        except Ended as ended:
            log.error("the coordinator ends: %s", ended)
            self._end(str(ended))
        finally:
            self._end("failed")
            for operation in waiting:
                operation.fail(NotServing("the coordinator ended before this was durable: retry under the same id"))

    async def _gather(self, waiting: list[Operation]) -> None:
        """Apply changes until there is something to write and the store may be written again."""
        loop = asyncio.get_running_loop()
        while True:
            due = self._committer.written_at + self._settings.commit_interval_seconds
            dirty = self._committer.loaded and self._committer.dirty
            if dirty and self._queue.empty() and loop.time() >= due:
                return
            try:
                async with asyncio.timeout_at(due if dirty else None):
                    operation = await self._queue.get()
            except TimeoutError:
                return
            if not await self._readable(operation):
                continue
            operation.apply(self.books, self._now_ms())
            if self._committer.dirty:
                waiting.append(operation)
            else:
                operation.reveal()

    async def _readable(self, operation: Operation) -> bool:
        """After an outcome that stayed unknown, read the books before anything is decided on them."""
        if self._committer.loaded:
            return True
        try:
            await self._committer.reload()
        except LedgerStoreError as error:
            operation.fail(NotServing(f"the books cannot be read: {error}"))
            return False
        return True

    async def _commit(self, waiting: list[Operation]) -> None:
        """Make what waits durable, however often it takes, then reveal it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.recover_seconds
        outcome = await self._committer.try_commit()
        while outcome != "committed":
            if loop.time() >= deadline:
                for operation in waiting:
                    operation.fail(NotServing("the store does not answer: retry under the same id"))
                self._committer.forget()
                return
            if outcome == "unknown":
                outcome = await self._committer.resolve()
                continue
            for operation in waiting:
                operation.apply(self.books, self._now_ms())
            outcome = await self._committer.try_commit()
        for operation in waiting:
            self._committer.check_durable(operation.revision)
            operation.reveal()
        for alarm in self.books.take_alarms():
            log.error("%s", alarm)

    async def _sweep_regularly(self) -> None:
        while self.serving:
            await asyncio.sleep(self._settings.sweep_seconds)
            try:
                await self.sweep()
            except LedgerError as error:
                log.warning("sweep: %s", error)

    def _end(self, reason: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)
        while not self._queue.empty():
            self._queue.get_nowait().fail(NotServing("the coordinator ended: retry"))

    def _now_ms(self) -> int:
        return int(self._clock.unix() * 1000)


def _holder(pod: PodIdentity, nonce: str) -> Holder:
    return Holder(pod.uid, f"{pod.namespace}/{pod.name}", nonce)
