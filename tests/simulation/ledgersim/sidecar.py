"""
One sidecar of the simulation: the product's exchanges, ledger and leases, over the simulated network.

What HTTP does in the product is done by `ControlWire`; what the pipeline does by `Sidecar.call`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ledgersim.log import SimLog
from ledgersim.loop import ProcessLoop
from ledgersim.network import Broken
from ledgersim.terms import Terms, group_of, policy_of
from ledgersim.workload import Call
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.books.accounts import BadRequest, HolderFenced, NotYours
from spendmesh_operator.ledger.coordinator.serving import NotServing
from spendmesh_sidecar import protocol
from spendmesh_sidecar.control.client import CALL_SECONDS, ControlRefused, ControlUnavailable
from spendmesh_sidecar.control.leases import Leases
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.failures.breaker import Breakers
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.journal import Journal
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.types import (
    Acquire,
    Attempt,
    Bounds,
    Hints,
    Operation,
    Outcome,
    ParsedRequest,
    Respond,
    Shortfall,
    Wait,
)

if TYPE_CHECKING:
    from ledgersim.world import World

CHAT = Operation("chat", "OpenAI", "POST", "/chat/completions", billed=True, genai_name="chat")
POLICY_SECONDS = 2.0
STATUS_OF = {BadRequest: 400, NotYours: 403, HolderFenced: 409}


class Witness(Protocol):
    """Who is told of every reservation and its end."""

    def reserved(self, reservation: str, parts: list[tuple[str, Charge]]) -> None: ...

    def resolved(self, reservation: str, actual: Quantities | None) -> None: ...


class WatchedLedger(Ledger):
    """The product's ledger, with somebody who writes down what it does."""

    def __init__(self, witness: Witness, nonce: str, now: float, journal: Journal) -> None:
        self.witness = witness
        super().__init__(nonce, (), now, journal)

    def reserve(self, charges: tuple[Charge, ...], reservation: str, now: float) -> tuple[Shortfall, ...]:
        places = [(self._account(charge.account, now).current(now), charge) for charge in charges]
        lacking = super().reserve(charges, reservation, now)
        if not lacking:
            self.witness.reserved(reservation, [(lease.id, charge) for lease, charge in places if lease is not None])
        return lacking

    def settle(self, reservation: str, actual: Quantities, now: float) -> None:
        super().settle(reservation, actual, now)
        self.witness.resolved(reservation, actual)

    def void(self, reservation: str) -> None:
        super().void(reservation)
        self.witness.resolved(reservation, None)


class ControlWire:
    """`ControlClient`'s acquire and report: encoded, over the network, to whom it takes for the leader."""

    def __init__(self, world: World, process: ProcessLoop, pod: PodIdentity) -> None:
        self._world, self._process, self._pod = world, process, pod
        self._cluster = world.cluster(world.pods.place_of[pod.uid])

    async def acquire(self, request: protocol.AcquireRequest) -> protocol.AcquireReply:
        body = msgspec.json.encode(request)
        reply = await self._ask(
            lambda replica: replica.coordinator.acquire(
                self._pod, msgspec.json.decode(body, type=protocol.AcquireRequest)
            )
        )
        self._world.checker.heard(reply)
        return msgspec.json.decode(msgspec.json.encode(reply), type=protocol.AcquireReply)

    async def report(self, request: protocol.ReportRequest) -> protocol.ReportReply:
        body = msgspec.json.encode(request)
        reply = await self._ask(
            lambda replica: replica.coordinator.report(
                self._pod, msgspec.json.decode(body, type=protocol.ReportRequest)
            )
        )
        return msgspec.json.decode(msgspec.json.encode(reply), type=protocol.ReportReply)

    async def policy(self, seen_epoch: int) -> tuple[int, Terms]:
        """The policy stream's part in the ledger: terms in force, and epochs told both ways."""

        async def stamp(replica: Any) -> tuple[int, Terms]:
            if not replica.coordinator.serving:
                raise NotServing("no coordinator serves here")
            if seen_epoch > replica.coordinator.epoch:
                await replica.coordinator.raise_epoch(seen_epoch)
            return replica.coordinator.epoch, replica.terms

        return await self._ask(stamp)

    async def _ask(self, serve: Callable[[Any], Any]) -> Any:
        replica = self._cluster.route()
        try:
            return await self._world.network.call(self._process, replica.process, lambda: serve(replica), CALL_SECONDS)
        except (Broken, NotServing) as error:
            raise ControlUnavailable(str(error)) from error
        except tuple(STATUS_OF) as error:
            self._world.happened[f"refused: {type(error).__name__}"] += 1
            raise ControlRefused(STATUS_OF[type(error)], str(error)) from error


