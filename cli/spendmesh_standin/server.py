"""The stand-in as something to start and stop, in a test's own event loop or in a process of its own."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from spendmesh_standin.control import PREFIX, Control
from spendmesh_standin.faults import FaultPlan, FaultRule
from spendmesh_standin.invoice import Invoice, Statement
from spendmesh_standin.requests_seen import SeenRequest
from spendmesh_standin.service import Service
from spendmesh_standin.settings import Settings

_MAX_BODY_BYTES = 32 * 1024 * 1024  # Anthropic's own limit for a message request


class StandIn:
    """A paid provider's stand-in on one port.

    `async with StandIn() as standin:` or `start()` and `stop()`. It speaks both dialects: an OpenAI client takes
    `standin.openai_url` as its base URL, an Anthropic client `standin.url`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        invoice_file: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.settings = settings if settings is not None else Settings()
        self._host = host
        self._port = port
        self._tls = tls
        self._invoice = Invoice(invoice_file)
        self._service = Service(self.settings, self._invoice)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError where the address is taken."""
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        control = Control(self._service)
        application.router.add_route("*", f"{PREFIX}/{{tail:.*}}", control.handle)
        application.router.add_route("*", "/{tail:.*}", self._service.handle)
        # Handlers are cancelled when their client leaves: that is how a disconnect is seen and billed.
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, self._host, self._port, ssl_context=self._tls, backlog=1024).start()
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening and cut what is running; calls in flight are billed as if their client had left."""
        self._service.stopping = True
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._invoice.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port it listens on. Raises RuntimeError before `start`."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("the stand-in is not running; await start() first")
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """The root, which is an Anthropic client's base URL."""
        scheme = "http" if self._tls is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self.port}"

    @property
    def openai_url(self) -> str:
        """An OpenAI client's base URL."""
        return f"{self.url}/v1"

    def invoice(self) -> Statement:
        """Everything booked so far."""
        return self._invoice.statement()

    def requests(self) -> tuple[SeenRequest, ...]:
        """The newest requests it saw, oldest first."""
        return self._service.seen.all()

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return self._service.in_flight

    def faults(self, *rules: FaultRule, seed: int = 0) -> None:
        """Replace the fault plan; without rules all faults end."""
        self.set_plan(FaultPlan(rules, seed=seed, now=asyncio.get_running_loop().time()))

    def set_plan(self, plan: FaultPlan) -> None:
        """Replace the fault plan."""
        self._service.plan = plan

    def fault_counts(self) -> list[dict[str, object]]:
        """How often each rule of the plan matched and acted."""
        return self._service.plan.counts()

    def acknowledge(self, identifier: str, chunks: int = 1) -> bool:
        """Let chunks of a withheld stream go, by any id that its answer carries; False where none such is running."""
        gate = self._service.acks.find(identifier)
        if gate is not None:
            gate.acknowledge(chunks)
        return gate is not None

    def reset(self) -> None:
        """Begin anew: empty invoice, no requests, no faults, nothing cached."""
        self._service.reset()
