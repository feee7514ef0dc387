"""
Which incarnation of each pod may acquire, and what it was last answered. Pure.

A nonce is born with the sidecar's write-ahead log: a new one for the same pod means that the old log is lost or
copied, so the old nonce acquires no more (it may still report what it spent).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from spendmesh_operator.ledger.accounts import Holder, HolderFenced, NotYours
from spendmesh_sidecar.protocol import AcquireReply

ANSWERS_KEPT = 4
"""Per pod. A sidecar repeats only its newest requests, one or two at a time."""
RETIRED_KEPT = 16


@dataclass(slots=True)
class PodRecord:
    """One pod: its living nonce, the ones before it, and its last answers."""

    name: str
    nonce: str
    retired: tuple[str, ...] = ()
    granted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Request id -> leases, oldest first; durable."""
    denied: dict[str, AcquireReply] = field(default_factory=dict)
    """Request id -> denials; changes nothing, so it need not survive the process."""
    gone: bool = False


class Pods:
    """All pods that hold or held leases."""

    def __init__(self) -> None:
        self.records: dict[str, PodRecord] = {}
        self._owner: dict[str, str] = {}

    def check_owner(self, holder: Holder) -> None:
        """Raises NotYours if the nonce is another pod's."""
        if self._owner.get(holder.nonce, holder.uid) != holder.uid:
            raise NotYours("this nonce belongs to another pod")

    def admit(self, holder: Holder) -> str | None:
        """
        Note a sign of life of an acquiring incarnation. Answers the nonce that it replaces, if it is new.

        Raises NotYours, or HolderFenced for a nonce that was replaced or frozen.
        """
        self.check_owner(holder)
        record = self.records.get(holder.uid)
        if record is None:
            self.restore(holder.uid, PodRecord(holder.name, holder.nonce))
            return None
        if self.retired(holder):
            raise HolderFenced("this nonce was replaced or frozen: take a new one")
        record.gone = False
        if record.nonce == holder.nonce:
            return None
        replaced = record.nonce
        record.retired = _newest(replaced, record.retired)
        record.nonce = holder.nonce
        record.granted.clear()
        record.denied.clear()
        self._owner[holder.nonce] = holder.uid
        return replaced

    def retire(self, holder: Holder) -> None:
        """The nonce acquires no more."""
        if (record := self.records.get(holder.uid)) is not None and holder.nonce not in record.retired:
            record.retired = _newest(holder.nonce, record.retired)

    def retired(self, holder: Holder) -> bool:
        """Whether this nonce acquires no more."""
        record = self.records.get(holder.uid)
        return record is not None and holder.nonce in record.retired

    def restore(self, uid: str, record: PodRecord) -> None:
        """Add a pod, also from the stored document."""
        self.records[uid] = record
        for nonce in (record.nonce, *record.retired):
            self._owner[nonce] = uid

    def answer(self, uid: str, request_id: str) -> AcquireReply | tuple[str, ...] | None:
        """What this request was answered: the denials themselves, or the leases that were granted."""
        record = self.records[uid]
        return record.denied.get(request_id) or record.granted.get(request_id)

    def remember_grant(self, uid: str, request_id: str, lease_ids: tuple[str, ...]) -> None:
        """Keep the answer of a request that was granted."""
        granted = self.records[uid].granted
        granted[request_id] = lease_ids
        while len(granted) > ANSWERS_KEPT:
            del granted[next(iter(granted))]

    def remember_denial(self, uid: str, request_id: str, reply: AcquireReply) -> None:
        """Keep the answer of a request that was denied."""
        denied = self.records[uid].denied
        denied[request_id] = reply
        while len(denied) > ANSWERS_KEPT:
            del denied[next(iter(denied))]

    def living(self) -> frozenset[str]:
        """UIDs of all pods but those that were said to be deleted."""
        return frozenset(uid for uid, record in self.records.items() if not record.gone)

    def mark_gone(self, uid: str) -> None:
        """The pod was deleted."""
        if (record := self.records.get(uid)) is not None:
            record.gone = True

    def forget_gone(self, with_leases: Collection[str]) -> bool:
        """Drop deleted pods that hold nothing. Answers whether any was dropped."""
        dropped = [uid for uid, record in self.records.items() if record.gone and uid not in with_leases]
        for uid in dropped:
            record = self.records.pop(uid)
            for nonce in (record.nonce, *record.retired):
                self._owner.pop(nonce, None)
        return bool(dropped)


def _newest(nonce: str, retired: tuple[str, ...]) -> tuple[str, ...]:
    return (nonce, *(other for other in retired if other != nonce))[:RETIRED_KEPT]