class Sidecar:
    """One process beside an application."""

    def __init__(
        self, world: World, process: ProcessLoop, pod: PodIdentity, place: int, ledger: WatchedLedger, log: SimLog
    ) -> None:
        self.world, self.process, self.identity, self.place = world, process, pod, place
        self._terms = world.terms
        self.policy = policy_of(world.terms, world.history.zone, group_of(world.terms, place))
        self.ledger, self.log = ledger, log
        self.wire = ControlWire(world, process, pod)
        self.rng = Random(world.scheduler.rng.getrandbits(32))
        self.leases = Leases(self.wire, ledger, process, self.rng, self._new_nonce, log)  # type: ignore[arg-type]
        self.retry_budgets, self.breakers, self.pricing = RetryBudgets(), Breakers(), Pricing((), "sim")
        self.seen_epoch = 0
        self.calls = 0
        self.waiting = 0
        self.stopping = False
        ledger.set_budgets(self.policy.budgets, process.monotonic())

    def start(self) -> None:
        """Run from now on."""
        self.process.create_task(self.leases.start(), name="start")
        self.process.create_task(self._follow_policy(), name="policy")

    async def stop(self, seconds: float) -> None:
        """A graceful end: all leases are closed if they can be."""
        self.stopping = True
        await self.leases.stop(seconds)

    def _new_nonce(self) -> str:
        self.world.checker.abandoned(self.identity.uid, self.ledger.nonce)
        return self.world.pods.new_nonce(self.identity)

    async def _follow_policy(self) -> None:
        while not self.stopping:
            await asyncio.sleep(self.rng.uniform(0.5, 1.5) * POLICY_SECONDS)
            try:
                epoch, terms = await self.wire.policy(self.seen_epoch)
            except (ControlUnavailable, ControlRefused):
                continue
            self.seen_epoch = max(self.seen_epoch, epoch)
            if terms is not self._terms and not self.stopping:
                self._terms = terms
                self.policy = policy_of(terms, self.world.history.zone, group_of(terms, self.place))
                self.ledger.set_budgets(self.policy.budgets, self.process.monotonic())

    # --- calls --------------------------------------------------------------------------------------------

    async def call(self, call: Call, name: str) -> None:
        """One client request from admission to settlement, as the pipeline drives it."""
        bounds = Bounds(call.input_tokens, max_output_tokens=call.max_output_tokens, output_field="max_tokens")
        hints = Hints(user=call.user)
        request = ParsedRequest(CHAT, b"{}", {}, "auto", stream=False, bounds=bounds, hints=hints)
        exchange = Exchange(
            request,
            self.policy,
            ledger=self.ledger,
            retry_budgets=self.retry_budgets,
            breakers=self.breakers,
            pricing=self.pricing,
            request_id=name,
            rng=self.rng,
        )
        began = self.world.scheduler.now
        self.waiting += 1
        try:
            await self._drive(exchange, call)
        finally:
            exchange.close(self.process.monotonic())
            self.waiting -= 1
        self.world.answered(self, exchange, call, began)

    async def _drive(self, exchange: Exchange, call: Call) -> None:
        clock = self.process
        step = exchange.begin(*clock.both())
        while not isinstance(step, Respond):
            match step:
                case Acquire():
                    denials = await self.leases.acquire(step.shortfalls, step.wait_seconds)
                    step = exchange.acquired(denials, *clock.both())
                case Wait():
                    await asyncio.sleep(step.seconds)
                    step = exchange.resume(*clock.both())
                case Attempt():
                    outcome = await self._attempt(step, call)
                    if outcome is None:
                        return  # abandoned: the end is not seen
                    step = exchange.observe(outcome, *clock.both())

    async def _attempt(self, step: Attempt, call: Call) -> Outcome | None:
        world = self.world
        if self.log.waits:
            await self.log.durable()
        answer = world.provider.send(step, call)
        await asyncio.sleep(answer.seconds)
        return answer.outcome
