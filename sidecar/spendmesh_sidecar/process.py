"""
Put one sidecar together, start it, stop it: the only place where real things are built.

`spendmesh run`, `demo` and tests use it with keys and a token handed in; a pod uses it through `__main__`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random, SystemRandom

from aiohttp import web

from spendmesh_sidecar.admin import admin_server
from spendmesh_sidecar.clock import Clock, boot_id
from spendmesh_sidecar.control.client import ControlClient
from spendmesh_sidecar.control.leases import Leases
from spendmesh_sidecar.control.observer import Observer
from spendmesh_sidecar.control.policy_source import Installed, PolicySource
from spendmesh_sidecar.control.retry_shares import RetrySharing
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.recovery import Here, records_of, restore
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.app import data_server
from spendmesh_sidecar.keys import FileKeys, KeySource, StaticKeys
from spendmesh_sidecar.settings import Address, Settings, SettingsError
from spendmesh_sidecar.state.ledger_log import LedgerLog, Log, NoLog, StateUnusable
from spendmesh_sidecar.telemetry.exporter import Telemetry
from spendmesh_sidecar.telemetry.metrics import Metrics
from spendmesh_sidecar.upstream.pool import PooledUpstream

FIRST_RIGHTS_SECONDS = 1.0
"""Contract §4: after that the sidecar is ready without rights."""

log = logging.getLogger("spendmesh")


def new_nonce() -> str:
    """128 random bits in hex, of which nothing can be foreseen."""
    return secrets.token_hex(16)


def id_source() -> Callable[[], str]:
    """128 random bits in hex for requests, traces and spans: unique, no secrets (as OpenTelemetry's SDKs draw them)."""
    draw = Random(secrets.randbits(256)).getrandbits  # noqa: S311
    return lambda: draw(128).to_bytes(16).hex()


async def open_ledger(settings: Settings, clock: Clock) -> tuple[Ledger, Log]:
    """
    The ledger as the last process left it in the state folder, or a new one; from now on it is written down there.

    Raises SettingsError for a folder that cannot be used.
    """
    if settings.state_dir is None:
        return Ledger(new_nonce()), NoLog()
    pod = settings.pod_uid or f"{settings.namespace}/{settings.pod_name}"
    now = clock.monotonic()
    log_file = LedgerLog(settings.state_dir, Here(pod, boot_id(), settings.durability, now, clock.unix()))
    try:
        await log_file.lock()
    except StateUnusable as error:
        raise SettingsError(str(error)) from error
    recovered = log_file.recover()
    ledger = Ledger(recovered.nonce if recovered else new_nonce(), journal=log_file)
    if recovered is not None:
        restore(ledger, recovered, now)
    log_file.start(lambda: (ledger.nonce, records_of(ledger)))
    return ledger, log_file


@dataclass(slots=True)
class Sidecar:
    """A running sidecar. `address` and `admin_address` are what it listens on (port 0 is resolved)."""

    plane: DataPlane
    policy: PolicySource
    observer: Observer
    address: Address
    admin_address: Address
    _client: ControlClient
    _sharing: RetrySharing
    _shutdown_seconds: float
    _runners: list[web.ServerRunner] = field(default_factory=list)
    _data: web.ServerRunner | None = None

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        keys: KeySource | None = None,
        token: str = "",
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> Sidecar:
        """
        Start listening once a policy is in force or `settings.first_policy_seconds` have passed.

        Without a policy it serves too, and refuses with `policy_missing`: readiness tells, and an absent
        operator must not keep a container from starting.
        """
        clock, rng = clock or Clock(), rng or SystemRandom()
        if keys is None:
            keys = FileKeys(settings.keys_dir, clock.monotonic) if settings.keys_dir else StaticKeys({})
        client = ControlClient(settings, token)
        metrics = Metrics()
        ledger, log_file = await open_ledger(settings, clock)
        plane = DataPlane(
            clock=clock,
            rng=rng,
            new_id=id_source(),
            upstream=PooledUpstream(),
            keys=keys,
            ledger=ledger,
            leases=Leases(client, ledger, clock, rng, new_nonce, log_file),
            log=log_file,
            metrics=metrics,
            telemetry=Telemetry(settings, metrics),
            limits=settings.limits,
        )
        arrived = asyncio.Event()

        def install(installed: Installed) -> None:
            plane.install(installed)
            arrived.set()

        kept = settings.state_dir if settings.keep_policy else None
        policy = PolicySource(client, keys, lambda: ledger.nonce, rng, install, kept)
        policy.restore(settings.bootstrap_file)
        client.on_hints = plane.heed
        observer = Observer(plane, client, rng)
        sharing = RetrySharing(client, lambda: plane.shared_retries, clock, rng, new_nonce())
        sidecar = cls(
            plane, policy, observer, settings.listen, settings.admin, client, sharing, settings.shutdown_seconds
        )
        try:
            await sidecar._serve(settings, arrived)
        except BaseException:
            await sidecar.stop()
            raise
        return sidecar

    async def _serve(self, settings: Settings, arrived: asyncio.Event) -> None:
        plane = self.plane
        admin = await self._listen(admin_server(plane), settings.admin)
        self.admin_address = _bound(admin)
        await self.policy.start()
        await plane.telemetry.start()
        try:
            async with asyncio.timeout(settings.first_policy_seconds):
                await arrived.wait()
        except TimeoutError:
            log.warning("no policy yet; every call is refused until one arrives")
        await plane.leases.start(FIRST_RIGHTS_SECONDS)
        await self.observer.start()
        await self._sharing.start()
        plane.watched = (
            *self.policy.tasks,
            *plane.telemetry.tasks,
            *plane.leases.tasks,
            *self.observer.tasks,
            *self._sharing.tasks,
        )
        self._data = await self._listen(data_server(plane, settings), settings.listen)
        self.address = _bound(self._data)
        plane.listening = True
        log.info("serving on %s", self.address)

    async def stop(self) -> None:
        """Finish what runs, give rights back, flush spans. Bounded; what is lost stays charged, never refunded."""
        self.plane.stopping = True
        if self._data is not None and self._data.server is not None:
            for site in tuple(self._data.sites):
                await site.stop()  # no new connection; what is open finishes
            self._data.server.pre_shutdown()
        try:
            async with asyncio.timeout(self._shutdown_seconds):
                await self.plane.idle.wait()
        except TimeoutError:
            log.warning("%d requests were still running", self.plane.active)
        for runner in reversed(self._runners):
            await runner.cleanup()
        await self.policy.stop()
        await self.observer.stop()
        await self._sharing.stop()
        await self.plane.leases.stop(self._shutdown_seconds)
        self.plane.log.close(settled=self.plane.ledger.settled_up)
        await self.plane.telemetry.stop()
        await self.plane.upstream.close()
        await self._client.close()

    async def _listen(self, server: web.Server, address: Address) -> web.ServerRunner:
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, address.host, address.port, backlog=1024).start()
        return runner


def _bound(runner: web.ServerRunner) -> Address:
    """What it listens on, port 0 resolved."""
    host, port = runner.addresses[0][:2]
    return Address(host, port)
