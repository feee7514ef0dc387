"""A governed call with every part real, in one event loop: stand-in provider, control server with its books, sidecar."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import anthropic
import openai
from aiohttp import web
from sidecar_manifests import NAMESPACE, budget, provider, retries, routing

from spendmesh_operator.clock import SystemClock
from spendmesh_operator.compile import Compiled, CompileSettings, compile_index
from spendmesh_operator.control.auth import PodIdentity, StaticTokens
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.control.server import ControlParts, control_app
from spendmesh_operator.index import Index
from spendmesh_operator.ledger.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.sqlite import SQLiteStore
from spendmesh_operator.prices import load_prices
from spendmesh_sidecar.keys import StaticKeys
from spendmesh_sidecar.process import Sidecar
from spendmesh_sidecar.settings import Address, Settings
from spendmesh_standin import DEFAULT_KEYS, FaultRule, Settings as StandInSettings, StandIn

DEADLINE_SECONDS = 20.0
OPENAI_KEY, ANTHROPIC_KEY = DEFAULT_KEYS[0].secret, DEFAULT_KEYS[1].secret
TOKEN = "token-of-the-pod"
POD = PodIdentity(NAMESPACE, "app-1", "uid-1")


async def eventually(condition: Callable[[], Any], why: str = "the awaited condition did not come true") -> Any:
    """Wait until something is so; answers what it gave. `condition` may be a coroutine function."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.005)


class Control:
    """Compile, books and control server on one port."""

    def __init__(self, state: Path) -> None:
        self.hub = Hub()
        self._index = Index()
        self._index.add({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
        pod = {"namespace": POD.namespace, "name": POD.name, "uid": POD.uid, "labels": {}}
        self._index.add({"kind": "Pod", "metadata": pod})
        self._store = SQLiteStore(state / "ledger.sqlite")
        self._compiled: Compiled | None = None
        self.coordinator = Coordinator(
            self._store,
            SystemClock(),
            Random(1),
            self.hub.policy_of,
            "test",
            CoordinatorSettings(commit_interval_seconds=0.0),
        )
        self.url = ""
        self._port = 0

    def is_leader(self) -> bool:
        return True

    def address(self) -> str | None:
        return self.url

    async def start(self) -> None:
        await self.coordinator.start()
        parts = ControlParts(self.hub, StaticTokens({TOKEN: POD}), self.coordinator, self, SystemClock(), Random(1))
        self._runner = web.AppRunner(control_app(parts), access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    def apply(self, *objects: dict[str, Any]) -> None:
        for raw in objects:
            self._index.add(raw)
        self._compiled = compile_index(self._index, CompileSettings(cluster="test"), load_prices(), self._compiled)
        digests = frozenset(policy.digest for policy in self._compiled.policies.values())
        self.hub.publish(PolicyView(self._compiled.policy_of, digests, self._compiled.price_tables))

    async def pause(self) -> None:
        await self._runner.cleanup()

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self.coordinator.stop()
        await self._store.close()

    def view(self, limit: str = "monthly", name: str = "team") -> Any:
        found = (v for v in self.coordinator.views() if v.key.budget == f"{NAMESPACE}/{name}" and v.key.limit == limit)
        return next(found, None)


@cache
def _certificates() -> ssl.SSLContext:
    """Made once: loading it is most of what an SDK's client costs."""
    return ssl.create_default_context()


def openai_client(base_url: str, key: str = "injected", **options: Any) -> openai.AsyncOpenAI:
    transport = openai.DefaultAsyncHttpxClient(verify=_certificates(), trust_env=False)
    options = {"max_retries": 0, "timeout": DEADLINE_SECONDS, **options}
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, http_client=transport, **options)


def anthropic_client(base_url: str, key: str = "injected", **options: Any) -> anthropic.AsyncAnthropic:
    transport = anthropic.DefaultAsyncHttpxClient(verify=_certificates(), trust_env=False)
    options = {"max_retries": 0, "timeout": DEADLINE_SECONDS, **options}
    return anthropic.AsyncAnthropic(base_url=base_url, api_key=key, http_client=transport, **options)


class Collector:
    """Takes OTLP/HTTP JSON as a collector does, and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.url = ""

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._take, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/traces"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.BaseRequest) -> web.Response:
        for resource in json.loads(await request.read())["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans += scope["spans"]
        return web.Response(body=b"{}", content_type="application/json")

    def attempts(self) -> list[dict[str, Any]]:
        return [attributes(span) for span in self.spans if span["kind"] == 3]

    def cost_nanos(self) -> int:
        return sum(int(attempt["spendmesh.cost.nanos"]) for attempt in self.attempts())


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


class World:
    """One team's pod: everything between its SDK and its provider's invoice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.standin: StandIn
        self.control: Control
        self.sidecar: Sidecar
        self.collector = Collector()
        self._stack = AsyncExitStack()

    async def start(
        self,
        *objects: dict[str, Any],
        standin: StandInSettings | None = None,
        settings: dict[str, Any] | None = None,
    ) -> World:
        """Start all parts. Objects are added to, and replace by name, one policy of each kind."""
        self.standin = await self._stack.enter_async_context(StandIn(standin))
        await self.collector.start()
        self._stack.push_async_callback(self.collector.stop)
        self.control = Control(self.folder)
        await self.control.start()
        self._stack.push_async_callback(self.control.stop)
        self.control.apply(*self.defaults(), *objects)
        await self.start_sidecar(**(settings or {}))
        self.direct_openai = await self._client(openai_client(self.standin.openai_url, OPENAI_KEY))
        self.direct_anthropic = await self._client(anthropic_client(self.standin.url, ANTHROPIC_KEY))
        self.http = await self._client(aiohttp.ClientSession())
        return self

    def defaults(self) -> Sequence[dict[str, Any]]:
        return (
            provider("openai", self.standin.openai_url),
            provider("anthropic", self.standin.url, "Anthropic"),
            routing(),
            budget(),
            retries(),
        )

    async def start_sidecar(self, **settings: Any) -> None:
        chosen: dict[str, Any] = {
            "control_url": self.control.url,
            "listen": Address("127.0.0.1", 0),
            "admin": Address("127.0.0.1", 0),
            "otlp_traces_url": self.collector.url,
            **settings,
        }
        keys = StaticKeys({"openai": OPENAI_KEY, "anthropic": ANTHROPIC_KEY})
        self.sidecar = await Sidecar.start(Settings(**chosen), keys=keys, token=TOKEN, rng=Random(7))
        self._stack.push_async_callback(self.sidecar.stop)
        self.url = f"http://{self.sidecar.address}"
        self.admin_url = f"http://{self.sidecar.admin_address}"
        self.openai = await self._client(openai_client(f"{self.url}/openai/v1"))
        self.anthropic = await self._client(anthropic_client(f"{self.url}/anthropic"))

    async def close(self) -> None:
        await self._stack.aclose()

    async def _client(self, client: Any) -> Any:
        return await self._stack.enter_async_context(client)

    def faults(self, *rules: FaultRule) -> None:
        self.standin.faults(*rules)
