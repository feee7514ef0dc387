"""
What only the leader does: keep the books, tell them what was compiled and which pods there are, write statuses.

The books' own fence (their epoch) is what keeps two leaders from granting at once; the election only keeps them from
trying. Nothing here knows Kubernetes: it is handed a link, a coordinator and something that runs while it leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from spendmesh_operator.compile import Compiled
from spendmesh_operator.index import Index
from spendmesh_operator.ledger.books.accounts import LedgerError
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_operator.ledger.document.sections import LedgerUnreadable
from spendmesh_operator.ledger.stores.base import LedgerStoreError

RETRY_SECONDS: Final = 1.0
UNREADABLE_RETRY_SECONDS: Final = 15.0
"""A person has to act first."""
RETELL_SECONDS: Final = 30.0

log = logging.getLogger(__name__)


class Terms(Protocol):
    """When this replica leads."""

    async def elected(self) -> None: ...
    async def deposed(self) -> None: ...


class Leading:
    """`run` for ever; `compiled` after each compilation."""

    def __init__(
        self,
        terms: Terms,
        coordinator: Coordinator,
        index: Index,
        compiled: Callable[[], Compiled | None],
        while_leading: Callable[[], Awaitable[None]],
    ) -> None:
        self._terms = terms
        self._coordinator = coordinator
        self._index = index
        self._compiled = compiled
        self._while_leading = while_leading
        self._news = asyncio.Event()

    def tell(self) -> None:
        """There is a new compilation."""
        self._news.set()

    async def run(self) -> None:
        """Lead whenever elected, until cancelled."""
        while True:
            await self._terms.elected()
            await self._reign()

    async def _reign(self) -> None:
        deposed = asyncio.ensure_future(self._terms.deposed())
        duties = [
            asyncio.ensure_future(duty) for duty in (self._keep_books(), self._inform_books(), self._while_leading())
        ]
        try:
            finished, _ = await asyncio.wait([deposed, *duties], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (deposed, *duties):
                task.cancel()
            await asyncio.gather(deposed, *duties, return_exceptions=True)
            await self._coordinator.stop()
        for task in finished - {deposed}:
            task.result()  # a duty never ends by itself: this raises what ended it

    async def _keep_books(self) -> None:
        while True:
            try:
                await self._coordinator.start()
            except LedgerUnreadable as error:
                log.error("the books cannot be used, nothing is granted: %s", error)
                await asyncio.sleep(UNREADABLE_RETRY_SECONDS)
                continue
            except LedgerStoreError as error:
                log.warning("the books cannot be opened: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._news.set()
            log.warning("the coordinator ended: %s", await self._coordinator.wait_ended())
            await asyncio.sleep(RETRY_SECONDS)

    async def _inform_books(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RETELL_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass  # once in a while anyway: the books may have been restored
            self._news.clear()
            if self._coordinator.serving:
                try:
                    await self._inform_once()
                except LedgerError as error:
                    log.warning("the books were not told: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    self._news.set()

    async def _inform_once(self) -> None:
        compiled = self._compiled()
        if compiled is None:
            return
        valid = {f"{key.namespace}/{key.name}": spec for key, spec in compiled.budgets.items()}
        exist = {f"{key.namespace}/{key.name}" for key in compiled.verdicts if key.kind == "ModelBudget"}
        await self._coordinator.remember(valid, exist)
        await self._coordinator.pods_are(self._index.pod_uids())
