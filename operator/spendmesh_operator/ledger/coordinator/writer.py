"""
The single writer of the books: a queue of changes, committed in groups, revealed only when durable. I/O shell.

One task owns the books. It applies a change in memory, writes the sections that it changed, and only then answers
(I3). An idle store is written at once, a busy one once per `commit_interval_seconds`. When another version
is found, the books are read again and every waiting change is evaluated anew. A newer epoch ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.coordinator.committer import Committer, Ended
from spendmesh_operator.ledger.coordinator.operations import Operation
from spendmesh_operator.ledger.coordinator.serving import CoordinatorSettings, NotServing
from spendmesh_operator.ledger.stores.base import LedgerStoreError

log = logging.getLogger("spendmesh.ledger")

MAX_WAITING: Final = 10_000
"""Changes in the queue; each caller waits for one, and a coordinator serves a few thousand sidecars."""

REFRESH_SECONDS: Final = 1.0
"""How old may be what other clusters wrote, for statuses; before a refusal they are read in any case."""

T = TypeVar("T")


class Writer:
    """`begin`, then `run` in a task of its own; `submit` from anywhere on the loop."""

    def __init__(self, committer: Committer, settings: CoordinatorSettings, now_ms: Callable[[], int]) -> None:
        self._committer = committer
        self._settings = settings
        self._now_ms = now_ms
        self._queue: asyncio.Queue[Operation] = asyncio.Queue(MAX_WAITING)
        self._ended: asyncio.Future[str] | None = None

    def begin(self) -> None:
        """Take changes from now on."""
        self._ended = asyncio.get_running_loop().create_future()

    @property
    def serving(self) -> bool:
        """Whether changes are taken."""
        return self._ended is not None and not self._ended.done()

    async def wait_ended(self) -> str:
        """Wait until it no longer serves; answers why."""
        return "not started" if self._ended is None else await asyncio.shield(self._ended)

    async def submit(self, change: Callable[[Books, int], T]) -> T:
        """Apply a change; its answer, once it is durable. Raises NotServing and what the change raises."""
        if not self.serving:
            raise NotServing("no coordinator serves here: retry")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(Operation(change, answer))
        except asyncio.QueueFull as error:
            raise NotServing(f"{MAX_WAITING} changes wait already: retry later") from error
        return await answer

    async def run(self) -> None:
        """Serve until `end`, or until another coordinator has taken over."""
        waiting: list[Operation] = []
        try:
            while True:
                waiting.clear()
                await self._gather(waiting)
                await self._commit(waiting)
        except Ended as ended:
            log.error("the coordinator ends: %s", ended)
            self.end(str(ended))
        finally:
            self.end("failed")
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
            waiting.append(operation)  # before anything is read: that may end the coordinator
            if await self._readable(operation):
                await self._apply(operation)
                if self._committer.dirty:
                    continue
                operation.reveal()
            waiting.pop()

    async def _apply(self, operation: Operation) -> None:
        """On books as fresh as it takes where other clusters write them, too: a refusal needs what is there now."""
        await self._committer.refresh(REFRESH_SECONDS)
        operation.apply(self._committer.books, self._now_ms())
        if not self._committer.dirty and operation.denied and await self._committer.refresh():
            operation.reconsider(self._committer.books, self._now_ms())

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
                operation.apply(self._committer.books, self._now_ms())
            outcome = await self._committer.try_commit()
        for operation in waiting:
            self._committer.check_durable(operation.revision)
            operation.reveal()
        for alarm in self._committer.books.take_alarms():
            log.error("%s", alarm)

    def end(self, reason: str) -> None:
        """Take no more changes, and refuse those that wait."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)
        while not self._queue.empty():
            self._queue.get_nowait().fail(NotServing("the coordinator ended: retry"))
