"""
A store whose books may still be in another one, from which they move here. I/O shell of `document.moves`.

Nothing is remembered between a read and a write: a copy is written only if both stores still hold what was read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from spendmesh_operator.ledger.document.moves import (
    CLOSED,
    COPY,
    NotMoved,
    Place,
    copied,
    decide,
    is_open,
    marked,
    opened,
)
from spendmesh_operator.ledger.document.records import HEAD
from spendmesh_operator.ledger.stores.base import (
    Commit,
    Conflict,
    Document,
    Fenced,
    LedgerStore,
    LedgerStoreError,
    Stored,
)

log = logging.getLogger("spendmesh.ledger")

_MOVE = "move:"


@dataclass(frozen=True, slots=True)
class Kept:
    """A store with its name."""

    store: LedgerStore
    place: Place


class MovingStore:
    """`LedgerStore` of the books `here`. Those that are only `there` are read there, and move with the first write."""

    def __init__(self, here: Kept, there: Kept) -> None:
        self._here = here
        self._there = there
        self._looked = False

    async def read(self) -> Stored:
        """As the store; raises Fenced also where neither has books that may be used."""
        here = await self._here.store.read()
        if is_open(here.sections):
            await self._look_there()
            return here
        there = await self._there.store.read()
        verdict = self._decide(here, there)
        if verdict == "copy":
            epoch = max(here.epoch, there.epoch)
            return Stored(_token(here, there), self._copied(there.sections), epoch)
        return replace(here, sections=opened(here.sections)) if verdict == "open" else here

    async def write(self, commit: Commit) -> str:
        """As the store. The first write of books that move carries the move out; cut short, it is begun again."""
        if not commit.expected.startswith(_MOVE):
            return await self._here.store.write(commit)
        here, there = await self._here.store.read(), await self._there.store.read()
        if _token(here, there) != commit.expected:
            raise Conflict("the books have changed while they moved")
        return await self._move(commit, here, there)

    async def close(self) -> None:
        await self._here.store.close()
        await self._there.store.close()

    async def _move(self, commit: Commit, here: Stored, there: Stored) -> str:
        sections = {**self._copied(there.sections), **commit.put}
        kept = {name: document for name, document in sections.items() if name not in commit.drop}
        left = there.sections[HEAD]
        # Nobody who still writes there under an older epoch can change what is copied now.
        fence = Commit(f"{commit.id}-fence", commit.epoch, there.version, {HEAD: left})
        fenced = await self._there.store.write(fence)
        copy: Mapping[str, Document] = {**kept, HEAD: marked(kept[HEAD], COPY, commit.id, self._there.place)}
        stale = frozenset(here.sections.keys() - kept.keys())
        version = await self._here.store.write(Commit(f"{commit.id}-copy", commit.epoch, here.version, copy, stale))
        closed = {HEAD: marked(left, CLOSED, commit.id, self._here.place)}
        await self._there.store.write(Commit(f"{commit.id}-close", commit.epoch, fenced, closed))
        version = await self._here.store.write(Commit(commit.id, commit.epoch, version, {HEAD: kept[HEAD]}))
        log.warning("the books have moved from %s to %s", self._there.place.name, self._here.place.name)
        return version

    def _decide(self, here: Stored, there: Stored) -> str:
        try:
            return decide(here.sections, there.sections, self._there.place)
        except NotMoved as error:
            raise Fenced(str(error)) from error

    def _copied(self, sections: Mapping[str, Document]) -> dict[str, Document]:
        return copied(sections, self._there.place, self._here.place)

    async def _look_there(self) -> None:
        """Tell once of books that nobody counts: those of a cluster that came to a store which has books already."""
        if self._looked:
            return
        self._looked = True
        try:
            there = await self._there.store.read()
        except LedgerStoreError:
            return
        if is_open(there.sections):
            log.warning("there are other books in %s, which count for nothing here", self._there.place.name)


def _token(here: Stored, there: Stored) -> str:
    """A version of both together, which neither store has."""
    return _MOVE + hashlib.sha256(f"{here.version}/{there.version}".encode()).hexdigest()[:32]
