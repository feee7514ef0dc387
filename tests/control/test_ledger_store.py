"""
One suite for every `LedgerStore`: sections, compare-and-swap, fencing, durability, and finding a lost commit again.

A store is added by a factory in `ledger_stores.KINDS`. What they do behind faults is in test_ledger_store_faults.
"""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ledger_stores import KINDS, Kind, Open
from spendmesh_operator.ledger.stores.base import Commit, Conflict, Fenced, MemoryStore, Stored, Unavailable
from spendmesh_operator.ledger.stores.sqlite import SQLiteStore

T = TypeVar("T")


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest) -> Open:
    """A way to open an empty storage, as often as a test likes."""
    kind: Kind = request.param(request)
    return kind.opened


def section(content: str = "") -> dict[str, Any]:
    """A section as the books write it: what a store must not look into."""
    return {"accounts": [{"settled": "123456789012345678", "note": content}]}


def commit(number: int, expected: str, *, epoch: int = 1, drop: Iterable[str] = (), **put: str) -> Commit:
    """A commit of sections with some content each."""
    sections = {name: section(content) for name, content in put.items()}
    return Commit(f"commit-{number}", epoch, expected, sections, frozenset(drop))


def contents(stored: Stored) -> dict[str, str]:
    """What `commit` put."""
    return {name: document["accounts"][0]["note"] for name, document in stored.sections.items()}


def test_nothing_written_is_an_empty_version_and_no_sections(opened: Open) -> None:
    """A first start can be told from damaged books."""

    async def scenario() -> Stored:
        async with opened() as store:
            return await store.read()

    assert asyncio.run(scenario()) == Stored()


def test_what_was_written_is_read_by_the_next_process_with_its_commit_id(opened: Open) -> None:
    """A write that returned survives, exactly as it was, and can be recognized."""

    async def scenario() -> tuple[str, Stored]:
        async with opened() as store:
            version = await store.write(commit(1, "", head="é", pods=""))
        async with opened() as store:
            return version, await store.read()

    version, stored = asyncio.run(scenario())

    assert (stored.version, stored.epoch, stored.commits) == (version, 1, {"commit-1"})
    assert dict(stored.sections) == {"head": section("é"), "pods": section()}


def test_a_commit_changes_its_own_sections_only(opened: Open) -> None:
    """Others are neither written nor lost; what is dropped is gone."""

    async def scenario() -> Stored:
        async with opened() as store:
            version = await store.write(commit(1, "", head="1", pods="1", old="1"))
            version = await store.write(commit(2, version, drop=["old", "never there"], pods="2", new="2"))
            assert (await store.read()).version == version
        async with opened() as store:
            return await store.read()

    assert contents(asyncio.run(scenario())) == {"head": "1", "pods": "2", "new": "2"}


def test_a_commit_without_sections_raises_the_epoch(opened: Open) -> None:
    """That is all that a new coordinator has to write."""

    async def scenario() -> Stored:
        async with opened() as store:
            version = await store.write(commit(1, "", head="1"))
            await store.write(commit(2, version, epoch=5))
            return await store.read()

    stored = asyncio.run(scenario())

    assert (stored.epoch, contents(stored)) == (5, {"head": "1"})


def test_versions_differ_from_write_to_write(opened: Open) -> None:
    """Compare-and-swap needs that, also when the same sections are written again."""

    async def scenario() -> list[str]:
        async with opened() as store:
            first = await store.write(commit(1, "", head=""))
            second = await store.write(commit(2, first, head=""))
            third = await store.write(commit(3, second, head=""))
            return [first, second, third]

    assert len(set(asyncio.run(scenario()))) == 3


def test_a_writer_with_an_old_version_changes_nothing(opened: Open) -> None:
    """Of two writers who read the same version one wins; the other hears Conflict. Row 4 of the fault table."""

    async def scenario() -> Stored:
        async with opened() as store, opened() as other:
            first = await store.write(commit(1, "", head=""))
            await other.read()
            await store.write(commit(2, first, head="winner"))
            for late in (store, other):
                with pytest.raises(Conflict):
                    await late.write(commit(3, first, head="loser"))
            return await store.read()

    stored = asyncio.run(scenario())

    assert (contents(stored), stored.commits) == ({"head": "winner"}, {"commit-2"})


