"""
One replica, put together: informer → index → compile → hub → sidecars, and what the leader adds. Decides nothing.

    informer ─▶ index ─▶ compiling ─▶ hub ─▶ control server ─▶ sidecars
                            │  └────▶ injecting ─▶ webhook ─▶ new pods
    election ─▶ leading ─▶ coordinator ─▶ BudgetLedgers, or PostgreSQL
                   └─────▶ statuses, Events, certificates
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from spendmesh_operator.clock import Clock
from spendmesh_operator.compile import CompileSettings
from spendmesh_operator.compiling import Compiling
from spendmesh_operator.control.hub import Hub
from spendmesh_operator.control.leader import LeaderClient
from spendmesh_operator.control.metrics import ControlMetrics
from spendmesh_operator.control.server import SHUTDOWN_SECONDS, ControlParts, control_app
from spendmesh_operator.control.sharing import RetryDesk
from spendmesh_operator.health import health_app
from spendmesh_operator.index import Index, ObjectKey
from spendmesh_operator.injecting import Injector
from spendmesh_operator.injection import InjectionConfig
from spendmesh_operator.keeping import coordinator_settings, store_of
from spendmesh_operator.kube.accessreview import AccessReviewer
from spendmesh_operator.kube.budget_events import BudgetEvents
from spendmesh_operator.kube.catch_up import CatchUp
from spendmesh_operator.kube.certificate_keeper import CertificateKeeper
from spendmesh_operator.kube.client import Kube
from spendmesh_operator.kube.election import Election
from spendmesh_operator.kube.informer import Informer
from spendmesh_operator.kube.status_writer import Facts, StatusWriter, pod_states
from spendmesh_operator.kube.tokenreview import Replicas, TokenReviewer
from spendmesh_operator.leading import Leading
from spendmesh_operator.ledger.books.partitions import place_of
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_operator.ledger.document.sections import LedgerUnreadable, decode
from spendmesh_operator.ledger.stores.base import LedgerStoreError, Stored
from spendmesh_operator.prices import load_prices
from spendmesh_operator.settings import Settings
from spendmesh_operator.webhook import webhook_app
from spendmesh_sidecar.core.specs import BudgetSpec

LAME_DUCK_SECONDS: Final = 3.0
"""Not ready, still serving: Services take a moment to notice."""

log = logging.getLogger(__name__)


class Replica:
    """Everything one replica consists of. `run` it until `stop` is set."""

    def __init__(self, settings: Settings, kube: Kube, clock: Clock, rng: random.Random) -> None:
        self._settings = settings
        self._kube = kube
        self._clock = clock
        self._rng = rng
        self._stopping = False
        self._listening = False
        self._registry = CollectorRegistry()
        self._metrics = ControlMetrics(self._registry)
        self._injections = Counter(
            "spendmesh_injections", "Pods seen by the webhook by outcome.", ["outcome"], registry=self._registry
        )
        self._index = Index(operator_namespace=settings.namespace)
        self._hub = Hub()
        compile_settings = CompileSettings(
            cluster=settings.cluster, unbudgeted=settings.unbudgeted, watched_namespace=settings.watched_namespace
        )
        self._compiling = Compiling(self._index, compile_settings, load_prices(), self._hub)
        self._informer = Informer(
            kube,
            self._index,
            namespace=settings.watched_namespace,
            on_change=self._compiling.mark_dirty,
            rng=rng,
        )
        self._store = store_of(settings, kube)
        self._coordinator = Coordinator(
            self._store,
            clock,
            rng,
            self._hub.policy_of,
            settings.cluster,
            coordinator_settings(settings),
            committed=self._metrics.committed,
            workload_of=self._index.workload_of,
            place_of=lambda pod: place_of(pod, self._index.pod(pod.uid)),
        )
        self._retries = RetryDesk(self._coordinator, clock)
        self._election = Election(
            kube,
            namespace=settings.namespace,
            name=settings.name,
            identity=f"{settings.pod_name}_{secrets.token_hex(4)}",
            own_address=settings.own_address,
            monotonic=clock.monotonic,
        )
        self._keeper = CertificateKeeper(
            kube,
            namespace=settings.namespace,
            secret=f"{settings.name}-tls",
            webhook=settings.webhook_configuration,
            dns_names=[settings.control_host, settings.webhook_host],
            leads=self._election.is_leader,
            now=self._now,
        )
        self._budget_events = BudgetEvents(kube, self._coordinator, self._known_uids)
        self._statuses = StatusWriter(kube, self._facts, clock, settings.watched_namespace)
        self._leading = Leading(
            self._election, self._coordinator, self._index, lambda: self._compiling.compiled, self._tell_people
        )
        self._authenticator = TokenReviewer(
            kube, Replicas(settings.namespace, settings.service_account), clock.monotonic
        )
        self._catch_up = CatchUp(self._read_now, clock.monotonic)
        self._injector = Injector(self._index, lambda: self._compiling.compiled, self._injection_config)
        self._compiling.on_compiled(self._leading.tell)
        self._compiling.on_compiled(self._statuses.wake)
        self._hub.on_acknowledged(self._statuses.wake)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; raises what ended a part that must not end."""
        async with self._serving("health", self._health(), self._settings.health_port):
            # In the order in which they end: the books, then the Lease, so that the next leader finds nothing half
            # done; then the listeners, so that a follower's sidecars are sent away after there is somewhere to go.
            parts = [
                asyncio.create_task(work, name=name)
                for name, work in (
                    ("leading", self._leading.run()),
                    ("election", self._election.run()),
                    ("listeners", self._listen()),
                    ("certificates", self._keeper.run()),
                    ("compile", self._compile()),
                    ("informer", self._informer.run()),
                )
            ]
            stopped = asyncio.create_task(stop.wait(), name="stop")
            try:
                finished, _ = await asyncio.wait([stopped, *parts], return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    task.result()
                self._stopping = True
                log.info("stopping")
                await asyncio.sleep(LAME_DUCK_SECONDS)
            finally:
                for task in (stopped, *parts):
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                await self._store.close()

    # --- parts that run -----------------------------------------------------------------------------------

    async def _compile(self) -> None:
        await self._informer.synced.wait()
        await self._recall()
        self._compiling.compile_now()
        await self._compiling.run()

    async def _recall(self) -> None:
        """What budgets last validly meant, for those that are unreadable now (contract §1)."""
        try:
            stored = await self._store.read()
            self._compiling.remembered = self._remembered(stored)
        except (LedgerStoreError, LedgerUnreadable) as error:
            log.error("the books cannot be read; budgets that are unreadable now refuse every call: %s", error)

    def _remembered(self, stored: Stored) -> Mapping[str, BudgetSpec]:
        return decode(stored.sections, self._settings.cluster, coordinator_settings(self._settings).member).remembered

    async def _listen(self) -> None:
        await self._keeper.ready()
        await self._compiling.done.wait()
        async with contextlib.AsyncExitStack() as stack:
            port, tls = self._settings.control_port, self._keeper.context
            await stack.enter_async_context(self._serving("control", self._control(), port, tls))
            if self._settings.webhook_configuration:
                port = self._settings.webhook_port
                await stack.enter_async_context(self._serving("webhook", self._webhook(), port, tls))
            self._listening = True
            await asyncio.Event().wait()

    async def _tell_people(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._statuses.run())
            tasks.create_task(self._budget_events.run())

    @contextlib.asynccontextmanager
    async def _serving(
        self, name: str, app: web.Application, port: int, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[None]:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, None, port, ssl_context=tls).start()
            log.info("%s listens on port %d", name, port)
            yield
        finally:
            await runner.cleanup()

    # --- what they are made of ----------------------------------------------------------------------------

    def _control(self) -> web.Application:
        client = LeaderClient(
            self._election,
            replica_token=lambda: self._settings.token_file.read_text("ascii").strip(),
            tls=self._keeper.client_context,
            server_hostname=self._settings.control_host,
        )
        return control_app(
            ControlParts(
                hub=self._hub,
                authenticator=self._authenticator,
                coordinator=self._coordinator,
                link=self._election,
                clock=self._clock,
                rng=self._rng,
                client=client,
                metrics=self._metrics,
                retries=self._retries,
                authorizer=AccessReviewer(self._kube),
            )
        )

    def _webhook(self) -> web.Application:
        return webhook_app(
            self._injector.decide,
            self._compiling.done.is_set,
            lambda outcome: self._injections.labels(outcome).inc(),
            self._catch_up,
            lambda: self._stopping,
        )

    async def _read_now(self, namespaces: Collection[str]) -> None:
        await self._informer.read_now({*namespaces, self._settings.namespace})
        self._compiling.catch_up()

    def _health(self) -> web.Application:
        return health_app(self._readiness, self._registry, self._refresh_metrics)

    def _readiness(self) -> Mapping[str, bool]:
        return {
            "objects listed": self._informer.synced.is_set(),
            "policies compiled": self._compiling.done.is_set(),
            "listening": self._listening,
            "not stopping": not self._stopping,
        }

    def _refresh_metrics(self) -> None:
        self._metrics.show_accounts(self._coordinator.views() if self._coordinator.serving else ())
        self._metrics.show_retries(self._retries.views())
        self._metrics.show_troubles(self._hub.sightings.troubles(self._clock.monotonic()))
        programmed = sum(len(uids) for uids in self._hub.programmed().values())
        self._metrics.show_pods(programmed, len(self._hub.nacks()))

    def _facts(self) -> Facts | None:
        compiled = self._compiling.compiled
        if compiled is None:
            return None
        return Facts(
            compiled=compiled,
            pods=pod_states(self._hub, self._index.given_keys()),
            accounts=self._coordinator.views() if self._coordinator.serving else None,
            uids=self._uids(),
            differs=self._coordinator.differences() if self._coordinator.serving else {},
            troubles=self._hub.sightings.troubles(self._clock.monotonic()),
            shared=self._retries.views(),
        )

    def _known_uids(self) -> dict[ObjectKey, str] | None:
        return self._uids() if self._compiling.done.is_set() else None

    def _uids(self) -> dict[ObjectKey, str]:
        return {entry.key: entry.uid for entry in self._index.entries()}

    def _injection_config(self) -> InjectionConfig:
        sidecar = self._settings.sidecar
        return InjectionConfig(
            image=sidecar.image,
            pull_policy=sidecar.pull_policy,
            control_url=f"https://{self._settings.control_host}",
            control_ca=self._keeper.trust,
            otlp_endpoint=sidecar.otlp_endpoint,
            durability=sidecar.durability,
            cpu_request=sidecar.cpu_request,
            cpu_limit=sidecar.cpu_limit,
            memory_request=sidecar.memory_request,
            memory_limit=sidecar.memory_limit,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.unix(), UTC)


async def serve(settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Log in, run one replica, log out. Raises KubeUnavailable and what a part raises."""
    kube = await Kube.connect(settings.kubeconfig)
    try:
        await Replica(settings, kube, clock, random.SystemRandom()).run(stop)
    finally:
        await kube.close()
