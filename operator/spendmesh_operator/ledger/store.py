"""
Where the books are kept: the protocol of all stores, and one in memory for tests.

A store keeps one document with compare-and-swap. Nothing here knows what the document says, but for its `epoch`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol


class LedgerStoreError(Exception):
    """Base of what a store answers when it did not do as asked."""


class Conflict(LedgerStoreError):
    """The stored version is not the expected one: read again. Certain not to have been applied."""


class Fenced(Conflict):
    """A coordinator of a newer epoch has written: this one must stop granting."""


class Unavailable(LedgerStoreError):
    """The outcome is not known; the write may have been applied. Read again and look for the commit id."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds. `version` "" and no document: nothing was ever written."""

    version: str
    document: dict[str, Any] | None
    commit_id: str = ""


class LedgerStore(Protocol):
    """Durable, strictly serializable storage of one document."""

    async def read(self) -> Stored:
        """The newest document. Raises Unavailable."""

    async def write(self, document: dict[str, Any], expected_version: str, commit_id: str) -> str:
        """
        Replace the document if its version is still `expected_version` ("": if there is none), and keep `commit_id`
        with it. Answers the new version; when it returns, the document survives the loss of the machine.

        Raises Conflict, Fenced (the stored `epoch` is newer than the document's), Unavailable.
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
        self._stored = Stored("", None)

    async def read(self) -> Stored:
        return copy.deepcopy(self._stored)

    async def write(self, document: dict[str, Any], expected_version: str, commit_id: str) -> str:
        fault = self.fault()
        if fault == "unavailable":
            raise Unavailable("the store did not answer")
        check_expected(self._stored, document, expected_version)
        if fault == "conflict":
            raise Conflict("another writer was faster")
        self.writes += 1
        self._stored = Stored(str(self.writes), copy.deepcopy(document), commit_id)
        if fault == "drop-after-commit":
            raise Unavailable("the reply was lost")
        return self._stored.version

    async def close(self) -> None:
        """Nothing is held open."""


def check_expected(stored: Stored, document: dict[str, Any], expected_version: str) -> None:
    """The compare of compare-and-swap. Raises Fenced or Conflict."""
    if stored.document is not None and stored.document["epoch"] > document["epoch"]:
        raise Fenced(f"epoch {stored.document['epoch']} has begun; this one is {document['epoch']}")
    if stored.version != expected_version:
        raise Conflict(f"version is {stored.version!r}, expected {expected_version!r}")