def test_the_first_write_is_a_race_with_one_winner(opened: Open) -> None:
    """Two first starts do not both begin with empty books."""

    async def scenario() -> Stored:
        async with opened() as store, opened() as other:
            await other.read()
            await store.write(commit(1, "", head="winner"))
            for late in (store, other):
                with pytest.raises(Conflict):
                    await late.write(commit(2, "", head="loser"))
            return await store.read()

    assert contents(asyncio.run(scenario())) == {"head": "winner"}


def test_racing_writers_have_exactly_one_winner(opened: Open) -> None:
    """Ten writers at once: one commit, nine conflicts, and the section is the winner's."""

    async def scenario() -> tuple[list[str], Stored]:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened()) for _ in range(10)]
            version = await stores[0].write(commit(99, "", head=""))

            async def attempt(number: int) -> str:
                try:
                    await stores[number].write(commit(number, version, head=f"writer {number}"))
                except Conflict:
                    return ""
                return f"writer {number}"

            winners = [won for won in await asyncio.gather(*map(attempt, range(10))) if won]
            return winners, await stores[0].read()

    winners, stored = asyncio.run(scenario())

    assert winners == [contents(stored)["head"]]


def test_an_older_epoch_is_fenced_and_changes_nothing(opened: Open) -> None:
    """A leader that wakes up late learns that it must stop, not only that it must read again."""

    async def scenario() -> Stored:
        async with opened() as store, opened() as other:
            old = await store.write(commit(1, "", head="", pods="old"))
            await other.write(commit(2, (await other.read()).version, epoch=2))
            with pytest.raises(Fenced):
                await store.write(commit(3, old, pods="old leader"))
            return await store.read()

    stored = asyncio.run(scenario())

    assert (contents(stored), stored.epoch) == ({"head": "", "pods": "old"}, 2)


def test_changing_what_was_read_does_not_change_the_store(opened: Open) -> None:
    """What is read is a copy."""

    async def scenario() -> Stored:
        async with opened() as store:
            await store.write(commit(1, "", head="as written"))
            (await store.read()).sections["head"]["accounts"][0]["note"] = "changed"
            return await store.read()

    assert contents(asyncio.run(scenario())) == {"head": "as written"}


def test_a_memory_store_can_lose_the_reply_of_a_write_that_it_applied() -> None:
    """The fault that a real store has, for the coordinator's tests."""

    async def scenario() -> Stored:
        store = MemoryStore(fault=lambda: "drop-after-commit")
        with pytest.raises(Unavailable):
            await store.write(commit(1, "", head=""))
        return await store.read()

    assert asyncio.run(scenario()).commits == {"commit-1"}


def test_the_sqlite_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Spend is nobody else's business on a shared machine."""

    async def scenario() -> set[int]:
        store = SQLiteStore(tmp_path / "ledger.sqlite3")
        await store.write(commit(1, "", head=""))
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        await store.close()
        return modes

    assert asyncio.run(scenario()) == {0o600}


def on_sqlite(path: Path, work: Callable[[SQLiteStore], Awaitable[T]]) -> T:
    async def scenario() -> T:
        store = SQLiteStore(path)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(scenario())


def test_a_file_that_is_no_ledger_is_unavailable_and_says_which_file(tmp_path: Path) -> None:
    """Damage is never read as "nothing spent"."""
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(b"this is no database " * 100)

    with pytest.raises(Unavailable, match=r"ledger\.sqlite3"):
        on_sqlite(path, lambda store: store.read())


def test_a_sqlite_file_of_the_version_before_is_read_and_becomes_sections(tmp_path: Path) -> None:
    """An upgrade of `spendmesh run` keeps what was spent; the old table goes with the first commit, not before."""
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE ledger (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, "
            "commit_id TEXT NOT NULL, document TEXT NOT NULL)"
        )
        connection.execute("""INSERT INTO ledger VALUES (1, 41, 'before', '{"format": 1, "epoch": 6}')""")
        connection.commit()

    async def upgrade(store: SQLiteStore) -> tuple[Stored, Stored]:
        before = await store.read()
        assert await store.read() == before
        with pytest.raises(Fenced):
            await store.write(commit(1, before.version, epoch=5, head="older"))
        await store.write(commit(2, before.version, epoch=7, drop=["books"], head="new"))
        return before, await store.read()

    before, after = on_sqlite(path, upgrade)

    assert before == Stored("41", {"books": {"format": 1, "epoch": 6}}, 6, frozenset({"before"}))
    assert (contents(after), after.epoch) == ({"head": "new"}, 7)


def test_a_sqlite_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """An older program after a roll-back must not begin new books."""
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")

    with pytest.raises(Unavailable, match="use the newer program"):
        on_sqlite(path, lambda store: store.read())
