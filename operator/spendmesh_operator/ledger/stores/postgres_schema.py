"""The tables of the books in PostgreSQL, and the way from each version of them to the next."""

from __future__ import annotations

from typing import Final

import asyncpg

from spendmesh_operator.ledger.stores.base import Unavailable

MIGRATIONS: Final = (
    """
    CREATE TABLE spendmesh_domain (
        domain text PRIMARY KEY,
        version bigint NOT NULL
    );
    CREATE TABLE spendmesh_member (
        domain text NOT NULL REFERENCES spendmesh_domain,
        member text NOT NULL,
        epoch bigint NOT NULL,
        commit_id text NOT NULL,
        PRIMARY KEY (domain, member)
    );
    CREATE TABLE spendmesh_section (
        domain text NOT NULL REFERENCES spendmesh_domain,
        name text NOT NULL,
        version bigint NOT NULL,
        document json NOT NULL,
        PRIMARY KEY (domain, name)
    );
    """,
)
"""Applied once each, in order; never changed. `json` keeps the order of members, `jsonb` would not."""

_LOCK: Final = 0x5370656E64
"""Any number that nobody else locks: replicas of several clusters may start at once."""


_HAS_TABLES: Final = """
    SELECT count(*) FROM pg_catalog.pg_tables
    WHERE tablename = 'spendmesh_schema' AND schemaname = ANY (current_schemas(false))
"""


async def migrate(connection: asyncpg.Connection) -> None:
    """Bring the tables to the version of this program. Raises Unavailable for a newer one, and asyncpg's errors."""
    if await _version(connection) == len(MIGRATIONS):
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        version = await _version(connection)
        if version > len(MIGRATIONS):
            raise Unavailable(
                f"the tables in PostgreSQL are of version {version}, this operator knows {len(MIGRATIONS)}: upgrade it"
            )
        if version == 0:
            await connection.execute("CREATE TABLE spendmesh_schema (version integer NOT NULL)")
            await connection.execute("INSERT INTO spendmesh_schema VALUES (0)")
        for statements in MIGRATIONS[version:]:
            await connection.execute(statements)
        await connection.execute("UPDATE spendmesh_schema SET version = $1", len(MIGRATIONS))


async def _version(connection: asyncpg.Connection) -> int:
    """0: there are no tables."""
    # to_regclass() answers from a cache that waiting for the lock does not renew.
    if not await connection.fetchval(_HAS_TABLES):
        return 0
    return int(await connection.fetchval("SELECT version FROM spendmesh_schema"))
