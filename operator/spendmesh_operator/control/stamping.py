"""
The stamp of a digest, from our own book at the leader, from the leader at a follower. I/O shell of `stamps`.

A follower keeps answers for a moment only: what comes into force again gets a new number that it must not miss.
"""

from __future__ import annotations

import logging
from typing import Final

from spendmesh_operator.clock import Clock
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.control.leader import LeaderClient, LeaderLink, LeaderUnreachable, StampQuery
from spendmesh_operator.control.stamps import StampBook
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_sidecar.protocol import HEARTBEAT_SECONDS, Stamp

UNSEEN: Final = Stamp(epoch=0, sequence=0)

log = logging.getLogger("spendmesh.control")


class Stamping:
    """Answers stamps for this replica's streams, and for other replicas when it leads."""

    def __init__(
        self, hub: Hub, coordinator: Coordinator, link: LeaderLink, client: LeaderClient, clock: Clock
    ) -> None:
        self._hub = hub
        self._coordinator = coordinator
        self._link = link
        self._client = client
        self._clock = clock
        self._book = StampBook()
        self._numbered: tuple[int, PolicyView] | None = None
        self._kept: dict[str, tuple[Stamp, float]] = {}
        self._kept_of: PolicyView | None = None
        self._last_error = ""

    @property
    def leads(self) -> bool:
        """Whether this replica numbers policies: elected, and with books that it may write."""
        return self._link.is_leader() and self._coordinator.serving

    async def stamp(self, digest: str, seen: Stamp = UNSEEN, fresh: bool = False) -> Stamp | None:
        """
        The stamp under which `digest` may be sent now; None: wait, it is not in force at the leader, or there is none.

        `seen` is the newest that the sidecar has seen. `fresh`: do not trust what was kept.
        """
        if self.leads:
            return await self.own_stamp(digest, seen)
        if self._kept_of is not self._hub.view:
            self._kept_of = self._hub.view
            self._kept = {kept: value for kept, value in self._kept.items() if kept in self._hub.view.digests}
        stamp, since = self._kept.get(digest, (None, 0.0))
        now = self._clock.monotonic()
        if stamp is not None and not fresh and now - since < HEARTBEAT_SECONDS:
            return stamp
        try:
            query = StampQuery(digest=digest, seen_epoch=seen.epoch, seen_sequence=seen.sequence)
            stamp = await self._client.stamp(query)
        except LeaderUnreachable as error:
            self._say(str(error))
            return stamp
        self._say("")
        if stamp is not None:
            self._kept[digest] = (stamp, now)
        return stamp

    async def own_stamp(self, digest: str, seen: Stamp) -> Stamp | None:
        """As the leader. A sidecar that saw a later stamp than we ever gave proves that the store went back in time."""
        if seen.epoch > self._coordinator.epoch:
            await self._coordinator.raise_epoch(seen.epoch)
        self._number()
        if seen > self._book.newest:
            # A leader whose books are lost had our epoch: only the next one is beyond it.
            await self._coordinator.raise_epoch(seen.epoch + 1)
            self._number()
        return self._book.stamp(digest)

    def _number(self) -> None:
        epoch, view = self._coordinator.epoch, self._hub.view
        if self._numbered is None or self._numbered[0] != epoch or self._numbered[1] is not view:
            # Once for all streams: each of thousands asks after every compilation.
            self._book.in_force(epoch, view.digests)
            self._numbered = epoch, view

    def _say(self, error: str) -> None:
        if error and error != self._last_error:
            log.warning("stamps: %s", error)
        self._last_error = error
