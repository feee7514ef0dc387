"""
The books in one SQLite file: for `spendmesh run` and `spendmesh demo`, one machine, no server.

Write-ahead journal, synchronous FULL: a commit survives kill -9 and power loss. All calls run on one thread of
their own. The file is readable by its owner only.
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
from typing import Any, TypeVar

from spendmesh_operator.ledger.store import Stored, Unavailable, check_expected

_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  version INTEGER NOT NULL,
  commit_id TEXT NOT NULL,
  document TEXT NOT NULL
)
"""

T = TypeVar("T")


class SQLiteStore:
    """`LedgerStore` in a file that is made if it is not there. Raises Unavailable for a file that is no ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-sqlite")
        self._connection: sqlite3.Connection | None = None

    async def read(self) -> Stored:
        return await self._run(_read)

    async def write(self, document: dict[str, Any], expected_version: str, commit_id: str) -> str:
        def write(connection: sqlite3.Connection) -> str:
            return _write(connection, document, expected_version, commit_id)

        return await self._run(write)

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
        connection.execute(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _read(connection: sqlite3.Connection) -> Stored:
    with closing(connection.execute("SELECT version, commit_id, document FROM ledger")) as rows:
        row = rows.fetchone()
    if row is None:
        return Stored("", None)
    try:
        document = json.loads(row[2])
    except ValueError as error:
        raise Unavailable("the ledger file holds a document that is not JSON: restore it from a backup") from error
    return Stored(str(row[0]), document, row[1])


def _write(connection: sqlite3.Connection, document: dict[str, Any], expected_version: str, commit_id: str) -> str:
    text = json.dumps(document, separators=(",", ":"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        stored = _read(connection)
        check_expected(stored, document, expected_version)
        version = int(stored.version or 0) + 1
        connection.execute(
            "INSERT INTO ledger (id, version, commit_id, document) VALUES (1, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET version = excluded.version, commit_id = excluded.commit_id, "
            "document = excluded.document",
            (version, commit_id, text),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return str(version)
