"""Every kind of store, to be opened as often as a test likes: straight, or through something that breaks."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane import ControlPlane
from ledger_proxies import API_FAULTS, TCP_FAULTS, Faults, api_proxy, tcp_proxy
from postgres import Postgres
from spendmesh_operator.kube.client import Kube
from spendmesh_operator.kube.ledger_store import BudgetLedgerStore
from spendmesh_operator.ledger.stores.base import Commit, Conflict, LedgerStore, MemoryStore, Stored, Unavailable
from spendmesh_operator.ledger.stores.postgres import PostgresStore
from spendmesh_operator.ledger.stores.sqlite import SQLiteStore

Open = Callable[[], AbstractAsyncContextManager[LedgerStore]]
"""Each call opens the same storage again, as another process would."""
Break = Callable[[Faults], AbstractAsyncContextManager[LedgerStore]]
"""Opens it behind faults."""

STORE_FAULTS = ("conflict", "drop before", "drop after commit", "stale")


@dataclass(frozen=True)
class Kind:
    """One storage of a test's own."""

    opened: Open
    broken: Break
    faults: tuple[str, ...]


class FaultyStore:
    """For a store without a wire: what a wire would do to it."""

    def __init__(self, store: LedgerStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    async def read(self) -> Stored:
        if self._faults.draw() == "drop before":
            self._faults.happened["drop before"] += 1
            raise Unavailable("no answer")
        return await self._store.read()

    async def write(self, commit: Commit) -> str:
        fault = self._faults.draw()
        if fault:
            self._faults.happened[fault] += 1
        if fault == "drop before":
            raise Unavailable("no answer")
        if fault == "conflict":
            raise Conflict("made by the test")
        version = await self._store.write(commit)
        if fault == "drop after commit":
            raise Unavailable("the reply was lost")
        return version

    async def close(self) -> None:
        """The store is its owner's."""


def memory(_: pytest.FixtureRequest) -> Kind:
    store = MemoryStore()

    @asynccontextmanager
    async def opened() -> AsyncIterator[LedgerStore]:
        yield store

    return Kind(opened, _wrapped(opened), STORE_FAULTS[:3])


def sqlite(request: pytest.FixtureRequest) -> Kind:
    path: Path = request.getfixturevalue("tmp_path") / "ledger.sqlite3"

    @asynccontextmanager
    async def opened() -> AsyncIterator[LedgerStore]:
        store = SQLiteStore(path)
        try:
            yield store
        finally:
            await store.close()

    return Kind(opened, _wrapped(opened), STORE_FAULTS[:3])


def _wrapped(opened: Open) -> Break:
    @asynccontextmanager
    async def broken(faults: Faults) -> AsyncIterator[LedgerStore]:
        async with opened() as store:
            yield FaultyStore(store, faults)

    return broken


def budget_ledger(request: pytest.FixtureRequest) -> Kind:
    """BudgetLedger objects of a real API server, of a name of the test's own."""
    plane: ControlPlane = request.getfixturevalue("kinds")
    folder: Path = request.getfixturevalue("tmp_path")
    name = f"conformance-{uuid.uuid4().hex[:12]}"

    @asynccontextmanager
    async def through(kubeconfig: Path) -> AsyncIterator[LedgerStore]:
        kube = await Kube.connect(str(kubeconfig))
        try:
            yield BudgetLedgerStore(kube, "default", name)
        finally:
            await kube.close()

    @asynccontextmanager
    async def broken(faults: Faults) -> AsyncIterator[LedgerStore]:
        async with api_proxy(plane, faults) as url:
            config = folder / "proxy.kubeconfig"
            config.write_text(
                "{apiVersion: v1, kind: Config, current-context: proxy, users: [{name: proxy, user: {}}],"
                f" clusters: [{{name: proxy, cluster: {{server: '{url}'}}}}],"
                " contexts: [{name: proxy, context: {cluster: proxy, user: proxy}}]}"
            )
            async with through(config) as store:
                yield store

    return Kind(lambda: through(plane.kubeconfig), broken, API_FAULTS)


def postgres(request: pytest.FixtureRequest) -> Kind:
    """A domain of its own on a real PostgreSQL."""
    server: Postgres = request.getfixturevalue("postgres")
    domain = f"conformance-{uuid.uuid4().hex[:12]}"
    dsn = server.create("conformance")

    @asynccontextmanager
    async def through(where: str) -> AsyncIterator[LedgerStore]:
        store = PostgresStore(lambda: where, domain, "one")
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def broken(faults: Faults) -> AsyncIterator[LedgerStore]:
        async with tcp_proxy(server.port, faults) as port, through(server.dsn("conformance", port)) as store:
            yield store

    return Kind(lambda: through(dsn), broken, TCP_FAULTS)


KINDS = [
    pytest.param(memory, id="memory"),
    pytest.param(sqlite, id="sqlite"),
    pytest.param(budget_ledger, id="budget-ledger", marks=pytest.mark.real),
    pytest.param(postgres, id="postgres", marks=pytest.mark.real),
]
