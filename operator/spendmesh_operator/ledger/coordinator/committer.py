"""
The books in memory and in their store, kept equal section by section. I/O shell of `coordinator`; decides nothing.

After a write whose outcome is unknown the store is read again: our commit id in it means that the write was applied.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Literal

from spendmesh_operator.ledger.books.accounts import InvariantViolated
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.coordinator.serving import CoordinatorSettings
from spendmesh_operator.ledger.document.sections import decode, take_changes
from spendmesh_operator.ledger.stores.base import (
    Commit,
    Conflict,
    Fenced,
    LedgerStore,
    LedgerStoreError,
    Stored,
    Unavailable,
)

log = logging.getLogger("spendmesh.ledger")

_PAUSE_SECONDS = 0.2
_BEGIN_ATTEMPTS = 10
_UNSURE_KNOWN = 64
"""More than are made while any write can still be on its way."""


Outcome = Literal["committed", "reread", "unknown"]
"""reread: the write was not applied and the books were read again, so all that waits must be applied again."""


class Ended(Exception):
    """Another epoch has begun, or the store went back in time: nothing more may be written before the next `begin`."""


class Committer:
    """Holds the books, the version that they were read or written at, and what of them is durable."""

    def __init__(
        self,
        store: LedgerStore,
        rng: Random,
        domain: str,
        settings: CoordinatorSettings,
        committed: Callable[[str], None],
    ) -> None:
        self.books = Books(domain)
        self.epoch = 0
        self.loaded = False
        """False while the outcome of the last write is unknown."""
        self.written_at = float("-inf")
        """Loop time of the last write."""
        self._store = store
        self._rng = rng
        self._domain = domain
        self._timeout_seconds = settings.store_timeout_seconds
        self._member = settings.member
        self._committed = committed
        self._version = ""
        self._durable_revision = 0
        self._pending = ""
        self._refreshed_at = float("-inf")
        self._durable_commit = ""
        self._unsure_commits: deque[str] = deque(maxlen=_UNSURE_KNOWN)
        """Those after it, of which one may yet turn out to be durable."""

    @property
    def dirty(self) -> bool:
        """Whether the books hold a change that is not durable."""
        return self.books.revision != self._durable_revision

    def check_durable(self, revision: int) -> None:
        """I3: raises InvariantViolated for a change that is not in the store."""
        if revision > self._durable_revision:
            raise InvariantViolated(f"revision {revision} would be revealed before it is durable")

    async def begin(self, now_ms: int) -> bool:
        """
        Read the books and write them under a new epoch. True: they are older than what was last written here.

        Raises LedgerStoreError or LedgerUnreadable.
        """
        for _ in range(_BEGIN_ATTEMPTS):
            found = await self._read()
            restored = self._went_back(found)
            self._adopt(found)
            self.books.raise_epoch(max(self.books.epoch, self.epoch) + 1)
            self.books.begin_life(f"{self._rng.getrandbits(24):06x}-", now_ms)
            commit_id = self._new_commit_id()
            try:
                version = await self._write(commit_id)
            except Conflict:
                await self._pause()
                continue
            except Unavailable:
                stored = await self._read()
                if commit_id not in stored.commits:
                    raise
                self._accept_found(stored, commit_id)
                return restored
            self._accept(version, commit_id)
            return restored
        raise Conflict(
            f"{_BEGIN_ATTEMPTS} attempts to raise the epoch met another writer: does a second cluster use it?"
        )

    async def try_commit(self) -> Outcome:
        """Write the books once. Raises Ended when another coordinator has taken over."""
        self._pending = self._new_commit_id()
        self._unsure_commits.append(self._pending)
        try:
            version = await self._write(self._pending)
        except Fenced as error:
            raise Ended(str(error)) from error
        except LedgerStoreError as error:
            self._committed("conflict" if isinstance(error, Conflict) else "unavailable")
            log.warning("commit: %s", error)
            return await self.resolve()
        self._accept(version, self._pending)
        return "committed"

    async def resolve(self) -> Outcome:
        """Find out what became of the last write. Raises Ended."""
        await self._pause()
        try:
            stored = await self._read()
        except Fenced as error:
            raise Ended(str(error)) from error
        except LedgerStoreError as error:
            log.warning("commit: its outcome is not known yet: %s", error)
            return "unknown"
        if self._pending in stored.commits:
            self._accept_found(stored, self._pending)
            return "committed"
        self._continue_from(stored)
        return "reread"

    async def reload(self) -> None:
        """Read the books. Raises LedgerStoreError, or Ended when they are another coordinator's or incomplete."""
        try:
            self._continue_from(await self._read())
        except Fenced as error:
            raise Ended(str(error)) from error

    async def refresh(self, at_most_every_seconds: float = 0.0) -> bool:
        """
        Where other clusters write the same books: read them, unless there is a change to commit, which would find out.

        Answers whether somebody else had written. Raises Ended; a store that does not answer changes nothing.
        """
        now = asyncio.get_running_loop().time()
        if not self._member or self.dirty or not self.loaded or now < self._refreshed_at + at_most_every_seconds:
            return False
        self._refreshed_at = now
        try:
            stored = await self._read()
        except Fenced as error:
            raise Ended(str(error)) from error
        except LedgerStoreError as error:
            log.warning("the books of other clusters cannot be read: %s", error)
            return False
        if stored.version == self._version:
            return False
        self._continue_from(stored)
        return True

    def forget(self) -> None:
        """The outcome of the last write stays unknown: the books must be read before the next decision."""
        self.loaded = False

    def _continue_from(self, stored: Stored) -> None:
        if stored.epoch != self.epoch:
            raise Ended(f"the store holds epoch {stored.epoch}, this coordinator has {self.epoch}")
        if self._went_back(stored):
            raise Ended("the store holds older books of this epoch than were written: it was restored")
        before = self.books
        self._adopt(stored)
        self.books.go_on_from(before)

    def _went_back(self, stored: Stored) -> bool:
        """Whether a store that we wrote holds less now than we know to be durable."""
        if not self.epoch:
            return False
        ours = {self._durable_commit, *self._unsure_commits} & (stored.commits | stored.partial)
        return stored.epoch < self.epoch or (stored.epoch == self.epoch and not ours)

    def _adopt(self, stored: Stored) -> None:
        self.books = decode(stored.sections, self._domain, self._member)
        self.books.epoch = stored.epoch
        self._version = stored.version
        self._durable_revision = self.books.revision
        self.loaded = True

    def _accept(self, version: str, commit_id: str) -> None:
        self._durable_commit = commit_id
        self._unsure_commits.clear()
        self._version = version
        self._durable_revision = self.books.revision
        self.epoch = self.books.epoch
        self.loaded = True
        self._committed("ok")

    def _accept_found(self, stored: Stored, commit_id: str) -> None:
        """
        Our commit is in the store. Where other clusters write too, one may have written after it: these books are read
        before the next decision, since under the newest version they would overwrite what they do not have.
        """
        self._accept(stored.version, commit_id)
        self.loaded = not self._member

    async def _read(self) -> Stored:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._store.read()
        except TimeoutError as error:
            raise Unavailable(f"the store was silent for {self._timeout_seconds:g} s") from error

    async def _write(self, commit_id: str) -> str:
        self.written_at = asyncio.get_running_loop().time()
        changes = take_changes(self.books)
        commit = Commit(commit_id, self.books.epoch, self._version, changes.put, changes.drop)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._store.write(commit)
        except TimeoutError as error:
            raise Unavailable(f"the store was silent for {self._timeout_seconds:g} s") from error

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.random() * _PAUSE_SECONDS)

    def _new_commit_id(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"
