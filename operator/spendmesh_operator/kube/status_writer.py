"""
Writes conditions and numbers onto users' objects: the leader only, by server-side apply, no more often than it helps.

What a status says, and when a change is worth a write, is `spendmesh_operator.status`; here is what was written last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from spendmesh_operator.clock import Clock
from spendmesh_operator.compile import Compiled, Verdict
from spendmesh_operator.control.hub import Hub
from spendmesh_operator.control.sightings import HEARD_ALL_SECONDS, Troubles
from spendmesh_operator.index import KINDS, ObjectKey
from spendmesh_operator.kube import events, paths
from spendmesh_operator.kube.client import Kube, KubeError, NotFound
from spendmesh_operator.ledger.books.views import AccountView
from spendmesh_operator.manifests import API_VERSION
from spendmesh_operator.retries.pool import PoolView
from spendmesh_operator.status import (
    PodState,
    Status,
    apply_document,
    changed_enough,
    events as events_of,
    limit_views,
    programmed,
    shared_pool,
    status_of,
)
from spendmesh_operator.workloads import MountedKey

Json = dict[str, Any]

PAUSE_SECONDS: Final = 0.5
"""Between two rounds: many acknowledgements of one rollout are one round."""
REST_SECONDS: Final = 5.0
"""Between two rounds when nobody says that something changed: use grows without a word."""
HANDOVER_SECONDS: Final = 20.0
"""A new leader has heard no acknowledgement yet; so long it takes nothing back for that reason."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """What statuses are made of, at one moment."""

    compiled: Compiled
    pods: Mapping[str, PodState]
    accounts: tuple[AccountView, ...] | None
    """None: the books cannot be read."""
    uids: Mapping[ObjectKey, str]
    differs: Mapping[str, str] = field(default_factory=dict)
    """How budgets differ from those of other clusters with the same books: `namespace/name` -> sentence."""
    troubles: Troubles = field(default_factory=Troubles)
    """What only sidecars see."""
    shared: tuple[PoolView, ...] = ()
    """Retry budgets that pods share."""


@dataclass
class Written:
    """What an object's status is, as far as we know."""

    uid: str
    status: Status = field(default_factory=dict)
    at: float = float("-inf")


class StatusWriter:
    """`run` while this replica leads; `wake` when something has changed."""

    def __init__(self, kube: Kube, facts: Callable[[], Facts | None], clock: Clock, namespace: str = "") -> None:
        """`facts` answers None while nothing has been compiled; `namespace`: the only one that is served, or empty."""
        self._kube = kube
        self._namespace = namespace
        self._facts = facts
        self._clock = clock
        self._written: dict[ObjectKey, Written] = {}
        self._changed = asyncio.Event()
        self._began = 0.0

    def wake(self) -> None:
        """Look again soon."""
        self._changed.set()

    async def run(self) -> None:
        """Read what is there, then write what changes, until cancelled."""
        await self._begin()
        while True:
            self._changed.clear()
            await self.write_round()
            try:
                async with asyncio.timeout(REST_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(PAUSE_SECONDS)

    async def write_round(self) -> None:
        """Write every status that is worth it now."""
        facts = self._facts()
        if facts is None:
            return
        for gone in self._written.keys() - facts.compiled.verdicts.keys():
            del self._written[gone]
        for key, verdict in facts.compiled.verdicts.items():
            known = self._written.get(key)
            if known is None or known.uid != facts.uids.get(key, ""):
                known = self._written[key] = Written(facts.uids.get(key, ""))
            try:
                new = self._status(verdict, facts, known.status)
            except Exception:  # one object must not keep the others from being told
                log.exception("the status of %s cannot be made", key)
                continue
            if self._is_due(known, new):
                await self._write(key, known, new)

    async def _begin(self) -> None:
        while True:
            try:
                self._written = await self._read_all()
            except KubeError as error:
                log.warning("statuses cannot be read: %s", error)
                await asyncio.sleep(REST_SECONDS)
            else:
                self._began = self._clock.monotonic()
                return

    async def _read_all(self) -> dict[ObjectKey, Written]:
        found: dict[ObjectKey, Written] = {}
        for kind in KINDS:
            path = paths.collection(paths.SPENDMESH, paths.PLURALS[kind], self._namespace)
            for raw in (await self._kube.list(path))[0]:
                metadata = raw["metadata"]
                key = ObjectKey(kind, metadata["namespace"], metadata["name"])
                found[key] = Written(metadata["uid"], raw.get("status") or {})
        return found

    def _status(self, verdict: Verdict, facts: Facts, old: Status) -> Status:
        key = verdict.key
        budget = facts.compiled.budgets.get(key)
        now = datetime.fromtimestamp(self._clock.unix(), UTC)
        limits = None
        if budget is not None and facts.accounts is not None:
            limits = limit_views(budget, facts.accounts, now)
        return status_of(
            verdict,
            programmed(verdict, facts.compiled, facts.pods),
            limits=limits,
            old=old,
            now=now,
            observed=budget is not None and budget.mode == "Observe",
            readable=budget is not None,
            differs=facts.differs.get(budget.name, "") if budget is not None else "",
            troubles=facts.troubles,
            heard_all=self._clock.monotonic() - self._began >= HEARD_ALL_SECONDS,
            shared=shared_pool(f"{key.namespace}/{key.name}", facts.shared) if key.kind == "RetryBudget" else None,
        )

    def _is_due(self, known: Written, new: Status) -> bool:
        now = self._clock.monotonic()
        if now - self._began < HANDOVER_SECONDS and _takes_back(known.status, new):
            return False
        return changed_enough(known.status, new, now - known.at)

    async def _write(self, key: ObjectKey, known: Written, new: Status) -> None:
        path = paths.item(paths.SPENDMESH, paths.PLURALS[key.kind], key.namespace, key.name, "status")
        try:
            await self._kube.apply(path, apply_document(key, new))
        except NotFound:
            return  # deleted; the watch will tell
        except KubeError as error:
            log.warning("the status of %s was not written: %s", key, error)
            return
        drafts = events_of(known.status, new)
        known.status, known.at = new, self._clock.monotonic()
        metadata = {"name": key.name, "namespace": key.namespace, "uid": known.uid}
        about = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata}
        for draft in drafts:
            await events.publish(self._kube, about, draft, datetime.fromtimestamp(self._clock.unix(), UTC))


def pod_states(hub: Hub, given: Mapping[str, frozenset[MountedKey] | None]) -> dict[str, PodState]:
    """What each pod said last, and which keys it was `given` (from the index), by uid."""
    obeyed = {uid: digest for digest, uids in hub.programmed().items() for uid in uids}
    nacks, missing = hub.nacks(), hub.missing_keys()
    return {
        uid: PodState(
            digest=obeyed.get(uid, ""),
            error=nacks[uid].error if uid in nacks else "",
            missing_keys=missing.get(uid, ()),
            mounted=given.get(uid),
        )
        for uid in {*obeyed, *nacks, *missing, *given}
    }


def _takes_back(old: Status, new: Status) -> bool:
    """Whether something that was programmed, or read from the books, is now merely not known yet."""
    if old.get("observedGeneration") != new.get("observedGeneration"):
        return False
    before = {one["type"]: one for one in _conditions(old)}
    for condition in _conditions(new):
        known = before.get(condition["type"])
        if known is None or (known["status"], known["reason"]) == (condition["status"], condition["reason"]):
            continue
        if condition["reason"] in ("Pending", "LedgerUnavailable"):
            return True
    return False


def _conditions(status: Status) -> Iterable[Json]:
    return status.get("conditions") or ()
