"""
The store of the books: what is durable, and how each replica reaches it.

A write is applied in the world, not in the process that asked for it: a killed coordinator's write still arrives.
Faults are armed for the next write or read of anybody: refused, applied in part, applied with the answer lost, applied
much later, an old copy read, the process killed just before or just after. A backup can be put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ledgersim.loop import ProcessLoop, Scheduler
from ledgersim.network import Network
from spendmesh_operator.ledger.books import Books
from spendmesh_operator.ledger.document import decode
from spendmesh_operator.ledger.store import Commit, Conflict, LedgerStoreError, Stored, Unavailable, check_expected

NAME = "store"
DOMAIN = "sim"
WRITE_FAULTS = ("unavailable", "torn", "conflict", "drop after commit", "late write", "kill before", "kill after")


class Disk:
    """Sections with compare-and-swap, as the stores of the product promise them."""

    def __init__(self, scheduler: Scheduler, network: Network, happened: Counter[str]) -> None:
        self.armed: list[str] = []
        """Faults that wait for their write or read, oldest first."""
        self.on_commit: Callable[[Books], None] = lambda _: None
        self.on_restore: Callable[[Books, Books], None] = lambda *_: None
        self.kill: Callable[[str], None] = lambda _: None
        self.scheduler, self.network, self.happened = scheduler, network, happened
        self._stored = Stored()
        self._before = self._stored
        self._backup = self._stored
        self._version = 0
        self.unheard: set[str] = set()
        """Commits that were applied though their writer was told otherwise."""

    def books(self) -> Books:
        """The books as they are durable."""
        return _books(self._stored)

    def back_up(self) -> None:
        """Keep a copy."""
        self._backup = self._stored

    def restore(self) -> None:
        """Put the copy back: what was acknowledged since is forgotten."""
        if not self._backup.sections or self._backup is self._stored:
            return
        lost, self._version = self._stored, self._version + 1
        self._stored = self._before = replace(self._backup, version=f"{self._version}")
        self.happened["store restored"] += 1
        self.on_restore(_books(lost), self.books())

    def take(self, *kinds: str) -> str:
        """The first armed fault of these kinds, which then is spent."""
        for kind in self.armed:
            if kind in kinds:
                self.armed.remove(kind)
                return kind
        return ""

    def read(self) -> Stored:
        """The newest document, or under a fault the one before."""
        if self.take("stale read"):
            self.happened["store: stale read"] += 1
            return self._before
        if found := self._stored.commits & self.unheard:
            self.unheard -= found
            self.happened["store: found again after its answer was lost"] += 1
        return self._stored

    def apply(self, commit: Commit) -> str:
        """Compare and swap. Raises Conflict or Fenced."""
        try:
            check_expected(commit, self._stored.version, self._stored.epoch)
        except Conflict as conflict:
            self.happened[f"store: {type(conflict).__name__.lower()}"] += 1
            raise
        self._version += 1
        self._before = self._stored
        kept = {name: document for name, document in self._stored.sections.items() if name not in commit.drop}
        self._stored = Stored(f"{self._version}", {**kept, **commit.put}, commit.epoch, frozenset({commit.id}))
        self.on_commit(self.books())
        return self._stored.version

    def tear(self, commit: Commit) -> None:
        """Some sections of a commit are stored, each whole, and the writer hears nothing."""
        if commit.epoch < self._stored.epoch or commit.expected != self._stored.version:
            return
        names = sorted(commit.put)
        kept = self.scheduler.rng.sample(names, self.scheduler.rng.randrange(len(names) + 1))
        sections = {**self._stored.sections, **{name: commit.put[name] for name in kept}}
        self._version += 1
        self._before = self._stored
        self._stored = Stored(
            f"{self._version}", sections, commit.epoch, self._stored.commits, frozenset({commit.id} if kept else ())
        )
        self.on_commit(self.books())


def _books(stored: Stored) -> Books:
    return decode(stored.sections, DOMAIN)


class DiskClient:
    """One replica's way to the store. A `LedgerStore`."""

    def __init__(self, disk: Disk, process: ProcessLoop, fast: bool) -> None:
        self._disk, self._process = disk, process
        self._seconds = 0.002 if fast else 0.05

    async def read(self) -> Stored:
        answer = self._process.create_future()
        if self._disk.network.cut(self._process.name, NAME):
            self._disk.happened["store unreachable"] += 1
            return await answer  # silence; the caller has a timeout
        self._later(lambda: self._answer(answer, self._disk.read))
        return await answer

    async def write(self, commit: Commit) -> str:
        disk, name = self._disk, self._process.name
        answer = self._process.create_future()
        if disk.network.cut(name, NAME):
            disk.happened["store unreachable"] += 1
            return await answer
        fault = disk.take(
            "unavailable", "torn", "conflict", "drop after commit", "late write", "kill before", "kill after"
        )
        if fault:
            disk.happened[f"store: {fault}"] += 1
        if fault == "torn":
            self._later(lambda: disk.tear(commit))
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
            self._answer(deaf, lambda: disk.apply(commit))
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
