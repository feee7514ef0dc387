"""Group commit: everyone who waits for the disk at one time shares one sync, off the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Sync = Callable[[], None]
Failed = Callable[[OSError], Exception]


class GroupSync:
    """
    Runs one sync at a time; who comes while one runs waits for the next, which begins after what it wrote.

    `prepare` is called on the loop and answers what to run in the thread. If that raises OSError, `failed` hears it
    and answers what everybody is told who waits then: a later sync that succeeds says nothing of what was lost.
    """

    def __init__(self, prepare: Callable[[], Sync], failed: Failed) -> None:
        self._prepare = prepare
        self._failed = failed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-sync")
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self.syncs = 0
        """How many were made."""

    async def wait(self) -> None:
        """Return when all that was written before this call is on the disk. Raises what `failed` answers."""
        ticket = asyncio.get_running_loop().create_future()
        self._waiting.append(ticket)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="ledger-sync")
        await ticket

    def close(self) -> None:
        """No more syncs; waits for the one that runs."""
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._prepare())
                except OSError as error:
                    told = self._failed(error)
                    batch += self._waiting
                    self._waiting = []
                    for ticket in batch:
                        if not ticket.done():
                            ticket.set_exception(told)
                    continue
                self.syncs += 1
                for ticket in batch:
                    if not ticket.done():
                        ticket.set_result(None)
        finally:
            self._task = None
