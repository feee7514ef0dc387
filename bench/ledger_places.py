"""Where the books can be: memory, a file, BudgetLedger objects of a real API server, a real PostgreSQL."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from spendmesh_operator.kube.client import Kube
from spendmesh_operator.kube.ledger_store import BudgetLedgerStore
from spendmesh_operator.ledger.stores.base import Commit, Document, LedgerStore, MemoryStore, Stored
from spendmesh_operator.ledger.stores.postgres import PostgresStore
from spendmesh_operator.ledger.stores.sqlite import SQLiteStore

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parts"))

import parts
import postgres
from control_plane import ControlPlane

ROOT: Final = Path(__file__).resolve().parent.parent

Kind = Literal["memory", "SQLite", "BudgetLedger", "PostgreSQL"]
CLUSTER_KINDS: Final[tuple[Kind, ...]] = ("BudgetLedger", "PostgreSQL")
MEMBER: Final = "bench"
KINDS: Final[tuple[Kind, ...]] = ("memory", "SQLite", "BudgetLedger", "PostgreSQL")


@dataclass(frozen=True)
class Place:
    """A store to be opened by another process: a file, a kubeconfig or a DSN."""

    kind: Kind
    where: str = ""


@dataclass(frozen=True)
class Places:
    """Empty books of every kind, as often as they are asked for."""

    folder: Path
    plane: ControlPlane
    server: postgres.Postgres
    _made: list[Place] = field(default_factory=list)

    def new(self, kind: Kind) -> tuple[Place, str]:
        """A place, and the domain of the books there."""
        number = len(self._made)
        match kind:
            case "memory":
                where = ""
            case "SQLite":
                where = str(self.folder / f"books-{number}.sqlite3")
            case "BudgetLedger":
                where = str(self.plane.kubeconfig)
            case "PostgreSQL":
                where = self.server.create("bench")
        self._made.append(Place(kind, where))
        return self._made[-1], f"bench-{number}"


@contextmanager
def started(folder: Path) -> Iterator[Places]:
    """Start both servers. etcd and PostgreSQL wait for the disk, as in a cluster."""
    package = postgres.wheel()
    if package is None:
        raise RuntimeError("PostgreSQL's wheel is not installed: make setup")
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(parts.ensure("control-plane"), fsync=True))
        with_kinds(plane)
        yield Places(folder, plane, stack.enter_context(postgres.Postgres(package)))


def with_kinds(plane: ControlPlane) -> None:
    """Install the kinds of this tree."""
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))


# --- inside the coordinator's process -----------------------------------------------------------------------


class CountingKube(Kube):
    """Counts the objects that are written."""

    written = 0

    async def create(self, collection_path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.written += 1
        return await super().create(collection_path, body)

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.written += 1
        return await super().replace(path, body)


@dataclass
class Counting:
    """A store that counts what is written to another. Sizes are only taken when asked for: they cost CPU time."""

    inner: LedgerStore
    kube: CountingKube | None = None
    commits: int = 0
    sections: int = 0
    _put: list[Mapping[str, Document]] = field(default_factory=list)

    async def read(self) -> Stored:
        return await self.inner.read()

    async def write(self, commit: Commit) -> str:
        self.commits += 1
        self.sections += len(commit.put)
        self._put.append(commit.put)
        return await self.inner.write(commit)

    async def close(self) -> None:
        await self.inner.close()

    def counts(self) -> dict[str, int]:
        """Commits and what they wrote, since the last time."""
        size = sum(len(json.dumps(section)) for put in self._put for section in put.values())
        rows = self.kube.written if self.kube is not None else self.sections
        found = {"commits": self.commits, "rows": rows, "bytes": size}
        self._put.clear()
        self.commits = self.sections = 0
        if self.kube is not None:
            self.kube.written = 0
        return found


@asynccontextmanager
async def opened(place: Place, domain: str) -> AsyncIterator[Counting]:
    """The store of a place, counted."""
    kube = await CountingKube.connect(place.where) if place.kind == "BudgetLedger" else None
    store: LedgerStore
    match place.kind:
        case "memory":
            store = MemoryStore()
        case "SQLite":
            store = SQLiteStore(Path(place.where))
        case "PostgreSQL":
            store = PostgresStore(lambda: place.where, domain, MEMBER)
        case "BudgetLedger":
            assert kube is not None
            store = BudgetLedgerStore(kube, "default", domain)
    try:
        yield Counting(store, kube)
    finally:
        await store.close()
        if kube is not None:
            await kube.close()
