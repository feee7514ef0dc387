"""A governed call with every part real, in one event loop: stand-in provider, control server and books, sidecar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Self

import aiohttp
import openai

from part_process import free_port
from sidecar_beside import Collector, anthropic_client, chat, eventually, openai_client
from sidecar_manifests import NAMESPACE, budget, provider, retries, routing, secret
from spendmesh_cli.children import Child
from spendmesh_operator.clock import SystemClock
from spendmesh_operator.control.hub import PolicyView
from spendmesh_operator.ledger.books.views import AccountView
from spendmesh_operator.local import LocalControl, LocalPod
from spendmesh_sidecar.clock import Clock
from spendmesh_sidecar.core.ledger.view import AccountStatus, status as ledger_status
from spendmesh_sidecar.keys import KeySource, StaticKeys
from spendmesh_sidecar.policy import Policy, digest, encode
from spendmesh_sidecar.process import Sidecar
from spendmesh_sidecar.settings import Address, Settings
from spendmesh_standin import DEFAULT_KEYS, Settings as StandInSettings, StandIn

OPENAI_KEY, ANTHROPIC_KEY = DEFAULT_KEYS[0].secret, DEFAULT_KEYS[1].secret
POD = LocalPod(NAMESPACE, "app-1", token="token-of-the-pod")
Json = dict[str, Any]


class World:
    """One team's pod: everything between its SDK and its provider's invoice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.log = folder / "log"
        self.books = folder / "books.json"
        self._stack = AsyncExitStack()
        self.collector = Collector()

    async def start(
        self,
        *objects: Json,
        standin: StandInSettings | None = None,
        sidecar: bool = True,
        control: bool = True,
        **settings: Any,
    ) -> Self:
        """Start all parts. Objects are added to those of `defaults`, or replace the ones of their kind and name."""
        self.standin = await self._stack.enter_async_context(StandIn(standin))
        await self.collector.start()
        self._stack.push_async_callback(self.collector.stop)
        self._stack.push_async_callback(self.stop_control)
        self.objects = {_name(each): each for each in (*self._defaults(), *objects)}
        if control:
            await self.start_control()
        self.direct_openai = await self._client(openai_client(self.standin.openai_url, OPENAI_KEY))
        self.direct_anthropic = await self._client(anthropic_client(self.standin.url, ANTHROPIC_KEY))
        self.http = await self._client(aiohttp.ClientSession())
        self._stack.push_async_callback(self.stop_sidecar)
        if sidecar and control:
            await self.start_sidecar(**settings)
        return self

    async def close(self) -> None:
        await self._stack.aclose()

    def _defaults(self) -> Sequence[Json]:
        return (
            {"kind": "Namespace", "metadata": {"name": NAMESPACE}},
            secret(openai=OPENAI_KEY, backup=OPENAI_KEY, anthropic=ANTHROPIC_KEY),
            provider("openai", self.standin.openai_url),
            provider("anthropic", self.standin.url, "Anthropic"),
            routing(),
            budget(),
            retries(),
        )

    # --- control ------------------------------------------------------------------------------------------

    async def start_control(self, port: int = 0) -> None:
        """The control process, on the books that it left behind if it ran before. Its port stays its own meanwhile."""
        self.control = LocalControl(self.objects.values(), [POD], self._folder, SystemClock(), Random(1))
        await self.control.start(port=port or free_port())
        self.control_url = self.control.url
        self._control_runs = True

    async def stop_control(self) -> None:
        if self._control_runs:
            self._control_runs = False
            await self.control.stop()

    async def apply(self, *objects: Json) -> None:
        """As `kubectl apply`; returns when the sidecar obeys."""
        for each in objects:
            previous = self.objects.get(_name(each))
            generation = previous["metadata"].get("generation", 1) + 1 if previous else 1
            metadata = {**each["metadata"], "generation": generation}
            self.objects[_name(each)] = {**each, "metadata": metadata}
        await self.control.update(self.objects.values())

    async def programmed(self) -> None:
        """Wait until the sidecar has acknowledged what is in force."""
        policy = self.control.compiled.policy_of(POD.identity.uid)
        assert policy is not None
        await eventually(lambda: policy.digest in self.control.hub.programmed())

    def publish(self, policy: Policy, **wrong: Any) -> str:
        """Send this policy to the sidecar, whatever compile says; answers its digest."""
        compiled = self.control.compiled.policy_of(POD.identity.uid)
        assert compiled is not None
        encoded = encode(policy)
        sent = replace(compiled, policy=policy, encoded=encoded, **{"digest": digest(encoded), **wrong})
        tables = self.control.compiled.price_tables
        self.control.hub.publish(PolicyView(lambda _: sent, frozenset((sent.digest,)), tables))
        return sent.digest

    # --- sidecar ------------------------------------------------------------------------------------------

    async def start_sidecar(
        self, *, keys: KeySource | None = None, clock: Clock | None = None, **settings: Any
    ) -> None:
        chosen: dict[str, Any] = {
            "control_url": self.control_url,
            "listen": Address("127.0.0.1", 0),
            "admin": Address("127.0.0.1", 0),
            "otlp_traces_url": self.collector.url,
            **settings,
        }
        keys = keys or StaticKeys({"openai": OPENAI_KEY, "backup": OPENAI_KEY, "anthropic": ANTHROPIC_KEY})
        self.sidecar = await Sidecar.start(Settings(**chosen), keys=keys, token=POD.token, clock=clock, rng=Random(7))
        self._sidecar_runs = True
        await self.use(f"http://{self.sidecar.address}", f"http://{self.sidecar.admin_address}")

    async def use(self, url: str, admin_url: str) -> None:
        """Point the clients at a sidecar."""
        self.url, self.admin_url = url, admin_url
        self.openai = await self._client(openai_client(f"{url}/openai/v1"))
        self.anthropic = await self._client(anthropic_client(f"{url}/anthropic"))

    async def start_sidecar_process(self, **environment: str) -> Child:
        """A sidecar as a container runs it, for what only a process can suffer."""
        keys = self._folder / "keys"
        keys.mkdir(exist_ok=True)
        for name in ("openai", "backup"):
            (keys / name).write_text(OPENAI_KEY + "\n")
        (keys / "anthropic").write_text(ANTHROPIC_KEY + "\n")
        (self._folder / "token").write_text(POD.token)
        variables = {
            "SPENDMESH_CONTROL_URL": self.control_url,
            "SPENDMESH_TOKEN_FILE": str(self._folder / "token"),
            "SPENDMESH_KEYS_DIR": str(keys),
            "SPENDMESH_LISTEN": "127.0.0.1:0",
            "SPENDMESH_ADMIN_LISTEN": "127.0.0.1:0",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.collector.url,
            **environment,
        }
        child = await Child.start("sidecar", "spendmesh_sidecar", [], self.log, variables)
        self._stack.push_async_callback(child.stop)
        ready = await child.ready()
        await self.use(f"http://{ready['listen']}", f"http://{ready['admin']}")
        return child

    async def start_control_process(self, port: int = 0) -> Child:
        """The control side as a process, on the books in the world's folder."""
        manifests, tokens = self._folder / "manifests", self._folder / "tokens.json"
        manifests.mkdir(exist_ok=True)
        (manifests / "all.json").write_text(json.dumps({"kind": "List", "items": list(self.objects.values())}))
        tokens.write_text(json.dumps({POD.token: NAMESPACE}))
        words = ["--manifests", manifests, "--state", self._folder, "--tokens", tokens, "--books", self.books]
        child = await Child.start(
            "control", "spendmesh_cli.control_process", [*map(str, words), "--port", str(port or free_port())], self.log
        )
        self._stack.push_async_callback(child.stop)
        self.control_url = str((await child.ready())["url"])
        return child

    async def stop_sidecar(self) -> None:
        if self._sidecar_runs:
            self._sidecar_runs = False
            await self.sidecar.stop()

    _sidecar_runs = False
    _control_runs = False

    async def _client(self, client: Any) -> Any:
        return await self._stack.enter_async_context(client)

    async def serve(self, server: Any) -> None:
        """Start something beside, until the end of the test."""
        await server.start()
        self._stack.push_async_callback(server.stop)

    async def client(self, base_url: str, **options: Any) -> openai.AsyncOpenAI:
        """Another OpenAI client."""
        return await self._client(openai_client(base_url, **options))

    # --- money --------------------------------------------------------------------------------------------

    @property
    def invoice_nanos(self) -> int:
        return self.standin.invoice().cost_nanos

    def account(self, limit: str = "monthly") -> AccountView:
        """An account as the coordinator has it."""
        return next(view for view in self.control.coordinator.views() if view.key.limit == limit)

    @property
    def rights(self) -> AccountStatus:
        """The team's monthly account as the sidecar has it."""
        (found,) = ledger_status(self.sidecar.plane.ledger, self.sidecar.plane.clock.monotonic())
        return found

    async def settled(self) -> int:
        """What the sidecar has settled, in nano-units, once nothing is in flight any more."""
        await self.quiet()
        return self.rights.used

    async def quiet(self) -> None:
        """Wait until no request, no answer without a reader and no reservation is left."""
        plane = self.sidecar.plane
        await eventually(lambda: not (plane.active or plane.draining or plane.ledger.open_reservations))

    async def close_the_books(self) -> int:
        """Stop the sidecar; what the coordinator then has settled, with nothing held or quarantined."""
        await self.stop_sidecar()
        account = self.account()
        assert (account.held, account.quarantined, account.overrun) == (0, 0, 0)
        return account.state.settled

    # --- what is to be seen -------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        async with self.http.get(f"{self.admin_url}/status") as response:
            return await response.json()

    async def metrics(self) -> dict[str, float]:
        """Samples by name and labels as they are written."""
        async with self.http.get(f"{self.admin_url}/metrics") as response:
            text = await response.text()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def total(self, name: str, **labels: str) -> float:
        """Sum over the samples of a metric that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = (await self.metrics()).items()
        return sum(value for key, value in found if key.split("{")[0] == name and all(each in key for each in wanted))

    def provider_requests(self, path: str = "") -> list[Any]:
        """What arrived at the provider."""
        return [seen for seen in self.standin.requests() if seen.path.endswith(path)]


async def exhaust(world: World, output: int = 250, **more: Any) -> openai.APIStatusError:
    """Call until a call is refused for good: what others hold, or what has not been reported yet, is no end."""
    while True:
        try:
            await world.openai.chat.completions.create(**chat(f"[[out={output}]]", **more))
        except openai.APIStatusError as error:
            if error.code != "budget_in_flight":
                return error
            await asyncio.sleep(0.02)


def _name(raw: Json) -> tuple[str, str]:
    return raw["kind"], raw["metadata"]["name"]
