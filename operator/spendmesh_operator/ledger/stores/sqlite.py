"""
The books in one SQLite file: for `spendmesh run` and `spendmesh demo`, one machine, no server.

Write-ahead journal, synchronous FULL: a commit survives kill -9 and power loss. All calls run on one thread of
their own. The file is readable by its owner only. A table `ledger` of an older version, with the whole books in one
row, is read as one section and goes with the first commit.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from spendmesh_operator.ledger.document import format_one
from spendmesh_operator.ledger.stores.base import Commit, Document, Stored, Unavailable, check_expected

SCHEMA_VERSION: Final = 2
_BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = (
    """
    CREATE TABLE head (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      version INTEGER NOT NULL,
      epoch INTEGER NOT NULL,
      commit_id TEXT NOT NULL
    )
    """,
    "CREATE TABLE section (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
)

T = TypeVar("T")


class SQLiteStore:
    """`LedgerStore` in a file that is made if it is not there. Raises Unavailable for a file that is no ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-sqlite")
        self._connection: sqlite3.Connection | None = None

    async def read(self) -> Stored:
        return await self._run(_read)

    async def write(self, commit: Commit) -> str:
        return await self._run(lambda connection: _write(connection, commit))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _run(self, action: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._act, action)

    def _act(self, action: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = _open(self.path)
            return action(self._connection)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"ledger file {self.path}: {error}; is the disk full, or the file damaged?") from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _read(connection: sqlite3.Connection) -> Stored:
    connection.execute("BEGIN")
    try:
        return _stored(connection) if _version(connection) == SCHEMA_VERSION else _older(connection)
    finally:
        connection.execute("ROLLBACK")


def _stored(connection: sqlite3.Connection) -> Stored:
    head = _row(connection, "SELECT version, epoch, commit_id FROM head")
    if head is None:
        return Stored()
    with closing(connection.execute("SELECT name, document FROM section")) as rows:
        sections = {name: _parsed(text) for name, text in rows}
    return Stored(str(head[0]), sections, head[1], frozenset({head[2]}))


def _older(connection: sqlite3.Connection) -> Stored:
    """Books of format 1, or a file that is still empty."""
    if _row(connection, "SELECT 1 FROM sqlite_master WHERE name = 'ledger'") is None:
        return Stored()
    row = _row(connection, "SELECT version, commit_id, document FROM ledger")
    if row is None:
        return Stored()
    document = _parsed(row[2])
    return Stored(str(row[0]), {format_one.SECTION: document}, int(document["epoch"]), frozenset({row[1]}))


def _write(connection: sqlite3.Connection, commit: Commit) -> str:
    connection.execute("BEGIN IMMEDIATE")
    try:
        _migrate(connection)
        version, epoch = _row(connection, "SELECT version, epoch FROM head") or ("", 0)
        check_expected(commit, str(version), epoch)
        following = int(version or 0) + 1
        connection.execute("REPLACE INTO head VALUES (1, ?, ?, ?)", (following, commit.epoch, commit.id))
        texts = [(name, json.dumps(document, separators=(",", ":"))) for name, document in commit.put.items()]
        connection.executemany("REPLACE INTO section VALUES (?, ?)", texts)
        connection.executemany("DELETE FROM section WHERE name = ?", [(name,) for name in commit.drop])
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return str(following)


def _migrate(connection: sqlite3.Connection) -> None:
    """Make the tables of this version; books of an older one become what `_older` calls them."""
    if _version(connection) == SCHEMA_VERSION:
        return
    older = _older(connection)
    for statement in _SCHEMA:
        connection.execute(statement)
    for commit_id in older.commits:
        connection.execute("INSERT INTO head VALUES (1, ?, ?, ?)", (int(older.version), older.epoch, commit_id))
    for name, document in older.sections.items():
        connection.execute("INSERT INTO section VALUES (?, ?)", (name, json.dumps(document)))
    connection.execute("DROP TABLE IF EXISTS ledger")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = _row(connection, "PRAGMA user_version") or (0,)
    if version > SCHEMA_VERSION:
        raise Unavailable(
            f"the ledger file is of version {version}, this program knows {SCHEMA_VERSION}: use the newer program"
        )
    return int(version)


def _row(connection: sqlite3.Connection, query: str) -> tuple[Any, ...] | None:
    with closing(connection.execute(query)) as rows:
        row: tuple[Any, ...] | None = rows.fetchone()
    return row


def _parsed(text: str) -> Document:
    try:
        document: Document = json.loads(text)
    except ValueError as error:
        raise Unavailable("the ledger file holds a section that is not JSON: restore it from a backup") from error
    return document
