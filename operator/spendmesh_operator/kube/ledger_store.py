"""
The books in BudgetLedger objects, each written by compare-and-swap on its resourceVersion. Implements `LedgerStore`.

What goes where and in which order is decided in `ledger_layout`, how an object looks in `ledger_objects`. A newer
epoch is first written into the index, then into every shard: after that no older coordinator finds a version that it
knows.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from spendmesh_operator.kube import paths
from spendmesh_operator.kube.client import Conflict as KubeConflict, Kube, KubeError, NotFound
from spendmesh_operator.kube.ledger_layout import Layout, Plan, Shard, arrange, plan
from spendmesh_operator.kube.ledger_objects import (
    Index,
    Mark,
    check_shards,
    index_body,
    read_index,
    read_shard,
    shard_body,
    shard_name,
    whole_commits,
)
from spendmesh_operator.ledger.document import format_one
from spendmesh_operator.ledger.stores.base import (
    Commit,
    Conflict,
    Document,
    Fenced,
    Stored,
    Unavailable,
    check_expected,
)

Json = dict[str, Any]

READ_ATTEMPTS: Final = 5
READ_PAUSE_SECONDS: Final = 0.1
"""A stale answer or a writer at work are over in a moment; what is still wrong then is."""

WRITES_AT_ONCE: Final = 8
"""A new epoch writes all objects, and must be done before the coordinator gives up on its store."""

log = logging.getLogger("spendmesh.ledger")


@dataclass
class _Known:
    """What this process believes is stored, and the resourceVersions that it goes by."""

    index: Index | None = None
    layout: Layout = field(default_factory=Layout)
    versions: dict[str, str] = field(default_factory=dict)
    """resourceVersion by object name; "" is not in it."""
    commits: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()

    @property
    def token(self) -> str:
        """One version for all objects together; empty for none."""
        if not self.versions:
            return ""
        return hashlib.sha256(repr(sorted(self.versions.items())).encode()).hexdigest()[:32]

    @property
    def epoch(self) -> int:
        return self.index.mark.epoch if self.index is not None else 0

    @property
    def sections(self) -> Mapping[str, Document]:
        if self.index is not None and self.index.older is not None:
            return {format_one.SECTION: self.index.older}
        return {name: section.document for name, section in self.layout.sections.items()}


class BudgetLedgerStore:
    """
    Objects in the operator's namespace, named after the ledger domain.

    So another cluster name starts new books beside the old ones, and going back to the old name finds the old ones.
    """

    def __init__(self, kube: Kube, namespace: str, domain: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._domain = domain
        self._known: _Known | None = None
        self._seen: dict[int, int] = {}
        """Newest version of each shard that this process has read or written: an older answer is a stale one."""
        self._doubtful: set[str] = set()
        """Objects of which a write may still arrive."""
        self._undropped: frozenset[str] = frozenset()
        """Dropped sections whose removal may not have been carried out."""

    async def read(self) -> Stored:
        """All sections. Raises Fenced for objects that are missing or older than they must be, and Unavailable."""
        self._known = None
        self._known = known = await self._read()
        sections = copy.deepcopy(dict(known.sections))
        return Stored(known.token, sections, known.epoch, known.commits, known.partial)

    async def write(self, commit: Commit) -> str:
        """Raises Conflict, Fenced or Unavailable; sections may have been written then, each of them whole."""
        known, self._known = self._known or await self._read(), None
        if known.token != commit.expected:
            known = await self._read()
        check_expected(commit, known.token, known.epoch)
        try:
            await self._carry_out(known, commit)
        except (KubeConflict, NotFound) as error:
            raise await self._lost(commit, error) from error
        except KubeError as error:
            raise Unavailable(f"the books may not be written: {error}") from error
        self._known = known
        return known.token

    async def close(self) -> None:
        """Nothing of its own to close: the connection is the caller's."""

    # --- reading ------------------------------------------------------------------------------------------

    async def _read(self) -> _Known:
        for attempt in range(1, READ_ATTEMPTS + 1):
            last = attempt == READ_ATTEMPTS
            try:
                known = await self._read_once()
            except Fenced:
                if last:
                    raise
            except KubeError as error:
                raise Unavailable(f"the books cannot be read: {error}") from error
            else:
                if known is not None and not self._older(known):
                    self._seen = {number: shard.version for number, shard in known.layout.shards.items()}
                    return known
                if known is not None and last:
                    # Restored, so that no commit of ours is in it. What is only stale is found out by the next write.
                    return replace(known, commits=frozenset(), partial=frozenset())
            await asyncio.sleep(READ_PAUSE_SECONDS * attempt)
        raise Unavailable("the books change all the time while they are read: does a second operator write them?")

    def _older(self, known: _Known) -> bool:
        """Whether a shard is older than this process has seen it."""
        return any(shard.version < self._seen.get(number, 0) for number, shard in known.layout.shards.items())

    async def _read_once(self) -> _Known | None:
        """What is stored, or None if it changed meanwhile. Raises Fenced and KubeError."""
        stored = await self._get(self._domain)
        if stored is None:
            await self._check_nothing_stored()
            return _Known()
        index = read_index(self._domain, stored)
        objects = await asyncio.gather(*(self._get(shard_name(self._domain, each)) for each in index.lowest))
        again = await self._get(self._domain)
        if again is None or _version(again) != _version(stored):
            return None
        there = {number: each for number, each in zip(index.lowest, objects, strict=True) if each is not None}
        found = {number: read_shard(each) for number, each in there.items()}
        check_shards(self._domain, index, found)
        marks = [index.mark, *(mark for _, mark in found.values())]
        return _Known(
            index,
            arrange(index.mark.epoch, index.lowest, {number: shard for number, (shard, _) in found.items()}),
            {each["metadata"]["name"]: _version(each) for each in (stored, *there.values())},
            whole_commits(marks),
            frozenset(mark.commit for mark in marks),
        )

    async def _check_nothing_stored(self) -> None:
        prefix = shard_name(self._domain, 0).removesuffix("0")
        items, _ = await self._kube.list(self._path())
        left = sorted(name for one in items if (name := one["metadata"]["name"]).startswith(prefix))
        if left:
            raise Fenced(
                f"the BudgetLedger {self._domain} is missing, but its parts are there ({', '.join(left)}): restore it, "
                "or delete the parts to begin with empty books; see docs/ledger.md"
            )

    async def _get(self, name: str) -> Json | None:
        try:
            return await self._kube.get(self._path(name))
        except NotFound:
            return None

    # --- writing ------------------------------------------------------------------------------------------

    async def _carry_out(self, known: _Known, commit: Commit) -> None:
        """Write a plan object by object; `known` follows what is certain."""
        drop = (commit.drop | self._undropped) - commit.put.keys()
        numbers = [each for each in known.layout.shards if shard_name(self._domain, each) in self._doubtful]
        index_doubtful = self._domain in self._doubtful or (known.index is not None and known.index.older is not None)
        planned = plan(known.layout, replace(commit, drop=drop), numbers, index_doubtful)
        mark = Mark(commit.epoch, commit.id, planned.parts)
        if known.index is None or commit.epoch > known.epoch:
            claimed = known.index or Index(mark, {})
            await self._write_index(known, replace(claimed, mark=Mark(commit.epoch, f"{commit.id}-begins", 1)))
        await self._write_shards(known, planned.first, mark)
        if planned.index is not None:
            await self._write_index(known, Index(mark, planned.index))
        self._undropped = drop
        for number, shard in planned.last.items():
            await self._write_shard(known, number, shard, mark)
        await self._delete(known, planned)
        self._undropped = frozenset()
        known.layout, known.commits = planned.after, frozenset({commit.id})
        self._seen = {number: shard.version for number, shard in planned.after.shards.items()}

    async def _write_index(self, known: _Known, index: Index) -> None:
        body = index_body(self._domain, known.versions.get(self._domain, ""), index)
        await self._put(known, self._domain, body)
        known.index = index

    async def _write_shards(self, known: _Known, shards: Mapping[int, Shard], mark: Mark) -> None:
        """A few at once, in any order; all have ended when this does, also after a failure."""
        turns = asyncio.Semaphore(WRITES_AT_ONCE)

        async def write(number: int, shard: Shard) -> None:
            async with turns:
                await self._write_shard(known, number, shard, mark)

        writing = (write(number, shard) for number, shard in shards.items())
        for outcome in await asyncio.gather(*writing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _write_shard(self, known: _Known, number: int, shard: Shard, mark: Mark) -> None:
        name = shard_name(self._domain, number)
        expected = known.versions.get(name) or await self._abandoned(name, mark)
        await self._put(known, name, shard_body(self._domain, number, expected, shard, mark))

    async def _put(self, known: _Known, name: str, body: Json) -> None:
        exists = "resourceVersion" in body["metadata"]
        writing = self._kube.replace(self._path(name), body) if exists else self._kube.create(self._path(), body)
        known.versions[name] = _version(await self._settled(name, writing))

    async def _settled(self, name: str, writing: Awaitable[Json]) -> Json:
        """The answer of a write. Without one, and also when nobody waits any longer, it may still arrive."""
        self._doubtful.add(name)
        try:
            answer = await writing
        except (KubeConflict, NotFound):
            self._doubtful.discard(name)
            raise
        self._doubtful.discard(name)
        return answer

    async def _abandoned(self, name: str, mark: Mark) -> str:
        """
        resourceVersion of an object that a commit left behind before the index named it; empty if there is none.

        Only one of an older epoch, or of our own, is overwritten: of a newer one it may be in use in a moment.
        """
        found = await self._get(name)
        if found is None:
            return ""
        if found["spec"]["epoch"] > mark.epoch:
            raise KubeConflict(409, "Conflict", f"{name} is of a newer epoch")
        return _version(found)

    async def _delete(self, known: _Known, planned: Plan) -> None:
        """Shards that the index names no longer. One that stays is overwritten when its number is needed again."""
        for number in planned.removed:
            name = shard_name(self._domain, number)
            try:
                await self._kube.delete(self._path(name), known.versions.pop(name))
            except KubeError as error:
                log.info("an empty part of the books stays: %s", error)

    async def _lost(self, commit: Commit, error: KubeError) -> Conflict:
        try:
            epoch = (await self._read()).epoch
        except Fenced as fenced:
            return fenced
        except Unavailable:
            epoch = 0
        if epoch > commit.epoch:
            return Fenced(f"epoch {epoch} has begun; this one is {commit.epoch}")
        return Conflict(f"the books have changed: {error}")

    def _path(self, name: str = "") -> str:
        plural = paths.PLURALS["BudgetLedger"]
        if not name:
            return paths.collection(paths.SPENDMESH, plural, self._namespace)
        return paths.item(paths.SPENDMESH, plural, self._namespace, name)


def _version(stored: Json) -> str:
    version: str = stored["metadata"]["resourceVersion"]
    return version
