"""
Tells each milestone of the books once, as an Event on its ModelBudget: the leader only. I/O shell.

The Event's name is the milestone's own, so that a second leader, or this one after a lost answer, writes no second
one; once it is written, the books are told, so that nobody says it again when the Event itself has expired.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

from spendmesh_operator.index import ObjectKey
from spendmesh_operator.kube import events
from spendmesh_operator.kube.client import Kube
from spendmesh_operator.ledger.books.accounts import LedgerError
from spendmesh_operator.ledger.coordinator.telling import Untold
from spendmesh_operator.manifests import API_VERSION
from spendmesh_operator.status.milestones import milestone_event

LOOK_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


class Milestones(Protocol):
    """The coordinator's part in it."""

    @property
    def serving(self) -> bool: ...
    async def untold(self) -> tuple[Untold, ...]: ...
    async def mark_told(self, news: Untold) -> None: ...


class BudgetEvents:
    """`run` while this replica leads. `uids`: of all objects that there are; None while that is not known."""

    def __init__(self, kube: Kube, milestones: Milestones, uids: Callable[[], Mapping[ObjectKey, str] | None]) -> None:
        self._kube = kube
        self._milestones = milestones
        self._uids = uids

    async def run(self) -> None:
        """Look and tell, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._milestones.serving:
                try:
                    await self.tell()
                except LedgerError as error:
                    log.warning("milestones cannot be told: %s", error)

    async def tell(self) -> None:
        """Tell what is new. What the API server refuses is tried again the next time. Raises LedgerError."""
        news = await self._milestones.untold()
        uids = self._uids() if news else None
        if uids is None:
            return
        for each in news:
            if await self._publish(each, uids):
                await self._milestones.mark_told(each)

    async def _publish(self, news: Untold, uids: Mapping[ObjectKey, str]) -> bool:
        """Whether it is said, or there is no budget any more that it could be said of."""
        namespace, name = news.view.key.budget.split("/", 1)
        uid = uids.get(ObjectKey("ModelBudget", namespace, name))
        if uid is None:
            return True
        metadata = {"name": name, "namespace": namespace, "uid": uid}
        about = {"apiVersion": API_VERSION, "kind": "ModelBudget", "metadata": metadata}
        at = datetime.fromtimestamp(news.milestone.at_ms / 1000, UTC)
        return await events.publish(self._kube, about, milestone_event(news), at, news.id)
