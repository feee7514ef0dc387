"""
The store of the books: what is durable, and how each replica reaches it.

A write is applied in the world, not in the process that asked for it: a killed coordinator's write still arrives.
Faults are armed for the next write or read of anybody: refused, applied in part, applied with the answer lost, applied
much later, an old copy read, the process killed just before or just after. A backup can be put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ledgersim.loop import ProcessLoop, Scheduler
from ledgersim.network import Network
from spendmesh_operator.ledger.books.accounts import Account, AccountKey
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.document.sections import HEAD, decode, section_name
from spendmesh_operator.ledger.stores.base import (
    Commit,
    Conflict,
    Document,
    LedgerStoreError,
    Stored,
    Unavailable,
    check_expected,
)

NAME = "store"
DOMAIN = "sim"
WRITE_FAULTS = ("unavailable", "torn", "conflict", "drop after commit", "late write", "kill before", "kill after")


@dataclass(frozen=True)
class Durable:
    """What is stored, and the newest commit of each cluster that writes it."""

    version: str = ""
    sections: Mapping[str, Document] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    commits: Mapping[str, str] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()

    def of(self, member: str) -> Stored:
        """As one cluster reads it."""
        commits = frozenset({self.commits[member]} if member in self.commits else ())
        return Stored(self.version, self.sections, self.epochs.get(member, 0), commits, self.partial)


@dataclass(frozen=True)
class Written:
    """What a write has changed in the durable books."""

    accounts: Mapping[AccountKey, Account]
    dropped: frozenset[AccountKey]
    member: str
    epoch: int
    unwritten: Mapping[AccountKey, Account]
    """Of a write that was torn: the accounts of which something is missing, as the whole write has them."""


class Disk:
    """Sections with compare-and-swap, as the stores of the product promise them."""

    def __init__(self, scheduler: Scheduler, network: Network, happened: Counter[str], *, shared: bool) -> None:
        self.armed: list[str] = []
        """Faults that wait for their write or read, oldest first."""
        self.on_commit: Callable[[Written], None] = lambda _: None
        self.on_restore: Callable[[Books, Books], None] = lambda *_: None
        self.kill: Callable[[str], None] = lambda _: None
        self.scheduler, self.network, self.happened = scheduler, network, happened
        self.shared = shared
        """Several clusters write it: each write is one transaction, so that none is ever stored in part."""
        self._stored = Durable()
        self._before = self._stored
        self._backup = self._stored
        self._version = 0
        self._key_of: dict[str, AccountKey] = {}
        self.unheard: set[str] = set()
        """Commits that were applied though their writer was told otherwise."""

    def books(self) -> Books:
        """The books as they are durable."""
        return decode(self._stored.sections, DOMAIN)

    def back_up(self) -> None:
        """Keep a copy."""
        self._backup = self._stored

    def restore(self) -> None:
        """Put the copy back: what was acknowledged since is forgotten."""
        if not self._backup.sections or self._backup is self._stored:
            return
        lost, self._version = self.books(), self._version + 1
        self._stored = self._before = replace(self._backup, version=f"{self._version}")
        self.happened["store restored"] += 1
        self.on_restore(lost, self.books())

    def take(self, *kinds: str) -> str:
        """The first armed fault of these kinds, which then is spent."""
        for kind in self.armed:
            if kind in kinds:
                self.armed.remove(kind)
                return kind
        return ""

    def take_write_fault(self) -> str:
        """What goes wrong with the next write; empty: nothing."""
        fault = self.take(*WRITE_FAULTS)
        if fault == "torn" and self.shared:
            fault = "unavailable"
        self.happened[f"store: {fault}"] += bool(fault)
        return fault

    def read(self, member: str) -> Stored:
        """The newest document, or under a fault the one before."""
        if self.take("stale read"):
            self.happened["store: stale read"] += 1
            return self._before.of(member)
        stored = self._stored.of(member)
        if found := stored.commits & self.unheard:
            self.unheard -= found
            self.happened["store: found again after its answer was lost"] += 1
        return stored

    def apply(self, member: str, commit: Commit) -> str:
        """Compare and swap. Raises Conflict or Fenced."""
        try:
            check_expected(commit, self._stored.version, self._stored.epochs.get(member, 0))
        except Conflict as conflict:
            self.happened[f"store: {type(conflict).__name__.lower()}"] += 1
            raise
        kept = {name: document for name, document in self._stored.sections.items() if name not in commit.drop}
        commits = {**self._stored.commits, member: commit.id}
        self._store(member, commit, {**kept, **commit.put}, commits, frozenset())
        self._told(member, commit, {*commit.put, *commit.drop}, {}, set())
        return self._stored.version

    def tear(self, member: str, commit: Commit) -> None:
        """Some sections of a commit are stored, each whole, and the writer hears nothing."""
        if commit.epoch < self._stored.epochs.get(member, 0) or commit.expected != self._stored.version:
            return
        names = sorted(commit.put)
        kept = self.scheduler.rng.sample(names, self.scheduler.rng.randrange(len(names) + 1))
        sections = {**self._stored.sections, **{name: commit.put[name] for name in kept}}
        self._store(member, commit, sections, self._stored.commits, frozenset({commit.id} if kept else ()))
        self._told(member, commit, set(kept), {**sections, **commit.put}, set(names) - set(kept))

    def _store(
        self,
        member: str,
        commit: Commit,
        sections: Mapping[str, Document],
        commits: Mapping[str, str],
        partial: frozenset[str],
    ) -> None:
        self._version += 1
        self._before = self._stored
        epochs = {**self._stored.epochs, member: commit.epoch}
        self._stored = Durable(f"{self._version}", sections, epochs, commits, partial)

    def _told(
        self, member: str, commit: Commit, names: set[str], whole: Mapping[str, Document], missing: set[str]
    ) -> None:
        """Only what was written is read: the rest is as it was. `missing`: sections of the `whole` that were not."""
        of = {_account_of(name) for name in names if name.startswith("account/")}
        found, unwritten = _accounts(self._stored.sections, of), _accounts(whole, {*map(_account_of, missing)})
        self._key_of.update((_account_of(section_name(key, 0)), key) for key in found)
        gone = frozenset(self._key_of[name] for name in of if name in self._key_of) - found.keys()
        self.on_commit(Written(found, gone, member, commit.epoch, unwritten))


def _account_of(section: str) -> str:
    return section.rpartition("/")[0]


def _accounts(sections: Mapping[str, Document], of: set[str]) -> Mapping[AccountKey, Account]:
    kept = {
        name: document
        for name, document in sections.items()
        if name == HEAD or (name.startswith("account/") and _account_of(name) in of)
    }
    return decode(kept, DOMAIN).holdings.accounts if HEAD in kept else {}


class DiskClient:
    """One replica's way to the store. A `LedgerStore`."""

    def __init__(self, disk: Disk, process: ProcessLoop, member: str, *, fast: bool) -> None:
        self._disk, self._process, self._member = disk, process, member
        self._seconds = 0.002 if fast else 0.05

    async def read(self) -> Stored:
        answer = self._process.create_future()
        if self._disk.network.cut(self._process.name, NAME):
            self._disk.happened["store unreachable"] += 1
            return await answer  # silence; the caller has a timeout
        self._later(lambda: self._answer(answer, lambda: self._disk.read(self._member)))
        return await answer

    async def write(self, commit: Commit) -> str:
        disk, name = self._disk, self._process.name
        answer = self._process.create_future()
        if disk.network.cut(name, NAME):
            disk.happened["store unreachable"] += 1
            return await answer
        fault = disk.take_write_fault()
        if fault == "torn":
            self._later(lambda: disk.tear(self._member, commit))
        if fault in ("unavailable", "kill before", "torn"):
            if fault == "kill before":
                disk.kill(name)
            self._later(lambda: self._raise(answer, Unavailable("the store did not answer")))
            return await answer
        if fault == "conflict":
            self._later(lambda: self._raise(answer, Conflict("another writer was faster")))
            return await answer

        def apply() -> None:
            if fault == "kill after":
                disk.kill(name)
            if fault in ("drop after commit", "late write"):
                disk.unheard.add(commit.id)
            deaf = self._process.create_future() if fault in ("drop after commit", "late write") else answer
            self._answer(deaf, lambda: disk.apply(self._member, commit))
            if fault == "drop after commit":
                self._raise(answer, Unavailable("the reply was lost"))

        if fault == "late write":
            disk.scheduler.after(disk.scheduler.rng.uniform(0.2, 4.0), apply)
            self._later(lambda: self._raise(answer, Unavailable("a gateway gave up")))
        else:
            self._later(apply)
        return await answer

    async def close(self) -> None:
        """Nothing is held open."""

    def _later(self, what: Callable[[], None]) -> None:
        scheduler = self._disk.scheduler
        scheduler.after(scheduler.rng.random() * self._seconds, what)

    def _answer(self, answer: Any, what: Callable[[], Any]) -> None:
        try:
            result = what()
        except LedgerStoreError as error:
            self._raise(answer, error)
            return
        self._process.call_soon(lambda: answer.done() or answer.set_result(result))

    def _raise(self, answer: Any, error: Exception) -> None:
        def settle() -> None:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()

        self._process.call_soon(settle)
