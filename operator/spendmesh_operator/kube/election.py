"""
Which replica leads: a Lease (coordination.k8s.io) that the leader renews and others watch run out.

The rules are client-go's: nobody compares clocks of two machines. A replica measures, on its own monotonic clock,
how long it has seen the same record; a leader that could not renew for a while stops leading before others may begin.
The Lease also says where the leader's control server is. What a leader does is not here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from spendmesh_operator.kube import paths
from spendmesh_operator.kube.client import Conflict, Kube, KubeError, NotFound

Json = dict[str, Any]

LEASE_SECONDS: Final = 7
"""How long others wait without news: half of client-go's default, so that after a leader's death rights are granted
again within ten seconds. Two leaders at once would cost time, not money: the books' epoch fences the older one."""
RENEW_DEADLINE_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
STEP_TIMEOUT_SECONDS: Final = 2.0
"""Two attempts fit into the renewal deadline."""

ADDRESS_ANNOTATION: Final = "spendmesh.io/control-address"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """A Lease as this replica saw it; `seen_at` is when this version of it was first seen (own monotonic seconds)."""

    version: str
    holder: str
    lease_seconds: float
    transitions: int
    address: str
    seen_at: float

    def expired(self, now: float) -> bool:
        """Nobody holds it, or it has not changed for as long as it promised."""
        return not self.holder or now >= self.seen_at + self.lease_seconds


def observe(lease: Json, previous: Record | None, now: float) -> Record:
    """Read a Lease; an unchanged version keeps the time at which it was first seen."""
    metadata, spec = lease.get("metadata") or {}, lease.get("spec") or {}
    version = str(metadata.get("resourceVersion", ""))
    unchanged = previous is not None and previous.version == version
    return Record(
        version=version,
        holder=str(spec.get("holderIdentity") or ""),
        lease_seconds=float(spec.get("leaseDurationSeconds") or LEASE_SECONDS),
        transitions=int(spec.get("leaseTransitions") or 0),
        address=str((metadata.get("annotations") or {}).get(ADDRESS_ANNOTATION, "")),
        seen_at=previous.seen_at if unchanged and previous is not None else now,
    )


def step(record: Record | None, identity: str, now: float) -> Literal["create", "take", "renew", "wait"]:
    """What a candidate does next."""
    if record is None:
        return "create"
    if record.holder == identity:
        return "renew"
    return "take" if record.expired(now) else "wait"


class Election:
    """
    One candidate. `run` until cancelled; it then gives the Lease back, so that another leads within a second or two.

    Is a `LeaderLink` of the control server.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        own_address: str,
        monotonic: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`identity` is new for each process, so that a restarted one does not take itself for the leader."""
        self._kube = kube
        self._collection = paths.collection(paths.COORDINATION, "leases", namespace)
        self._path = paths.item(paths.COORDINATION, "leases", namespace, name)
        self._name = name
        self._identity = identity
        self._own_address = own_address
        self._monotonic = monotonic
        self._wall = wall
        self._record: Record | None = None
        self._leader_until = float("-inf")
        self._leading = asyncio.Event()
        self._following = asyncio.Event()
        self._following.set()

    def is_leader(self) -> bool:
        """True while no other replica can hold the Lease, also if this process was stopped for a while."""
        return self._monotonic() < self._leader_until

    def address(self) -> str | None:
        """Where the leader's control server is, as far as this replica knows."""
        if self.is_leader():
            return self._own_address
        record = self._record
        if record is None or record.expired(self._monotonic()):
            return None
        return record.address or None

    async def elected(self) -> None:
        """Wait until this replica leads."""
        await self._leading.wait()

    async def deposed(self) -> None:
        """Wait until this replica no longer leads."""
        await self._following.wait()

    async def run(self) -> None:
        """Stand for election for ever; on cancellation give the Lease back."""
        try:
            while True:
                await self._try_once()
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            was_leader = self.is_leader()
            self._leader_until = float("-inf")
            self._announce()
            if was_leader:
                await self._release()

    async def _try_once(self) -> None:
        started = self._monotonic()
        try:
            async with asyncio.timeout(STEP_TIMEOUT_SECONDS):
                if await self._hold():
                    # Counted from before the request: the server may have written at any moment since.
                    self._leader_until = started + RENEW_DEADLINE_SECONDS
                else:
                    self._leader_until = float("-inf")
        except Conflict:
            pass  # somebody else wrote; the next round reads
        except (KubeError, TimeoutError) as error:
            log.warning("the Lease could not be read or renewed: %s", str(error) or "no answer in time")
        self._announce()

    async def _hold(self) -> bool:
        try:
            lease: Json | None = await self._kube.get(self._path)
        except NotFound:
            lease = None
        now = self._monotonic()
        self._record = observe(lease, self._record, now) if lease is not None else None
        action = step(self._record, self._identity, now)
        if action == "wait":
            return False
        if action == "create" or lease is None:
            written = await self._kube.create(self._collection, self._lease({}, transitions=0, is_new=True))
        else:
            transitions = int((lease.get("spec") or {}).get("leaseTransitions") or 0) + (action == "take")
            written = await self._kube.replace(
                self._path, self._lease(lease, transitions=transitions, is_new=action == "take")
            )
        self._record = observe(written, None, self._monotonic())
        return True

    def _lease(self, old: Json, *, transitions: int, is_new: bool) -> Json:
        time = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = {**(old.get("metadata") or {"name": self._name})}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ADDRESS_ANNOTATION: self._own_address}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": time if is_new else (old.get("spec") or {}).get("acquireTime", time),
                "renewTime": time,
                "leaseTransitions": transitions,
            },
        }

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(STEP_TIMEOUT_SECONDS):
                lease = await self._kube.get(self._path)
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") != self._identity:
                    return
                lease["spec"] = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._kube.replace(self._path, lease)
        except (KubeError, TimeoutError) as error:
            log.warning("the Lease was not given back, others wait %s s: %s", LEASE_SECONDS, error)

    def _announce(self) -> None:
        if self.is_leader() and not self._leading.is_set():
            log.info("this replica leads", extra={"identity": self._identity})
            self._following.clear()
            self._leading.set()
        elif not self.is_leader() and self._leading.is_set():
            log.warning("this replica no longer leads", extra={"identity": self._identity})
            self._leading.clear()
            self._following.set()
