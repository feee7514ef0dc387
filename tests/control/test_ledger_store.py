"""
One suite for every `LedgerStore`: compare-and-swap, fencing, durability, and finding a lost commit again.

A store is added by a factory in `STORES` (fixtures by name, where it needs real parts).
"""

from __future__ import annotations

import asyncio
import stat
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane import ControlPlane
from spendmesh_operator.kube.client import Kube
from spendmesh_operator.kube.ledger_store import BudgetLedgerStore
from spendmesh_operator.ledger.sqlite import SQLiteStore
from spendmesh_operator.ledger.store import Conflict, Fenced, LedgerStore, MemoryStore, Stored, Unavailable

Open = Callable[[], AbstractAsyncContextManager[LedgerStore]]
"""Each call opens the same storage again, as another process would."""


def memory(_: pytest.FixtureRequest) -> Open:
    store = MemoryStore()

    @asynccontextmanager
    async def opened() -> AsyncIterator[LedgerStore]:
        yield store

    return opened


def sqlite(request: pytest.FixtureRequest) -> Open:
    path: Path = request.getfixturevalue("tmp_path") / "ledger.sqlite3"

    @asynccontextmanager
    async def opened() -> AsyncIterator[LedgerStore]:
        store = SQLiteStore(path)
        try:
            yield store
        finally:
            await store.close()

    return opened


def budget_ledger(request: pytest.FixtureRequest) -> Open:
    """One BudgetLedger object of a real API server, of a name of the test's own."""
    plane: ControlPlane = request.getfixturevalue("kinds")
    name = f"conformance-{uuid.uuid4().hex[:12]}"

    @asynccontextmanager
    async def opened() -> AsyncIterator[LedgerStore]:
        kube = await Kube.connect(str(plane.kubeconfig))
        try:
            yield BudgetLedgerStore(kube, "default", name)
        finally:
            await kube.close()

    return opened


STORES: dict[str, Callable[[pytest.FixtureRequest], Open]] = {
    "memory": memory,
    "sqlite": sqlite,
    "budget-ledger": budget_ledger,
}


@pytest.fixture(params=STORES, ids=list(STORES))
def opened(request: pytest.FixtureRequest) -> Open:
    """A way to open an empty storage, as often as a test likes."""
    return STORES[request.param](request)


def document(epoch: int, content: str = "") -> dict[str, Any]:
    """A document as the books write it: an epoch, and what a store must not look into."""
    return {"format": 1, "epoch": epoch, "accounts": [{"settled": "123456789012345678", "note": content}]}


def test_nothing_written_is_an_empty_version_and_no_document(opened: Open) -> None:
    """A first start can be told from damaged books."""

    async def scenario() -> Stored:
        async with opened() as store:
            return await store.read()

    assert asyncio.run(scenario()) == Stored("", None, "")


def test_what_was_written_is_read_by_the_next_process_with_its_commit_id(opened: Open) -> None:
    """A write that returned survives, exactly as it was, and can be recognized."""

    async def scenario() -> tuple[str, Stored]:
        async with opened() as store:
            version = await store.write(document(1, "é"), "", "commit-1")
        async with opened() as store:
            return version, await store.read()

    version, stored = asyncio.run(scenario())

    assert stored == Stored(version, document(1, "é"), "commit-1")


def test_versions_differ_from_write_to_write(opened: Open) -> None:
    """Compare-and-swap needs that, also when the same document is written again."""

    async def scenario() -> list[str]:
        async with opened() as store:
            first = await store.write(document(1), "", "commit-1")
            second = await store.write(document(1), first, "commit-2")
            third = await store.write(document(1), second, "commit-3")
            return [first, second, third]

    assert len(set(asyncio.run(scenario()))) == 3


def test_a_writer_with_an_old_version_changes_nothing(opened: Open) -> None:
    """Of two writers who read the same version one wins; the other hears Conflict. Row 4 of the fault table."""

    async def scenario() -> Stored:
        async with opened() as store:
            first = await store.write(document(1), "", "commit-1")
            await store.write(document(1, "winner"), first, "commit-2")
            with pytest.raises(Conflict):
                await store.write(document(1, "loser"), first, "commit-3")
            return await store.read()

    stored = asyncio.run(scenario())

    assert (stored.document, stored.commit_id) == (document(1, "winner"), "commit-2")


def test_the_first_write_is_a_race_with_one_winner(opened: Open) -> None:
    """Two first starts do not both begin with empty books."""

    async def scenario() -> Stored:
        async with opened() as store:
            await store.write(document(1, "winner"), "", "commit-1")
            with pytest.raises(Conflict):
                await store.write(document(1, "loser"), "", "commit-2")
            return await store.read()

    assert asyncio.run(scenario()).commit_id == "commit-1"


def test_racing_writers_have_exactly_one_winner(opened: Open) -> None:
    """Ten writers at once: one commit, nine conflicts, and the document is the winner's."""

    async def scenario() -> tuple[list[str], Stored]:
        async with opened() as store:
            version = await store.write(document(1), "", "commit")

            async def attempt(number: int) -> str:
                try:
                    await store.write(document(1, f"writer {number}"), version, f"commit-{number}")
                except Conflict:
                    return ""
                return f"commit-{number}"

            winners = [won for won in await asyncio.gather(*map(attempt, range(10))) if won]
            return winners, await store.read()

    winners, stored = asyncio.run(scenario())

    assert winners == [stored.commit_id]


def test_an_older_epoch_is_fenced_and_changes_nothing(opened: Open) -> None:
    """A leader that wakes up late learns that it must stop, not only that it must read again."""

    async def scenario() -> Stored:
        async with opened() as store:
            old = await store.write(document(1), "", "commit-1")
            await store.write(document(2, "new leader"), old, "commit-2")
            with pytest.raises(Fenced):
                await store.write(document(1, "old leader"), old, "commit-3")
            return await store.read()

    assert asyncio.run(scenario()).document == document(2, "new leader")


def test_changing_a_document_that_was_read_does_not_change_the_store(opened: Open) -> None:
    """What is read is a copy."""

    async def scenario() -> Stored:
        async with opened() as store:
            await store.write(document(1), "", "commit-1")
            stored = await store.read()
            assert stored.document is not None
            stored.document["epoch"] = 99
            return await store.read()

    assert asyncio.run(scenario()).document == document(1)


def test_a_memory_store_can_lose_the_reply_of_a_write_that_it_applied() -> None:
    """The fault that a real store has, for the coordinator's tests."""

    async def scenario() -> Stored:
        store = MemoryStore(fault=lambda: "drop-after-commit")
        with pytest.raises(Unavailable):
            await store.write(document(1), "", "commit-1")
        return await store.read()

    assert asyncio.run(scenario()).commit_id == "commit-1"


def test_the_sqlite_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Spend is nobody else's business on a shared machine."""

    async def scenario() -> set[int]:
        store = SQLiteStore(tmp_path / "ledger.sqlite3")
        await store.write(document(1), "", "commit-1")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        await store.close()
        return modes

    assert asyncio.run(scenario()) == {0o600}


def test_a_file_that_is_no_ledger_is_unavailable_and_says_which_file(tmp_path: Path) -> None:
    """Damage is never read as "nothing spent"."""
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(b"this is no database " * 100)

    async def scenario() -> None:
        store = SQLiteStore(path)
        try:
            await store.read()
        finally:
            await store.close()

    with pytest.raises(Unavailable, match=r"ledger\.sqlite3"):
        asyncio.run(scenario())
