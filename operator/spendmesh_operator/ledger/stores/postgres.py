"""
The books in PostgreSQL: for many writes, and for several clusters that share budgets.

One row for each section, one transaction for each commit, durable when it returns (`synchronous_commit`). All clusters
of a domain write the same sections; each is a member with an epoch of its own, so that none fences another one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg

from spendmesh_operator.ledger.stores.base import Commit, Stored, Unavailable, check_expected
from spendmesh_operator.ledger.stores.postgres_schema import migrate

TIMEOUT_SECONDS: Final = 4.0
"""For a connection, and for each statement: below the coordinator's own patience, so that it hears the cause."""

CLOSE_SECONDS: Final = 1.0

_UPSERT: Final = """
    INSERT INTO spendmesh_section (domain, name, version, document) VALUES ($1, $2, $3, $4)
    ON CONFLICT (domain, name) DO UPDATE SET version = excluded.version, document = excluded.document
"""
_UPSERT_MEMBER: Final = """
    INSERT INTO spendmesh_member (domain, member, epoch, commit_id) VALUES ($1, $2, $3, $4)
    ON CONFLICT (domain, member) DO UPDATE SET epoch = excluded.epoch, commit_id = excluded.commit_id
"""

T = TypeVar("T")


class PostgresStore:
    """
    `LedgerStore` on one connection, which is made when it is needed and made anew after any failure.

    `dsn` says where, as whom and with which TLS (`sslmode=verify-full`), and is asked for each connection; it is in no
    message of ours.
    """

    def __init__(self, dsn: Callable[[], str], domain: str, member: str) -> None:
        self._dsn = dsn
        self._domain = domain
        self._member = member
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def read(self) -> Stored:
        return await self._run(self._read)

    async def write(self, commit: Commit) -> str:
        return await self._run(lambda connection: self._write(connection, commit))

    async def close(self) -> None:
        async with self._turn:
            connection, self._connection = self._connection, None
            try:
                if connection is not None:
                    await connection.close(timeout=CLOSE_SECONDS)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                pass  # it is gone either way, and what is committed is durable

    async def _run(self, action: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        async with self._turn:
            try:
                async with self._connected() as connection:
                    return await action(connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                raise Unavailable(f"PostgreSQL: {type(error).__name__}: {error}") from error

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection in a known state: after anything but success or a refusal of ours it is not used again."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        connection = self._connection
        try:
            yield connection
        except BaseException:
            self._connection = None
            connection.terminate()
            raise

    async def _connect(self) -> asyncpg.Connection:
        try:
            connection = await asyncpg.connect(
                self._dsn(),
                timeout=TIMEOUT_SECONDS,
                command_timeout=TIMEOUT_SECONDS,
                # A pooler between us and the server may give each transaction another session.
                statement_cache_size=0,
                server_settings={"application_name": "spendmesh"},
            )
        except (ValueError, asyncpg.InterfaceError):
            raise Unavailable("the DSN of PostgreSQL cannot be used: postgresql://user@host:port/database") from None
        try:
            await _check_durable(connection)
            await migrate(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _read(self, connection: asyncpg.Connection) -> Stored:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            version = await connection.fetchval("SELECT version FROM spendmesh_domain WHERE domain = $1", self._domain)
            if not version:
                return Stored()
            member = await connection.fetchrow(
                "SELECT epoch, commit_id FROM spendmesh_member WHERE domain = $1 AND member = $2",
                self._domain,
                self._member,
            )
            rows = await connection.fetch(
                "SELECT name, document FROM spendmesh_section WHERE domain = $1", self._domain
            )
        sections: dict[str, Any] = {row["name"]: json.loads(row["document"]) for row in rows}
        if member is None:
            return Stored(str(version), sections)
        return Stored(str(version), sections, member["epoch"], frozenset({member["commit_id"]}))

    async def _write(self, connection: asyncpg.Connection, commit: Commit) -> str:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute("SET LOCAL synchronous_commit = on")
            await connection.execute(
                "INSERT INTO spendmesh_domain (domain, version) VALUES ($1, 0) ON CONFLICT DO NOTHING", self._domain
            )
            version = await connection.fetchval(
                "SELECT version FROM spendmesh_domain WHERE domain = $1 FOR UPDATE", self._domain
            )
            epoch = await connection.fetchval(
                "SELECT epoch FROM spendmesh_member WHERE domain = $1 AND member = $2", self._domain, self._member
            )
            check_expected(commit, str(version or ""), epoch or 0)
            await self._apply(connection, commit, version + 1)
        return str(version + 1)

    async def _apply(self, connection: asyncpg.Connection, commit: Commit, version: int) -> None:
        await connection.execute("UPDATE spendmesh_domain SET version = $2 WHERE domain = $1", self._domain, version)
        await connection.execute(_UPSERT_MEMBER, self._domain, self._member, commit.epoch, commit.id)
        rows = [(self._domain, name, version, json.dumps(document)) for name, document in commit.put.items()]
        await connection.executemany(_UPSERT, rows)
        await connection.execute(
            "DELETE FROM spendmesh_section WHERE domain = $1 AND name = ANY($2)", self._domain, list(commit.drop)
        )


async def _check_durable(connection: asyncpg.Connection) -> None:
    """What the server acknowledges must survive its machine. Raises Unavailable."""
    for setting in ("fsync", "full_page_writes"):
        if await connection.fetchval(f"SHOW {setting}") != "on":
            raise Unavailable(f"PostgreSQL runs with {setting} off: a power cut would give spent money back; set it on")
