"""
The whole control side in one process without Kubernetes, for `spendmesh run` and `spendmesh demo`.

The same index, compile, books and control server as in a cluster: only the objects come from the caller, the tokens
are made here, and the books are a file (or memory).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from aiohttp import web

from spendmesh_operator.clock import Clock
from spendmesh_operator.compile import Compiled, CompileSettings
from spendmesh_operator.compiling import Compiling
from spendmesh_operator.control.auth import StaticTokens
from spendmesh_operator.control.hub import Hub
from spendmesh_operator.control.leader import SoleLeader
from spendmesh_operator.control.metrics import ControlMetrics
from spendmesh_operator.control.people import OnePerson
from spendmesh_operator.control.server import SHUTDOWN_SECONDS, ControlParts, control_app
from spendmesh_operator.control.sharing import RetryDesk
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.index import KINDS, OPERATOR_NAMESPACE, Index
from spendmesh_operator.ledger.books.partitions import place_of
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.stores.base import LedgerStore, MemoryStore
from spendmesh_operator.ledger.stores.sqlite import SQLiteStore
from spendmesh_operator.prices import load_prices

ACCESS_FILE = "control.json"
LEDGER_FILE = "ledger.sqlite3"
STATE_MODE = 0o700

_LISTED = (*KINDS, "Namespace", "Secret")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class LocalPod:
    """A sidecar's place in the policy: what would be its pod in a cluster, and the token that it shows."""

    namespace: str
    name: str
    token: str = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: tuple[str, str] | None = None
    """Kind and name of its controller, such as ("Deployment", "support")."""

    @property
    def identity(self) -> PodIdentity:
        """The same over restarts, so that its books go on."""
        return PodIdentity(self.namespace, self.name, f"local/{self.namespace}/{self.name}")

    @property
    def manifest(self) -> Json:
        """As the API server would show it."""
        metadata: dict[str, Any] = {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.identity.uid,
            "labels": dict(self.labels),
        }
        if self.owner is not None:
            kind, name = self.owner
            metadata["ownerReferences"] = [{"controller": True, "kind": kind, "name": name}]
        return {"kind": "Pod", "metadata": metadata}


class LocalControl:
    """
    Control server on a loopback port. `start`, then read `url`; `update` replaces the objects while it runs.

    `state_dir` None keeps the books in memory. Raises LedgerStoreError or LedgerUnreadable from `start` for books
    that cannot be used, OSError for a port that is taken.
    """

    def __init__(
        self,
        objects: Iterable[Json],
        pods: Iterable[LocalPod],
        state_dir: Path | None,
        clock: Clock,
        rng: Random,
        *,
        cluster: str = "local",
        operator_namespace: str = OPERATOR_NAMESPACE,
        unbudgeted: Literal["Allow", "Deny"] = "Allow",
        metrics: ControlMetrics | None = None,
    ) -> None:
        self.hub = Hub()
        self._index = Index(operator_namespace=operator_namespace, secrets_complete=True)
        self._compiling = Compiling(
            self._index, CompileSettings(cluster=cluster, unbudgeted=unbudgeted), load_prices(), self.hub
        )
        self._tokens = StaticTokens({})
        self._person_token = secrets.token_urlsafe(24)
        self._state_dir = state_dir
        self._store = _store(state_dir)
        self.coordinator = Coordinator(
            self._store,
            clock,
            rng,
            self.hub.policy_of,
            cluster,
            CoordinatorSettings(commit_interval_seconds=0.0),
            metrics.committed if metrics is not None else lambda _: None,
            self._index.workload_of,
            lambda pod: place_of(pod, self._index.pod(pod.uid)),
        )
        self.retries = RetryDesk(self.coordinator, clock)
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self.url = ""
        """Base URL for sidecars, once started."""
        self._take(objects)
        for pod in pods:
            self._admit(pod)

    @property
    def compiled(self) -> Compiled:
        """Policies and verdicts of the objects as they are now; there from `start` on."""
        if self._compiling.compiled is None:
            raise RuntimeError("start() first")
        return self._compiling.compiled

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Open the books, compile, listen."""
        await self.coordinator.start()
        try:
            self._compiling.remembered = self.coordinator.remembered()
            await self._compile()
            await self._listen(host, port)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Send sidecars away, close the books. What was not settled stays charged."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.coordinator.stop()
        await self._store.close()

    async def update(self, objects: Iterable[Json]) -> Compiled:
        """Exactly these objects from now on; running sidecars get their new policy at once."""
        self._take(objects)
        await self._compile()
        return self.compiled

    async def admit(self, pod: LocalPod) -> None:
        """A sidecar that starts now."""
        self._admit(pod)
        await self._compile()

    def _take(self, objects: Iterable[Json]) -> None:
        by_kind: dict[str, list[Json]] = {kind: [] for kind in _LISTED}
        for each in objects:
            if each.get("kind") in by_kind:
                by_kind[each["kind"]].append(each)
        for kind, raws in by_kind.items():
            self._index.replace(kind, raws)

    def _admit(self, pod: LocalPod) -> None:
        self._index.add(pod.manifest)
        self._tokens.add(pod.token, pod.identity)

    async def _compile(self) -> None:
        self._compiling.compile_now()
        budgets = {f"{key.namespace}/{key.name}": spec for key, spec in self.compiled.budgets.items()}
        exist = {f"{key.namespace}/{key.name}" for key in self.compiled.verdicts if key.kind == "ModelBudget"}
        await self.coordinator.remember(budgets, exist)

    async def _listen(self, host: str, port: int) -> None:
        app = control_app(
            ControlParts(
                hub=self.hub,
                authenticator=self._tokens,
                coordinator=self.coordinator,
                link=SoleLeader(),
                clock=self._clock,
                rng=self._rng,
                metrics=self._metrics,
                retries=self.retries,
                authorizer=OnePerson(self._person_token),
            )
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound = self._runner.addresses[0]
        self.url = f"http://{bound[0]}:{bound[1]}"
        if self._state_dir is not None:
            write_access(self._state_dir, self.url, self._person_token)


def write_access(state_dir: Path, url: str, token: str) -> None:
    """Where this control side is, and the token of the person who started it; only that person can read it."""
    path = state_dir / ACCESS_FILE
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"url": url, "token": token}), encoding="utf-8")


def _store(state_dir: Path | None) -> LedgerStore:
    if state_dir is None:
        return MemoryStore()
    state_dir.mkdir(mode=STATE_MODE, parents=True, exist_ok=True)
    return SQLiteStore(state_dir / LEDGER_FILE)
