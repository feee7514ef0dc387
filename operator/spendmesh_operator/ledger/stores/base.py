"""
Where the books are kept: the protocol of all stores, and one in memory for tests.

A store keeps named sections. Nothing here knows what they say.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Document = dict[str, Any]


class LedgerStoreError(Exception):
    """Base of what a store answers when it did not do as asked."""


class Conflict(LedgerStoreError):
    """What is stored is not what was expected: read again. Some sections of the commit may have been stored."""


class Fenced(Conflict):
    """
    A coordinator of a newer epoch has written, or something that was stored is missing or older than it must be:
    this one must stop granting. Never read as zero.
    """


class Unavailable(LedgerStoreError):
    """The outcome is not known; the write may have been applied. Read again and look for the commit id."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds. `version` "" and no sections: nothing was ever written."""

    version: str = ""
    sections: Mapping[str, Document] = field(default_factory=dict)
    epoch: int = 0
    """Of the newest writer; older ones are fenced."""
    commits: frozenset[str] = frozenset()
    """Ids of the newest commits that are stored with all their sections."""
    partial: frozenset[str] = frozenset()
    """Ids of commits of which something is stored, or something is stored no longer."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One change of the stored books. A store makes `put` durable first, and removes `drop` after it."""

    id: str
    epoch: int
    expected: str
    """The version that was read or written last; "" if there is none."""
    put: Mapping[str, Document]
    drop: frozenset[str] = frozenset()


class LedgerStore(Protocol):
    """Durable storage of sections. One writer at a time has the newest version; others are told so."""

    async def read(self) -> Stored:
        """All that is stored. Raises Fenced or Unavailable."""

    async def write(self, commit: Commit) -> str:
        """
        Apply a commit if the stored version is still the expected one. Answers the new version; when it returns, all
        sections survive the loss of the machine.

        An error may leave some sections stored, each of them whole. Raises Conflict, Fenced, Unavailable.
        """

    async def close(self) -> None:
        """Release what the store holds open."""


Fault = Literal["conflict", "unavailable", "drop-after-commit"]


class MemoryStore:
    """
    A store that lives as long as the process. `fault` is asked before each write and may break it.

    drop-after-commit applies the write and then answers Unavailable, as a lost reply does.
    """

    def __init__(self, fault: Callable[[], Fault | None] = lambda: None) -> None:
        self.fault = fault
        self.writes = 0
        self._stored = Stored()

    async def read(self) -> Stored:
        return copy.deepcopy(self._stored)

    async def write(self, commit: Commit) -> str:
        fault = self.fault()
        if fault == "unavailable":
            raise Unavailable("the store did not answer")
        check_expected(commit, self._stored.version, self._stored.epoch)
        if fault == "conflict":
            raise Conflict("another writer was faster")
        self.writes += 1
        kept = {**self._stored.sections, **copy.deepcopy(dict(commit.put))}
        for name in commit.drop:
            kept.pop(name, None)
        self._stored = Stored(str(self.writes), kept, commit.epoch, frozenset({commit.id}))
        if fault == "drop-after-commit":
            raise Unavailable("the reply was lost")
        return self._stored.version

    async def close(self) -> None:
        """Nothing is held open."""


def check_expected(commit: Commit, version: str, epoch: int) -> None:
    """The compare of compare-and-swap. Raises Fenced or Conflict."""
    if epoch > commit.epoch:
        raise Fenced(f"epoch {epoch} has begun; this one is {commit.epoch}")
    if version != commit.expected:
        raise Conflict(f"version is {version!r}, expected {commit.expected!r}")
