"""
Which incarnation of each pod may acquire, and what it was last answered. Pure.

A nonce is born with the sidecar's write-ahead log: a new one for the same pod means that the old log is lost or
copied, so the old nonce acquires no more (it may still report what it spent).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from spendmesh_operator.ledger.books.accounts import Holder, HolderFenced, NotYours
from spendmesh_operator.ledger.document.pages import Pages
from spendmesh_sidecar.protocol import AcquireReply

ANSWERS_KEPT = 4
"""Per pod. A sidecar repeats only its newest requests, one or two at a time."""
RETIRED_KEPT = 16
TURNS_MAX = 8
TURNS_MS = 600_000
"""A pod may begin anew so often in so long, without its log: more than a crashing container does, which is restarted
ever more slowly, and few enough that what is stranded each time stays small."""
PODS_PER_PAGE = 128
"""A record takes 300 bytes to 1 kB."""


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
    member: str = ""
    """The cluster that it runs in, where several share the books: only that one knows when it is gone or silent."""
    replaced_ms: tuple[int, ...] = ()
    """Unix time of the last changes of its nonce, the newest first."""


class Pods:
    """All pods that hold or held leases."""

    def __init__(self) -> None:
        self.member = ""
        """Cluster of the pods that are served here."""
        self.records: dict[str, PodRecord] = {}
        self.pages: Pages[str] = Pages(PODS_PER_PAGE)
        """Where each pod's record is stored."""
        self._owner: dict[str, str] = {}

    def check_owner(self, holder: Holder) -> None:
        """Raises NotYours if the nonce is another pod's."""
        if self._owner.get(holder.nonce, holder.uid) != holder.uid:
            raise NotYours("this nonce belongs to another pod")

    def admit(self, holder: Holder, now_ms: int) -> str | None:
        """
        Note a sign of life of an acquiring incarnation. Answers the nonce that it replaces, if it is new.

        Raises NotYours, or HolderFenced for a nonce that was replaced or frozen.
        """
        self.check_owner(holder)
        record = self.records.get(holder.uid)
        if record is None:
            self.restore(holder.uid, PodRecord(holder.name, holder.nonce, member=self.member))
            return None
        if self.retired(holder):
            raise HolderFenced("this nonce was replaced or frozen: take a new one")
        if record.gone or record.member != self.member:
            record.gone, record.member = False, self.member
            self.pages.note(holder.uid)
        if record.nonce == holder.nonce:
            return None
        replaced = record.nonce
        record.retired = _newest(replaced, record.retired)
        record.nonce = holder.nonce
        record.replaced_ms = (now_ms, *record.replaced_ms)[:TURNS_MAX]
        record.granted.clear()
        record.denied.clear()
        self.pages.note(holder.uid)
        self._owner[holder.nonce] = holder.uid
        return replaced

    def turns(self, uid: str, now_ms: int) -> int:
        """How often the pod has begun anew lately."""
        record = self.records.get(uid)
        return sum(now_ms - TURNS_MS < at_ms for at_ms in record.replaced_ms) if record is not None else 0

    def restless(self, holder: Holder, now_ms: int) -> bool:
        """Whether this is one incarnation too many for now; one that was admitted stays so."""
        record = self.records.get(holder.uid)
        known = record is None or holder.nonce == record.nonce or self.retired(holder)
        return not known and self.turns(holder.uid, now_ms) >= TURNS_MAX

    def retire(self, holder: Holder) -> None:
        """The nonce acquires no more."""
        if (record := self.records.get(holder.uid)) is not None and holder.nonce not in record.retired:
            record.retired = _newest(holder.nonce, record.retired)
            self.pages.note(holder.uid)

    def retired(self, holder: Holder) -> bool:
        """Whether this nonce acquires no more."""
        record = self.records.get(holder.uid)
        return record is not None and holder.nonce in record.retired

    def restore(self, uid: str, record: PodRecord) -> None:
        """Add a pod, also from the stored books."""
        self.records[uid] = record
        self.pages.note(uid)
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
        self.pages.note(uid)
        while len(granted) > ANSWERS_KEPT:
            del granted[next(iter(granted))]

    def remember_denial(self, uid: str, request_id: str, reply: AcquireReply) -> None:
        """Keep the answer of a request that was denied."""
        denied = self.records[uid].denied
        denied[request_id] = reply
        while len(denied) > ANSWERS_KEPT:
            del denied[next(iter(denied))]

    def living(self) -> frozenset[str]:
        """UIDs of all pods of this cluster but those that were said to be deleted."""
        return frozenset(uid for uid in self.records if self.owns(uid) and not self.records[uid].gone)

    def owns(self, uid: str) -> bool:
        """Whether the pod runs in this cluster; one that is not known does."""
        record = self.records.get(uid)
        return record is None or record.member == self.member

    def is_gone(self, uid: str) -> bool:
        """Whether the pod was deleted, as far as was said."""
        record = self.records.get(uid)
        return record is not None and record.gone

    def mark_there(self, uids: Iterable[str]) -> bool:
        """These pods exist, whatever was said before. Answers whether that is news."""
        back = [uid for uid in uids if self.is_gone(uid)]
        for uid in back:
            self.records[uid].gone = False
            self.pages.note(uid)
        return bool(back)

    def mark_gone(self, uid: str) -> None:
        """The pod was deleted."""
        if (record := self.records.get(uid)) is not None and not record.gone:
            record.gone = True
            self.pages.note(uid)

    def forget_gone(self, with_leases: Collection[str]) -> bool:
        """Drop deleted pods that hold nothing. Answers whether any was dropped."""
        dropped = [uid for uid, record in self.records.items() if record.gone and uid not in with_leases]
        for uid in dropped:
            record = self.records.pop(uid)
            self.pages.remove(uid)
            for nonce in (record.nonce, *record.retired):
                self._owner.pop(nonce, None)
        return bool(dropped)


def _newest(nonce: str, retired: tuple[str, ...]) -> tuple[str, ...]:
    return (nonce, *(other for other in retired if other != nonce))[:RETIRED_KEPT]
